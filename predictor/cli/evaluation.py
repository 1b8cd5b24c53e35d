"""The figures of an evaluation. Their memory does not grow with the number of photos."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop, nlargest
from math import ceil, nan, sqrt
from typing import Any

import numpy as np

from predictor.engine.ranking import Prediction
from predictor.models.labels import Label

TOP = 5
BINS = 15  # of the calibration, as in Guo et al., "On Calibration of Modern Neural Networks" (2017)
PICTURES = 100  # wrong photos that are kept: those of which the model was most certain
Z = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


@dataclass
class Evaluation:
    """Counts answers."""

    labels: Sequence[Label]
    failed: int = 0  # photos that gave an error
    in_top: int = 0  # photos with the right class among the ``TOP`` best
    answers: Counter[tuple[int, int]] = field(default_factory=Counter)  # class and answer → photos
    # A heap of wrong answers: probability, file, class and answer.
    wrong: list[tuple[float, str, int, int]] = field(default_factory=list)
    # Of each bin: photos, right answers, sum of the answers' probabilities.
    bins: Any = field(default_factory=lambda: np.zeros((BINS, 3)))

    def add(self, file: str, truth: int, predictions: Sequence[Prediction]) -> None:
        """Count a photo of class ``truth`` with its ``TOP`` best classes."""
        best = predictions[0]
        right = best.class_index == truth
        self.answers[truth, best.class_index] += 1
        self.in_top += truth in [prediction.class_index for prediction in predictions]
        bin = max(0, ceil(best.probability * BINS) - 1)  # a bin includes its upper end
        self.bins[bin] += 1, right, best.probability
        if not right:
            keep = heappush if len(self.wrong) < PICTURES else heappushpop
            keep(self.wrong, (best.probability, file, truth, best.class_index))

    @property
    def photos(self) -> int:
        """Number of photos without an error."""
        return self.answers.total()

    @property
    def right(self) -> int:
        """Number of photos whose best class is right."""
        return sum(count for (truth, best), count in self.answers.items() if truth == best)

    def classes(self) -> list[tuple[Label, int, float, float]]:
        """Return each class that has photos or answers, with its photos, recall and precision.

        The recall is the share of right answers among the photos of a class; the precision, among
        the answers of this class. A share of nothing is not a number.
        """
        photos, answers = Counter[int](), Counter[int]()
        for (truth, best), count in self.answers.items():
            photos[truth] += count
            answers[best] += count
        return [
            (self.labels[i], photos[i], right / (photos[i] or nan), right / (answers[i] or nan))
            for i in sorted(photos | answers)
            for right in [self.answers[i, i]]
        ]

    def confused(self, most: int) -> list[tuple[int, Label, Label]]:
        """Return the most frequent wrong answers: how many photos, their class, the answer."""
        wrong = ((n, -truth, -best) for (truth, best), n in self.answers.items() if truth != best)
        return [
            (n, self.labels[-truth], self.labels[-best]) for n, truth, best in nlargest(most, wrong)
        ]

    def reliability(self) -> list[tuple[float, int, float, float]]:
        """Return of each bin the lower end, the photos, their mean probability, the right ones."""
        rows = enumerate(self.bins.tolist())
        return [(bin / BINS, int(n), total / n, hits / n) for bin, (n, hits, total) in rows if n]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, 0 to 1: the photos' mean of |mean probability - share|."""
        return float(np.abs(self.bins[:, 1] - self.bins[:, 2]).sum()) / self.photos


def interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the probability of which ``hits / total`` is a sample."""
    share, weight = hits / total, Z**2 / total
    centre = (share + weight / 2) / (1 + weight)
    spread = Z * sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return centre - spread, centre + spread
