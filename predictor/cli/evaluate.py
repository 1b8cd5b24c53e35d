"""``predictor evaluate FOLDER``: how often the model is right on photos whose class is known."""

import argparse
import csv
import os
import sys
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TextIO

from tqdm import tqdm

from predictor.cli import photos
from predictor.cli.evaluation import TOP, Evaluation
from predictor.cli.report import render
from predictor.engine.classifier import Classifier
from predictor.errors import PredictorError
from predictor.images.files import Finder
from predictor.models.truth import Truth

COLUMNS = ["file", "class_index", "class_id", "class_name", "answer_index", "answer_id"]
COLUMNS += ["answer_name", "probability", "right", "in_top_5", "error"]


def run(options: argparse.Namespace) -> int:
    """Evaluate the model. Return the exit status."""
    return photos.exit_status(partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    for output in filter(None, (options.csv, options.html)):
        if os.path.realpath(output) == os.path.realpath(options.source):
            return photos.fail(f"{output} has the classes. Write the results to another file.")
        open(output, "a").close()  # if it cannot be written, stop before reading the photos
    if (classifier := photos.load()) is None:
        return 2
    card = classifier.require_model().card
    if card.output.threshold is not None:
        return photos.fail(
            f"{card.name} answers with several labels at once. This command evaluates only models"
            " of which one class is right for each photo."
        )
    truth, finder = Truth(Path(options.source), card.labels), Finder()
    evaluation, began = Evaluation(card.labels), monotonic()
    with open(options.csv or os.devnull, "w", 1, "utf-8", "backslashreplace", "") as file:
        _evaluate(truth, finder, classifier, evaluation, file)
    seconds = monotonic() - began
    if summary := finder.summary():
        print(summary, file=sys.stderr)
    if not evaluation.photos:
        return photos.fail(f"No photo of {options.source} can be evaluated.")
    values = {"source": options.source, "called_by": truth.called_by, "seconds": seconds}
    print(render("evaluation.txt", classifier, evaluation=evaluation, **values), end="")
    if options.html:
        page = render("evaluation.html", classifier, evaluation=evaluation, **values)
        Path(options.html).write_text(page, "utf-8", "backslashreplace")
    return 1 if evaluation.failed else 0


def _evaluate(
    truth: Truth, finder: Finder, classifier: Classifier, evaluation: Evaluation, file: TextIO
) -> None:
    """Classify the photos, count their answers and write a row of CSV for each."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(COLUMNS)
    total = sum(1 for _ in truth.photos(Finder())) if sys.stderr.isatty() else None
    outcomes = photos.in_parallel(
        truth.photos(finder), lambda photo: photos.classify(classifier, TOP, photo[0]), classifier
    )
    for (name, index), outcome in tqdm(outcomes, None, total, False, unit="photo", disable=None):
        row = [name, index, *evaluation.labels[index]]
        if isinstance(outcome, PredictorError):
            evaluation.failed += 1
            tqdm.write(f"{name}: {outcome}", sys.stderr)
            rows.writerow([*row, *[""] * 6, outcome])
        else:
            evaluation.add(name, index, outcome)
            right = [prediction.class_index == index for prediction in outcome]
            rows.writerow([*row, *outcome[0], right[0], any(right), ""])
