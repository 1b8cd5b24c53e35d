"""Photos with the class that each of them has: folders and CSV files."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shlex import quote

from predictor.errors import StartError
from predictor.images.files import Finder
from predictor.models.labels import Label

# Names of the columns of a CSV file.
PATHS = ("path", "file", "filename", "image", "photo")
CLASSES = ("class", "label", "class_id", "wnid", "class_index", "class_name")

# Finds the photos one after the other: yields a path, and what its class is called.
Find = Callable[[Finder], Iterator[tuple[str, str]]]


class Truth:
    """The photos of a folder with one sub-folder per class, or of a CSV file.

    Attributes:
        called_by: what the classes are called by: ``name``, ``id`` or ``index``.
    """

    def __init__(self, source: Path, labels: Sequence[Label]) -> None:
        """Raise StartError if the source cannot be read, or has a class that the model lacks."""
        try:
            words, self._find = (_in_folder if source.is_dir() else _in_csv)(source)
        except (OSError, ValueError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(f"{source} cannot be read: {reason}.") from error
        if not words:
            raise StartError(f"{source} has no classes. In a folder, each has a sub-folder.")
        self.called_by, self._classes = _match(words, labels, source)

    def photos(self, finder: Finder) -> Iterator[tuple[str, int]]:
        """Yield each photo's path and the index of its class."""
        return ((file, self._classes[word]) for file, word in self._find(finder))


def _in_folder(folder: Path) -> tuple[list[str], Find]:
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    words = [entry.name for entry in entries if entry.is_dir()]

    def find(finder: Finder) -> Iterator[tuple[str, str]]:
        finder.left_out["in no sub-folder"] += len(entries) - len(words)
        for word in words:
            yield from ((file, word) for file in finder.find([str(folder / word)]))

    return words, find


def _in_csv(path: Path) -> tuple[list[str], Find]:
    return sorted({word for _, word in _rows(path)}), lambda _: _rows(path)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the path and the class of each row. Paths are relative to the file's folder."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = max(",;\t", key=file.readline().count)
        file.seek(0)
        rows = csv.DictReader(file, delimiter=delimiter)
        known = set(rows.fieldnames or ())
        columns = [next(filter(known.__contains__, names), "") for names in (PATHS, CLASSES)]
        if "" in columns:
            raise ValueError("its first line must name the columns path and class")
        for row in rows:
            photo, word = (row[column] for column in columns)
            if not photo or not word:
                raise ValueError(f"line {rows.line_num} has no path or no class")
            yield str(path.parent / photo), word


def _match(words: list[str], labels: Sequence[Label], source: Path) -> tuple[str, dict[str, int]]:
    """Return what the words are, and the class index of each of them."""
    ids, names = zip(*labels, strict=True)
    unknown = words
    for kind, known in ("name", names), ("id", ids), ("index", [str(i) for i in range(len(ids))]):
        for form in (str, _in_lower_case):
            forms = [form(one) for one in known]
            counts, found = Counter(forms), {one: index for index, one in enumerate(forms)}
            missing = [word for word in words if counts[form(word)] != 1]
            if not missing:
                return kind, {word: found[form(word)] for word in words}
            unknown = min(unknown, missing, key=len)
    listed = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
    as_trained = len(words) == len(labels) and source.is_dir()
    raise StartError(
        f"{source} has {len(words)} classes. These are not among the model's {len(labels)}, or"
        f" several have the name: {listed}. Call all classes by their name, all by their id or all"
        f" by their index. The model's class 0 has the id {ids[0]} and the name {names[0]}."
        + as_trained
        * IMAGE_FOLDER.format(source=quote(str(source)))
    )


def _in_lower_case(name: str) -> str:
    return name.casefold().replace(" ", "_")


IMAGE_FOLDER = (
    " If the model was trained with torchvision's ImageFolder on these sub-folders, its classes are"
    " their names in alphabetical order. Write them to a file, and add --labels labels.txt:\n"
    "(cd {source} && LC_ALL=C ls -d */ | tr -d /) > labels.txt"
)
