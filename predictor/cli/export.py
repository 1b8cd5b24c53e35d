"""``predictor export``: write another runtime's files, and print the proof as a table."""

import argparse
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from predictor.cli import photos
from predictor.errors import StartError
from predictor.export import FORMATS
from predictor.export.options import Options
from predictor.store.folder import default_model

if TYPE_CHECKING:
    from predictor.export.running import Exported

HEADER = ("format", "size", "same class", "difference", "ms/photo", "served", "")


def run(options: argparse.Namespace) -> int:
    """Export, and print a row for each format. Return the exit status."""
    if bool(options.format) == options.all:
        return photos.fail("Name one format, or --all.")
    return photos.exit_status(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    warnings.simplefilter("ignore", FutureWarning)  # torch's exporters warn about torch itself
    warnings.filterwarnings("ignore", module=r"torch\.")
    from predictor.export import running  # here: torch takes seconds

    given = Options(**{name: getattr(options, name) for name in Options.__slots__})
    if not options.all:  # before the model is loaded
        running.module_of(options.format)
        given.check(options.format)
    check = () if options.no_check else options.check
    model, data = running.load(default_model(photos.settings()), check)
    out = Path(options.out or f"{model.name}-{options.format or 'exports'}")
    rows: list[tuple[str, ...]] = [HEADER]
    failures, status = [], 0
    for name in FORMATS if options.all else [options.format]:
        print(f"{name} …", file=sys.stderr)
        try:
            folder = out / name if options.all else out
            exported = running.run(name, model, data, folder, given.of(name))
        except StartError as error:
            if not options.all:
                raise
            rows.append((name, *[""] * 5, str(error)))
        else:
            rows.append(_row(exported))
            status = status or exported.status
            if wrong := exported.failure or exported.loss:
                failures.append(f"{exported.folder}: {wrong}")
    print(_table(rows))
    for failure in failures:
        print(failure, file=sys.stderr)
    return status


def _row(exported: "Exported") -> tuple[str, ...]:
    proof, size = exported.proof, f"{exported.bytes / 1e6:.1f} MB"
    notes = ", ".join(f"{key} {value}" for key, value in exported.notes.items())
    figures = ["not checked", "", "", ""]
    if proof:
        same = f"{proof.same}/{proof.photos} of {proof.classes}"
        figures = [same, f"{proof.difference:.1e}", f"{proof.ms:.1f}", f"{proof.served_ms:.1f}"]
    return exported.format, size, *figures, notes


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
