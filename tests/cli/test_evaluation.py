"""The figures of ``predictor evaluate``, against other ways to compute them."""

import math
from heapq import nlargest

import numpy as np
import pytest

from predictor.cli.evaluation import BINS, PICTURES, TOP, Evaluation, interval
from predictor.engine.ranking import Prediction
from predictor.models.labels import numbered

CLASSES, PHOTOS = 7, 500
LABELS = numbered(CLASSES)


@pytest.fixture(scope="module")
def answers():
    """Random classes ``(N,)`` and probabilities ``(N, classes)``; the right class is likelier."""
    random = np.random.default_rng(0)
    truth = random.integers(0, CLASSES - 1, PHOTOS)  # the last class has no photos
    logits = random.normal(size=(PHOTOS, CLASSES)) * 2
    logits[np.arange(PHOTOS), truth] += 2
    probabilities = np.exp(logits)
    return truth, probabilities / probabilities.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def evaluation(answers):
    evaluation = Evaluation(LABELS)
    for number, (truth, row) in enumerate(zip(*answers, strict=True)):
        best = np.argsort(-row)[:TOP].tolist()
        predictions = [Prediction(index, *LABELS[index], float(row[index])) for index in best]
        evaluation.add(f"{number}.jpg", int(truth), predictions)
    return evaluation


def test_top_1_and_top_5_count_the_photos_whose_class_is_among_the_best(evaluation, answers):
    truth, probabilities = answers
    ranks = (probabilities > probabilities[np.arange(PHOTOS), truth][:, None]).sum(1)
    assert evaluation.photos == PHOTOS
    assert (evaluation.right, evaluation.in_top) == ((ranks == 0).sum(), (ranks < 5).sum())
    assert evaluation.right < evaluation.in_top < PHOTOS


def test_recall_and_precision_are_those_of_the_confusion_matrix(evaluation, answers):
    truth, probabilities = answers
    answer = probabilities.argmax(1)
    for index, (label, photos, recall, precision) in enumerate(evaluation.classes()):
        both = ((truth == index) & (answer == index)).sum()
        assert (label, photos) == (LABELS[index], (truth == index).sum())
        assert precision == pytest.approx(both / (answer == index).sum())
        if index == CLASSES - 1:
            assert math.isnan(recall)
        else:
            assert recall == pytest.approx(both / photos)


def test_most_confused_pairs_are_the_largest_wrong_cells(evaluation, answers):
    truth, probabilities = answers
    matrix = np.zeros((CLASSES, CLASSES), int)
    np.add.at(matrix, (truth, probabilities.argmax(1)), 1)
    np.fill_diagonal(matrix, 0)
    counts = [count for count, _, _ in evaluation.confused(5)]
    assert counts == sorted(matrix.flat, reverse=True)[:5]
    for count, of, answer in evaluation.confused(5):
        assert matrix[int(of.class_id), int(answer.class_id)] == count


def test_calibration_error_is_the_mean_gap_of_15_equal_bins(evaluation, answers):
    truth, probabilities = answers
    best, right = probabilities.max(1), probabilities.argmax(1) == truth
    error, rows = 0.0, []
    for bin in range(BINS):
        inside = (best > bin / BINS) & (best <= (bin + 1) / BINS)
        if inside.any():
            mean, share = best[inside].mean(), right[inside].mean()
            error += inside.mean() * abs(mean - share)
            rows.append((bin / BINS, inside.sum(), mean, share))
    assert evaluation.calibration_error == pytest.approx(error)
    assert error > 0.01
    np.testing.assert_allclose(evaluation.reliability(), rows)


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (1, 3), (42, 50), (10, 10), (9_000, 10_000)])
def test_ends_of_the_interval_solve_the_score_test(hits, total):
    """Wilson's interval is where |share - p| is 1.96 standard deviations of a sample of p."""
    low, high = interval(hits, total)
    slack = 1e-12
    assert -slack <= low <= hits / total + slack
    assert hits / total - slack <= high <= 1 + slack
    for p in low, high:
        distance = hits / total - p
        assert distance**2 == pytest.approx(1.959964**2 * p * (1 - p) / total, abs=1e-12)


def test_the_most_certain_wrong_photos_are_kept_and_no_more():
    evaluation = Evaluation(LABELS)
    certain = np.linspace(0.3, 0.9, 3 * PICTURES)
    for number in np.random.default_rng(1).permutation(3 * PICTURES):
        wrong = Prediction(1, *LABELS[1], float(certain[number]))
        evaluation.add(str(number), 0, [wrong])
    kept = {probability for probability, *_ in evaluation.wrong}
    assert len(evaluation.wrong) == PICTURES
    assert kept == set(nlargest(PICTURES, certain.tolist()))


def test_probabilities_0_and_1_have_a_bin():
    evaluation = Evaluation(LABELS)
    for probability in 0.0, 1.0:
        evaluation.add("a", 0, [Prediction(0, *LABELS[0], probability)])
    assert [row[:2] for row in evaluation.reliability()] == [(0, 1), (14 / 15, 1)]
