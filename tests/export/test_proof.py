"""The comparison itself, with a runtime that answers what each test says."""

import json
import math

import numpy as np
import pytest

from export.wrong import photos
from predictor.export.artefact import Answers
from predictor.export.proof import prove
from predictor.models.labels import Label


def changed(subject, change, photo=3):
    """A runtime that answers as the server does, but for one photo."""
    wrong = photos()[photo][1]

    def run(data):
        answers = subject.answers(data)
        logits = answers.logits.copy()
        best = [*answers.best]
        if wrong in data:
            at = data.index(wrong)
            logits[at], best[at] = change(logits[at], best[at])
        return Answers(logits, best)

    return run


def prove_with(subject, change, tolerance=1e-4):
    return prove(changed(subject, change), subject, photos(), tolerance)


def test_same_answers_are_a_proof_with_figures(small):
    proof = prove_with(small, lambda logits, best: (logits, best))
    assert proof.ok
    assert (proof.same, proof.photos, proof.differing) == (20, 20, [])
    assert proof.difference < 1e-5
    assert proof.classes >= 10
    assert min(proof.ms, proof.served_ms) > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda logits, best: (logits + 0.001 * abs(logits).max(), best),
        lambda logits, best: (logits, Label("id99", best.class_name)),
        lambda logits, best: (logits, Label(best.class_id, "kind 99")),
        lambda logits, best: (logits * np.nan, best),
        lambda logits, best: (np.where(logits == logits.max(), np.nan, logits), best),
    ],
    ids=["logits", "id", "name", "NaN", "best not mentioned"],
)
def test_one_wrong_answer_of_twenty_is_no_proof(small, change):
    proof = prove_with(small, change)
    assert not proof.ok
    assert json.loads(json.dumps(proof.as_json(), allow_nan=False))["ok"] is False


def test_photo_that_differs_is_named_with_both_answers(small):
    proof = prove_with(small, lambda logits, best: (-logits, Label("id99", "other")))
    (differing,) = proof.differing
    assert differing["photo"] == "3.jpg"
    assert differing["artefact"] == [("id99", "other")] * 2
    assert differing["server"] == small.answers([photos()[3][1]]).best[0]


def test_name_that_the_runtime_does_not_say_is_not_compared(small):
    assert prove_with(small, lambda logits, _: (logits, Label("", ""))).ok


def test_quantised_answers_may_differ_and_the_figures_say_how_much(small):
    proof = prove_with(small, lambda logits, best: (-logits, best), math.inf)
    assert proof.ok
    assert (proof.same, proof.difference > 0.1) == (19, True)
    assert proof.as_json()["tolerance"] == "inf"


def test_answers_of_another_shape_are_no_proof(small):
    def run(data):
        answers = small.answers(data)
        return answers._replace(logits=answers.logits[:, :-1])

    assert "answers (20, 19), and the server (20, 20)" in prove(run, small, photos(), 1).failure


def test_runtime_that_fails_for_a_batch_is_no_proof(small):
    def run(data):
        if len(data) > 1:
            raise RuntimeError("the batch dimension is 1")
        return small.answers(data)

    assert "the batch dimension is 1" in prove(run, small, photos(), 1e-4).failure
    assert prove(run, small, photos(), 1e-4, batches=False).ok


def logarithms(subject, wrong=0.0):
    """A runtime that answers logarithms of the three largest probabilities only."""

    def run(data):
        answers = subject.answers(data)
        probabilities = [subject.card.output.probabilities(row) for row in answers.logits]
        logs = np.log(np.array(probabilities, np.float32)) + np.float32(wrong)
        lowest = np.sort(logs)[:, -3:-2]
        return answers._replace(logits=np.where(logs < lowest, np.nan, logs))

    return run


def test_some_probabilities_are_compared_with_those_of_the_server(small):
    assert prove(logarithms(small), small, photos(), 1e-4, log_probabilities=True).ok
    assert not prove(logarithms(small, 0.01), small, photos(), 1e-4, log_probabilities=True).ok
