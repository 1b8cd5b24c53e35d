"""What a store wants served: plain data, read from the store or made from settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NUMBER = "[1-9][0-9]{0,17}"  # a version as text: Triton's are 64-bit numbers that begin without 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of a model."""

    name: str
    version: int
    folder: Path | None  # None: the model that the settings describe
    signature: str  # changes whenever a file of the folder changes


@dataclass(frozen=True, slots=True)
class Route:
    """Which versions answer the requests for one model."""

    versions: tuple[int, ...]  # ascending, at least one
    default: int  # of requests that name no version, if there is no split
    split: Mapping[int, float]  # version → weight; empty: no split


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that is to be served. Each version of a route has an entry."""

    entries: Mapping[tuple[str, int], Entry]
    routes: Mapping[str, Route]
    default: str | None  # the model of requests that name none

    @property
    def revision(self) -> str:
        """A short hash of all of it: two processes that serve the same have the same revision."""
        entries = sorted(map(str, self.entries.values()))
        routes = [
            (name, route.versions, route.default, sorted(route.split.items()))
            for name, route in sorted(self.routes.items())
        ]
        text = repr((entries, routes, self.default))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def text_of(wanted: Wanted) -> str:
    """Return the JSON text of what a store of folders wants, for :func:`wanted_of`."""
    entries = [(one.name, one.version, one.signature) for one in wanted.entries.values()]
    routes = wanted.routes.items()
    listed = [(name, one.versions, one.default, [*one.split.items()]) for name, one in routes]
    return json.dumps([entries, listed, wanted.default])


def wanted_of(text: str, store: Path) -> Wanted:
    """Return what the text of :func:`text_of` says, with the folders of this store.

    The entry of a missing folder has another signature, since the same files may come back.
    """
    entries, listed, default = json.loads(text)
    return Wanted(
        {
            (name, v): Entry(name, v, path := store / name / str(v), sign if path.is_dir() else "")
            for name, v, sign in entries
        },
        {name: Route(tuple(versions), v, dict(split)) for name, versions, v, split in listed},
        default,
    )
