"""Class index → class id and name."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from predictor.errors import LabelsError
from predictor.resources import resource


class Label(NamedTuple):
    """A class's id (for ImageNet its WordNet id, such as ``n02124075``) and its name."""

    class_id: str
    class_name: str


def load_labels(source: str = "imagenet") -> tuple[Label, ...]:
    """Read the labels, in class-index order, from ``imagenet`` or a path.

    A JSON file must hold ``{"0": [id, name], …}`` or a list of names. Any other file must have one
    name per line. A class without an id gets its index as id.

    Raises:
        LabelsError: the file cannot be read, is in another format, skips an index or repeats an id.
    """
    path = resource("imagenet_class_index.json") if source == "imagenet" else Path(source)
    try:
        text = path.read_text(encoding="utf-8-sig")  # Notepad puts a byte order mark first
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        labels = _labels(json.loads(text) if path.suffix == ".json" else lines)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LabelsError(f"The labels in {path} cannot be read: {reason}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabelsError(
            f'The labels in {path} must be {{"0": [id, name], "1": …}} without gaps,'
            " a JSON list of names, or a text file with one name per line."
        ) from error
    if not labels:
        raise LabelsError(f"{path} contains no labels.")
    (class_id, count), *_ = Counter(label.class_id for label in labels).most_common()
    if count > 1:
        raise LabelsError(f"In {path}, {count} classes have the id {class_id!r}; ids must differ.")
    return labels


def _labels(rows: Any) -> tuple[Label, ...]:
    if isinstance(rows, dict):
        pairs = (rows[str(index)] for index in range(len(rows)))
        return tuple(Label(str(class_id), str(name)) for class_id, name in pairs)
    if not isinstance(rows, list) or not all(isinstance(name, str) for name in rows):
        raise TypeError(rows)
    return tuple(Label(str(index), name) for index, name in enumerate(rows))


def numbered(classes: int) -> tuple[Label, ...]:
    """Return labels for a model whose classes have no names."""
    return tuple(Label(str(index), f"class {index}") for index in range(classes))
