"""Continue a file of results that a broken run has left."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from predictor.cli.output import CSV_HEADER

Results = Iterator[tuple[int, str, bool]]


@dataclass
class Earlier:
    """The results of an earlier run.

    Attributes:
        names: the photos that have a result, as :func:`as_written` gives them.
        failed: how many of them have an error.
        size: the bytes of the file that are kept.
    """

    names: set[str] = field(default_factory=set)
    failed: int = 0
    size: int = 0


def as_written(name: str) -> str:
    """Return a file's name as it is in the results: bytes that are not UTF-8 become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def read(path: Path, kind: str) -> Earlier:
    """Read the results of an earlier run. The last photo is left out: it may lack classes.

    ``kind`` is ``csv`` or ``jsonl``. A file that does not exist has no results.

    Raises:
        ValueError: this command did not write the file, or it wrote another format.
        OSError: the file cannot be read.
    """
    earlier = Earlier()
    if not path.exists():
        return earlier
    start, results = FORMATS[kind]
    with path.open("rb") as file:
        if not start.startswith(file.read(len(start))):
            raise ValueError(
                f"It does not begin as this command's {kind} files do. If it was written with"
                " another --format, name that one."
            )
        file.seek(0)
        last, failed = None, False
        for begin, name, error in results(_Lines(file)):
            if name != last:
                if last is not None:
                    earlier.names.add(last)
                    earlier.failed += failed
                earlier.size, last, failed = begin, name, error
    return earlier


# Each of these yields a result's first byte, its photo, and whether it is an error. It ends before
# a result that is cut off.


def _csv(lines: "_Lines") -> Results:
    rows = csv.DictReader(lines, strict=True)
    try:
        begin = lines.read if rows.fieldnames else 0  # after the header
        for row in rows:
            yield begin, row["file"], bool(row["error"])
            begin = lines.read
    except csv.Error:  # the file ends inside quotes
        return


def _json_lines(lines: "_Lines") -> Results:
    begin = 0
    for line in lines:
        answer = json.loads(line)  # its error is a ValueError
        if not isinstance(answer, dict) or "file" not in answer:
            raise ValueError(f'There is no "file" in {line.rstrip()[:80]}.')
        yield begin, as_written(str(answer["file"])), "error" in answer
        begin = lines.read


class _Lines:
    """The complete lines of a file, as text. ``read`` is the position after the last of them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.read = file, 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            if not line.endswith(b"\n"):
                return
            self.read += len(line)
            yield line.decode("utf-8")


# How a file begins, and how to read it.
FORMATS: dict[str, tuple[bytes, Callable[[_Lines], Results]]] = {
    "csv": (f"{CSV_HEADER}\n".encode(), _csv),
    "jsonl": (b'{"file": ', _json_lines),
}
