from dataclasses import dataclass
from typing import Any


@dataclass
class Load:
    entry: Any


@dataclass
class Switch:
    routes: Any
    default: Any


@dataclass
class Unload:
    name: str
    version: int


Step = Any


@dataclass
class Now:
    loaded: Any
    failed: Any
    routes: Any
    default: Any


def plan(wanted, now):
    steps = [
        Load(e)
        for k, e in wanted.entries.items()
        if now.loaded.get(k) != e.signature and now.failed.get(k) != e.signature
    ]
    if not steps and now.loaded and (now.routes, now.default) != (wanted.routes, wanted.default):
        steps.append(Switch(wanted.routes, wanted.default))
    return steps
