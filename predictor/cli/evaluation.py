"""The figures of an evaluation or a comparison. Their memory does not grow with the photos."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappush, heappushpop, nlargest
from math import ceil, nan, sqrt
from typing import Any

import numpy as np

from predictor.engine.ranking import Prediction
from predictor.errors import ModelError
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


class Comparison:
    """Counts what two models answer to the same photos.

    Attributes:
        both: the second's answers, with the first's answer in place of the right class.
        each: for each model, its answers to the photos of which the right class is known.
        probabilities: the sum for each model of the probabilities of its answers.
        apart: a heap of different answers: the lesser probability, the file, both answers.
        seconds, failed: what each model needed for all photos; photos that gave an error.
    """

    def __init__(self, first: Sequence[Label], second: Sequence[Label]) -> None:
        """Match the models' classes; raise ModelError if they have none in common."""
        self.labels, self._places = _matched(first, second)
        self.both, *self.each = (Evaluation(self.labels) for _ in range(3))
        self.probabilities: Any = np.zeros(2)
        self.apart: list[tuple[float, str, Prediction, Prediction]] = []
        self.seconds, self.failed = [0.0, 0.0], 0
        self._right = Counter[tuple[bool, bool]]()  # whether each model is right → photos

    def add(
        self, file: str, truth: int | None, first: list[Prediction], second: list[Prediction]
    ) -> None:
        """Count a photo of class ``truth``, None if unknown, with both models' best classes."""
        second = [p._replace(class_index=self._places[p.class_index]) for p in second]
        a, b = first[0], second[0]
        self.both.add(file, a.class_index, second)
        self.probabilities += a.probability, b.probability
        if truth is not None:
            self._right[a.class_index == truth, b.class_index == truth] += 1
            self.each[0].add(file, truth, first)
            self.each[1].add(file, truth, second)
        if a.class_index != b.class_index:
            keep = heappush if len(self.apart) < PICTURES else heappushpop
            keep(self.apart, (min(a.probability, b.probability), file, a, b))

    def gain(self) -> tuple[float, float, float]:
        """Return by how much the second's share of right answers is larger, with a 95 % interval.

        From the photos that only one model answers right: Bonett and Price, "Adjusted Wald
        Confidence Interval for a Difference of Binomial Proportions Based on Paired Data" (2012).
        """
        total, lost, won = self._right.total(), self._right[True, False], self._right[False, True]
        p, q = (lost + 1) / (total + 2), (won + 1) / (total + 2)
        spread = Z * sqrt((p + q - (q - p) ** 2) / (total + 2))
        return (won - lost) / total, max(-1.0, q - p - spread), min(1.0, q - p + spread)

    def classes(self) -> list[tuple[Label, int, int, float, float]]:
        """Return each class that is an answer, those first of which the numbers differ most.

        With the answers of both models, and their recall, which is not a number if it is unknown.
        """
        second = Counter[Label]()
        for (_, index), photos in self.both.answers.items():
            second[self.labels[index]] += photos
        a, b = ({label: recall for label, _, recall, _ in one.classes()} for one in self.each)
        rows = [
            (label, first, second[label], a.get(label, nan), b.get(label, nan))
            for label, first, *_ in self.both.classes()
        ]
        return sorted(rows, key=lambda row: -abs(row[1] - row[2]))


def interval(hits: int, total: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of the probability of which ``hits / total`` is a sample."""
    share, weight = hits / total, Z**2 / total
    centre = (share + weight / 2) / (1 + weight)
    spread = Z * sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return centre - spread, centre + spread


def _matched(first: Sequence[Label], second: Sequence[Label]) -> tuple[list[Label], list[int]]:
    """Return the classes of both models, and the place of each class of the second among them.

    They are matched by name, or by id if more of the ids agree: in ImageNet, two classes have one
    name, and a class without an id has its index as id.
    """
    common = [len({label[i] for label in first} & {label[i] for label in second}) for i in (0, 1)]
    if not any(common):
        raise ModelError("The two models have no class in common, neither by name nor by id.")
    kind = int(common[1] >= common[0])
    labels, places = list(first), {label[kind]: index for index, label in enumerate(first)}
    for label in second:
        if places.setdefault(label[kind], len(labels)) == len(labels):
            labels.append(label)
    return labels, [places[label[kind]] for label in second]
