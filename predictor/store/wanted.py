"""What a store wants served: plain data, read from the store or made from settings."""

from __future__ import annotations

import hashlib
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
