"""The proof that an artefact answers as the server does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from predictor.export.artefact import BATCH, Answers, Run
from predictor.export.subject import Subject
from predictor.models.labels import Label
from predictor.models.outputs import Logits
from predictor.models.probe import reason

# The logarithm of the smallest probability that is compared: float32 has none below e^-87.
LOWEST = -80


@dataclass(slots=True)
class Proof:
    """The comparison of an artefact with the server, on the same photos."""

    tolerance: float  # of ``difference``; inf: the answers may differ, as those of int8
    photos: int = 0
    classes: int = 0  # different ones among the server's answers
    same: int = 0  # photos with the server's class, alone and in batches
    difference: float = 0.0  # largest difference of a logit, as a part of the largest logit
    ms: float = 0.0  # median of one photo, from its bytes
    served_ms: float = 0.0  # of the same photo, by the server's model
    failure: str = ""  # why the runtime failed
    differing: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the artefact answers alike."""
        alike = self.same == self.photos and self.difference <= self.tolerance
        return not self.failure and (alike or math.isinf(self.tolerance))

    def as_json(self) -> dict[str, Any]:
        """Return all figures; JSON has no infinity."""
        figures = {
            key: (value if math.isfinite(value) else str(value)) if type(value) is float else value
            for key, value in asdict(self).items()
        }
        return figures | {"ok": self.ok}


def prove(
    run: Run, subject: Subject, photos: Sequence[tuple[str, bytes]], tolerance: float,
    batches: bool = True, log_probabilities: bool = False,
) -> Proof:  # fmt: skip
    """Run an artefact and the server on the same photos, alone and in batches, and compare.

    Args:
        run: the artefact in its runtime.
        subject: the model as the server runs it.
        photos: names and encoded photos.
        tolerance: the largest allowed difference, as a part of the largest logit.
        batches: whether to compare batches, too.
        log_probabilities: whether ``run`` answers logarithms of probabilities.
    """
    proof = Proof(tolerance, len(photos))
    data = [content for _, content in photos]
    try:
        alone, served = _in_turns(run, subject, data, proof)
        found = [alone]
        if batches:
            chunks = [run(data[at : at + BATCH]) for at in range(0, len(data), BATCH)]
            found.append(_joined(chunks))
    except Exception as error:  # of any class: each runtime has its own
        proof.failure = reason(error)
        return proof
    expected = _log(served.logits, subject) if log_probabilities else served.logits
    proof.classes = len(set(served.best))
    alike = [True] * len(photos)
    for answers in found:
        _compare(answers, expected, served, subject, log_probabilities, proof, alike)
    proof.same = sum(alike)
    proof.differing = [
        {"photo": name, "server": served.best[at], "artefact": [one.best[at] for one in found]}
        for at, (name, _) in enumerate(photos)
        if not alike[at]
    ]
    return proof


def _in_turns(
    run: Run, subject: Subject, photos: Sequence[bytes], proof: Proof
) -> tuple[Answers, Answers]:
    """Run each photo alone, by the server's model and by the artefact: both meet a busy machine."""
    answers: list[list[Answers]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for photo in photos:
        for which, ask in enumerate((run, subject.answers)):
            began = perf_counter()
            answers[which].append(ask([photo]))
            seconds[which].append(perf_counter() - began)
    proof.ms, proof.served_ms = (round(1000 * median(one), 2) for one in seconds)
    return _joined(answers[0]), _joined(answers[1])


def _joined(parts: Sequence[Answers]) -> Answers:
    best = [label for part in parts for label in part.best]
    return Answers(np.concatenate([part.logits for part in parts]), best)


def _log(logits: Logits, subject: Subject) -> Logits:
    """Return the logarithms of the probabilities, ``(N, classes)``."""
    with np.errstate(divide="ignore"):
        rows = [np.log(subject.card.output.probabilities(row)) for row in logits]
    return np.maximum(np.array(rows, np.float32), LOWEST)


def _compare(
    found: Answers, expected: Logits, served: Answers, subject: Subject,
    log_probabilities: bool, proof: Proof, alike: list[bool],
) -> None:  # fmt: skip
    """Add one run's answers to the proof."""
    rows = found.logits
    if rows.shape != expected.shape:
        proof.failure = f"It answers {rows.shape}, and the server {expected.shape}."
        return
    if log_probabilities:
        rows = np.maximum(rows, LOWEST)  # keeps NaN
    unmentioned = np.isnan(rows)
    if unmentioned.all(1).any():
        proof.failure = "It answers a photo with no number at all, or with NaN."
        return
    difference = np.abs(np.where(unmentioned, 0, rows - expected)).max()
    largest = np.abs(served.logits).max()
    proof.difference = max(proof.difference, float(difference / largest))
    lowest = np.where(unmentioned, -np.inf, rows)
    for at, row in enumerate(lowest):
        index = int(row.argmax()) if log_probabilities else subject.card.output.best(row)[0]
        right = served.best[at]
        alike[at] &= subject.card.labels[index] == right and _named(found.best[at], right)


def _named(found: Label, right: Label) -> bool:
    """Return whether a runtime names the right class, as far as it names one."""
    return all(one in ("", other) for one, other in zip(found, right, strict=True))
