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
from predictor.models.outputs import Logits
from predictor.models.probe import reason

LOWEST = -80  # logarithm of the smallest probability that is compared: float32 ends at e^-87


@dataclass(slots=True)
class Proof:
    """The comparison of an artefact with the server, on the same photos."""

    tolerance: float  # of ``difference``; inf: less than half of the classes may differ, as int8's
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
        mostly = math.isinf(self.tolerance) and 2 * self.same > self.photos
        return not self.failure and (alike or mostly)

    def as_json(self) -> dict[str, Any]:
        """Return all figures; one that is not finite as a text, which JSON lacks."""
        figures = asdict(self) | {"ok": self.ok}
        return {
            key: value if type(value) is not float or math.isfinite(value) else str(value)
            for key, value in figures.items()
        }


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
    proof, data = Proof(tolerance, len(photos)), [content for _, content in photos]
    try:
        alone, served = _in_turns(run, subject, data, proof)
        found = [alone]
        if batches:
            chunks = [data[at : at + BATCH] for at in range(0, len(data), BATCH)]
            found.append(_joined([run(chunk) for chunk in chunks]))
    except Exception as error:  # of any class: each runtime has its own
        proof.failure = reason(error)
        return proof
    expected = _logarithms(served.logits, subject) if log_probabilities else served.logits
    proof.classes = len(set(served.best))
    alike = [True] * len(photos)
    for answers in found:
        rows = np.maximum(answers.logits, LOWEST) if log_probabilities else answers.logits
        if rows.shape != expected.shape or np.isnan(rows).all(1).any():
            shapes = f"It answers {rows.shape}, and the server {expected.shape}"
            proof.failure = f"{shapes}; or a photo gets no number, only NaN."
            return proof
        difference = np.nanmax(np.abs(rows - expected)) / np.abs(served.logits).max()
        proof.difference = max(proof.difference, float(difference))
        for at, row in enumerate(np.nan_to_num(rows, nan=-np.inf, neginf=-np.inf, posinf=np.inf)):
            index = int(row.argmax()) if log_probabilities else subject.card.output.best(row)[0]
            right, named = served.best[at], answers.best[at]
            alike[at] &= subject.card.labels[index] == right
            alike[at] &= all(one in ("", two) for one, two in zip(named, right, strict=True))
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
    """Run each photo alone, by the artefact and by the server: both meet the same busy machine."""
    answers: tuple[list[Answers], list[Answers]] = [], []
    seconds: tuple[list[float], list[float]] = [], []
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


def _logarithms(logits: Logits, subject: Subject) -> Logits:
    """``(N, outputs)`` logits → ``(N, classes)`` logarithms of probabilities."""
    with np.errstate(divide="ignore"):
        rows = [np.log(subject.card.output.probabilities(row)) for row in logits]
    return np.maximum(np.array(rows, np.float32), LOWEST)
