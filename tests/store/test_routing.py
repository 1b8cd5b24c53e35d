"""Which version answers a key."""

import subprocess
import sys
from collections import Counter

import pytest

from predictor.store.routing import choose
from predictor.store.wanted import Route

KEYS = [f"client-{number}" for number in range(10_000)]


def chosen(**split):
    weights = {int(name[1:]): weight for name, weight in split.items()}
    return [choose(Route(tuple(weights), max(weights), weights), key) for key in KEYS]


def moved(first, second):
    return sum(a != b for a, b in zip(first, second, strict=True)) / len(KEYS)


@pytest.mark.parametrize(
    "split",
    [
        pytest.param({"v1": 90, "v2": 10}, id="90/10"),
        pytest.param({"v1": 50, "v2": 30, "v7": 20}, id="three versions"),
        pytest.param({"v1": 1 / 3, "v2": 1 / 3, "v3": 1 / 3}, id="thirds"),
        pytest.param({"v1": 1, "v2": 0}, id="none"),
    ],
)
def test_each_version_gets_its_share_of_the_keys(split):
    counts = Counter(chosen(**split))
    for name, weight in split.items():
        share = weight / sum(split.values())
        assert counts[int(name[1:])] / len(KEYS) == pytest.approx(share, abs=0.01)


def test_a_change_of_the_split_moves_as_few_keys_as_possible():
    assert moved(chosen(v1=90, v2=10), chosen(v1=80, v2=20)) == pytest.approx(0.1, abs=0.01)


def test_keys_move_only_to_the_version_that_gains():
    before, after = chosen(v1=50, v2=30, v3=20), chosen(v1=50, v2=30, v3=40)
    assert {b for a, b in zip(before, after, strict=True) if a != b} == {3}


def test_scaled_weights_are_the_same_split():
    assert chosen(v1=90, v2=10) == chosen(v1=0.9, v2=0.1)


def test_without_a_split_the_default_answers():
    assert {choose(Route((1, 2, 3), 2, {}), key) for key in KEYS[:100]} == {2}


def test_another_process_chooses_the_same():
    code = (
        "from predictor.store.routing import choose; from predictor.store.wanted import Route\n"
        "r = Route((1, 2), 2, {1: 1, 2: 1})\n"
        "print([choose(r, k) for k in ['', 'a', 'b', 'é', '\\udc80', *map(str, range(50))]])"
    )
    expected = [
        choose(Route((1, 2), 2, {1: 1, 2: 1}), key)
        for key in ["", "a", "b", "é", "\udc80", *map(str, range(50))]
    ]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)
    assert set(expected) == {1, 2}
