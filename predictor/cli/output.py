"""The output formats of ``predictor classify``: a table, CSV, or a JSON object per line.

Each function returns the lines of one photo.
"""

import csv
import io
import json
from typing import Any

from predictor.cli.photos import Outcome
from predictor.engine.ranking import Prediction, as_answer
from predictor.errors import PredictorError

COLUMNS = ["file", *Prediction._fields, "error"]
CSV_HEADER = ",".join(COLUMNS)


def table(width: int, name: str, outcome: Outcome) -> str:
    """Return a line per class, in columns. The first column has at least ``width`` letters."""
    if isinstance(outcome, PredictorError):
        return f"{name:{width}}  {outcome}\n"
    return "".join(
        f"{'' if rank else name:{width}}  {p.probability:6.1%}  {p.class_id}  {p.class_name}\n"
        for rank, p in enumerate(outcome)
    )


def csv_rows(name: str, outcome: Outcome) -> str:
    """Return a row per class, or a row with an error."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if isinstance(outcome, PredictorError):
        writer.writerow({"file": name, "error": outcome})
    else:
        writer.writerows({"file": name, **prediction._asdict()} for prediction in outcome)
    return text.getvalue()


def json_line(name: str, outcome: Outcome) -> str:
    """Return a JSON object: ``file`` and the answer or ``error``."""
    if isinstance(outcome, PredictorError):
        answer: dict[str, Any] = {"error": str(outcome)}
    else:
        answer = as_answer(outcome, len(outcome), None)
    return json.dumps({"file": name, **answer}, ensure_ascii=False) + "\n"
