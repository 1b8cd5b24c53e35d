"""Class index → class id and name."""

import ast
import json
from pathlib import Path
from typing import Any, NamedTuple

from predictor.errors import LabelsError
from predictor.resources import resource

# Keys below which TorchServe, timm, Hugging Face and training programs keep the labels.
INNER = ("object_type_names", "label_names", "id2label", "class_to_idx", "idx_to_class")
ACCEPTED = (
    'Accepted are a list of names, {"0": name}, {"0": [id, name]}, {name: 0}, and a text file with'
    " one name per line."
)


class Label(NamedTuple):
    """A class's id (for ImageNet its WordNet id, such as ``n02124075``) and its name."""

    class_id: str
    class_name: str


def numbered(count: int) -> tuple[Label, ...]:
    """Return labels for a model without any: ``class 0`` to ``class count-1``."""
    return tuple(Label(str(index), f"class {index}") for index in range(count))


def load_labels(source: Any = "imagenet") -> tuple[Label, ...]:
    """Read the labels, in class-index order. A class without an id gets its index as id.

    ``source`` is ``imagenet``, a path, or the labels as a list or dictionary.

    Raises:
        LabelsError: the labels cannot be read, are in another format, skip an index or repeat an
            id. The message names the line or the index.
    """
    where = "The labels"
    try:
        if isinstance(source, str | Path):
            own = source != "imagenet"
            path = Path(source).expanduser() if own else resource("imagenet_class_index.json")
            where = f"The labels in {path}"
            source = _read(path)
        return _checked([_label(index, value) for index, value in enumerate(_in_order(source))])
    except OSError as error:
        raise LabelsError(f"{where} cannot be read: {error.strerror}.") from error
    except (ValueError, SyntaxError) as error:  # UnicodeDecodeError and JSONDecodeError, too
        raise LabelsError(f"{where} cannot be used: {error}. {ACCEPTED}") from error


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig").strip()  # Notepad puts a byte order mark first
    if path.suffix == ".csv":
        raise ValueError("CSV has no usual order of columns")
    if path.suffix == ".json":
        return json.loads(text, object_pairs_hook=_without_duplicates)
    if text.startswith("{"):  # a printed dictionary, as a much copied list of ImageNet's classes is
        return ast.literal_eval(text)
    lines = [line.strip() for line in text.splitlines()]
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is empty")
    return lines


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key!r} is there twice")
        result[key] = value
    return result


def _in_order(rows: Any) -> list[Any]:
    """Return each class's name, or id and name."""
    if isinstance(rows, dict):
        described = rows.get("label_descriptions") or {}
        inner = (rows[key] for key in INNER if isinstance(rows.get(key), dict | list))
        rows = next(inner, rows)
        if described:  # by timm: the names are ids
            pairs = rows.items() if isinstance(rows, dict) else enumerate(rows)
            rows = {str(index): [name, described.get(name, name)] for index, name in pairs}
    if isinstance(rows, list | tuple):
        return list(rows)
    if not isinstance(rows, dict):
        raise ValueError(f"found {rows!r:.50}")
    values: dict[int, Any] = {}
    for key, value in rows.items():
        by_name = type(value) is int or not str(key).isdecimal()  # {name: 0}
        name, index = (key, value) if by_name else (value, key)
        if not str(index).isdecimal():
            raise ValueError(f"{key!r}: {value!r:.50} has no class index")
        if int(index) in values:
            raise ValueError(f"index {index} has {values[int(index)]!r} and {name!r}")
        values[int(index)] = name
    if gap := set(range(len(values))) - values.keys():
        raise ValueError(f"index {min(gap)} is missing; the last one is {max(values)}")
    return [values[index] for index in range(len(values))]


def _label(index: int, value: Any) -> Label:
    names = value if isinstance(value, list | tuple) and value else [value]
    if not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"index {index} has {value!r:.50} in place of a name or [id, name]")
    return Label(names[0] if len(names) > 1 else str(index), names[-1])


def _checked(labels: list[Label]) -> tuple[Label, ...]:
    if not labels:
        raise ValueError("they are empty")
    first: dict[str, int] = {}
    for index, label in enumerate(labels):
        if first.setdefault(label.class_id, index) != index:
            raise ValueError(
                f"index {first[label.class_id]} and {index} have the id {label.class_id!r}"
            )
    return tuple(labels)
