"""The output formats of ``predictor classify``: a table, CSV, or a JSON object per line.

``tqdm.write()`` prints a line on standard output without breaking the progress bar.
"""

import csv
import json
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from predictor.engine.ranking import Prediction, as_answer
from predictor.errors import PredictorError

Outcome = list[Prediction] | PredictorError
Writer = Callable[[str, Outcome], None]  # called with each photo's name and outcome, in order


def table(names: list[str]) -> Writer:
    """Return a function that writes a line per class, in columns."""
    width = max(map(len, names))

    def write(name: str, outcome: Outcome) -> None:
        if isinstance(outcome, PredictorError):
            tqdm.write(f"{name:{width}}  {outcome}")
            return
        for rank, p in enumerate(outcome):
            shown = name if rank == 0 else ""
            tqdm.write(f"{shown:{width}}  {p.probability:6.1%}  {p.class_id}  {p.class_name}")

    return write


def csv_rows(_names: list[str]) -> Writer:
    """Write the header. Return a function that writes a row per class, or a row with an error."""
    columns = ["file", *Prediction._fields, "error"]
    writer = csv.DictWriter(_Printed(), columns, lineterminator="\n")
    writer.writeheader()

    def write(name: str, outcome: Outcome) -> None:
        if isinstance(outcome, PredictorError):
            writer.writerow({"file": name, "error": outcome})
            return
        writer.writerows({"file": name, **prediction._asdict()} for prediction in outcome)

    return write


def json_lines(_names: list[str]) -> Writer:
    """Return a function that writes an object per photo: ``file`` and the answer or ``error``."""

    def write(name: str, outcome: Outcome) -> None:
        if isinstance(outcome, PredictorError):
            answer: dict[str, Any] = {"error": str(outcome)}
        else:
            answer = as_answer(outcome, detailed=True)
        tqdm.write(json.dumps({"file": name, **answer}, ensure_ascii=False))

    return write


class _Printed:
    def write(self, text: str) -> None:
        tqdm.write(text, end="")


WRITERS = {"table": table, "csv": csv_rows, "jsonl": json_lines}
