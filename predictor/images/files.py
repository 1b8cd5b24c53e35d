"""Find the image files that the command line names: photos, folders, and lists of both."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from predictor.images.decoding import can_decode, file_suffixes

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Finder:
    """Finds image files, one after the other, and counts what it leaves out.

    Attributes:
        left_out: how many files and folders were left out, by kind: ``.txt``, ``hidden``.
    """

    def __init__(self) -> None:
        """Begin with no folder read."""
        self.left_out: Counter[str] = Counter()
        self._suffixes = file_suffixes()
        self._folders: set[tuple[int, int]] = set()  # device and inode: links may form a cycle

    def find(self, paths: Iterable[str]) -> Iterator[str]:
        """Yield the image files of each folder, sorted, and each other path as it is.

        A folder is read once, by whatever links it is reached. Within a folder, hidden names are
        left out. A file without an image's suffix is an image if its first bytes say so.
        """
        for path in paths:
            if not Path(path).is_dir():
                yield path
            elif self._is_new(path):
                yield from self._find_in(path)

    def summary(self) -> str:
        """Return a line like ``3 files left out: 2 .txt, 1 hidden``; empty if there are none."""
        total = self.left_out.total()
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.left_out.most_common())
        return f"{total} {'file' if total == 1 else 'files'} left out: {kinds}" if total else ""

    def _find_in(self, top: str) -> Iterator[str]:
        unreadable: list[str] = []
        walk = os.walk(top, onerror=lambda e: unreadable.append(e.filename), followlinks=True)
        for folder, folders, files in walk:
            shown = [name for name in folders if not self._is_hidden(name)]
            folders[:] = sorted(n for n in shown if self._is_new(os.path.join(folder, n)))
            for name in sorted(files):
                path = os.path.join(folder, name)
                if not self._is_hidden(name) and self._is_image(path):
                    yield path
            yield from unreadable  # reading it again gives its error a line of its own
            unreadable.clear()
        yield from unreadable

    def _is_hidden(self, name: str) -> bool:
        """Return whether a name is hidden, as macOS's ``._photo.jpg`` is, and count it."""
        if name.startswith("."):
            self.left_out["hidden"] += 1
        return name.startswith(".")

    def _is_new(self, folder: str) -> bool:
        try:
            status = os.stat(folder)
        except OSError:
            return True  # os.walk reports it
        identity = (status.st_dev, status.st_ino)
        new = identity not in self._folders
        self._folders.add(identity)
        return new

    def _is_image(self, path: str) -> bool:
        """Return whether a file is an image, and count it if it is not."""
        suffix = os.path.splitext(path)[1].lower()
        try:
            if not os.path.isfile(path):  # opening a pipe would wait for ever
                kind = "broken link" if os.path.islink(path) else "no regular file"
            elif suffix in self._suffixes or _has_signature(path):
                return True
            else:
                kind = suffix or "without ending"
        except OSError:
            return True  # reading it again gives the error a line of its own
        self.left_out[kind] += 1
        return False


def _has_signature(path: str) -> bool:
    with open(path, "rb") as file:
        return can_decode(file.read(4096))


def paths_in(name: str) -> Iterator[str]:
    """Yield the paths in a text file, one per line. ``-`` reads standard input.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        file = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise ValueError(f"--files-from {name} cannot be read: {error.strerror}.") from error
    with file:
        for number, line in enumerate(file):
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 0 else line
            if path := line.rstrip(b"\r\n"):
                yield os.fsdecode(path)
