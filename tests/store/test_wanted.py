from dataclasses import replace
from pathlib import Path

import pytest

from predictor.store.wanted import Entry, Route, Wanted

ONE, TWO = (Entry("net", version, Path("net"), "a") for version in (1, 2))
WANTED = Wanted({("net", 1): ONE, ("net", 2): TWO}, {"net": Route((1, 2), 2, {1: 9, 2: 1})}, "net")
OTHERS = {
    "a file": replace(WANTED, entries=WANTED.entries | {("net", 2): replace(TWO, signature="b")}),
    "a version": replace(WANTED, entries={("net", 1): ONE}),
    "the default version": replace(WANTED, routes={"net": Route((1, 2), 1, {1: 9, 2: 1})}),
    "the split": replace(WANTED, routes={"net": Route((1, 2), 2, {1: 8, 2: 2})}),
    "the default model": replace(WANTED, default=None),
}  # fmt: skip


@pytest.mark.parametrize("change", OTHERS)
def test_revision_changes_with_every_part(change):
    assert OTHERS[change].revision != WANTED.revision


def test_revision_does_not_depend_on_the_order():
    turned = Wanted(
        {("net", 2): TWO, ("net", 1): ONE}, {"net": Route((1, 2), 2, {2: 1, 1: 9})}, "net"
    )
    assert turned.revision == WANTED.revision
