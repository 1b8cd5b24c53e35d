"""The steps from what this process serves to what is wanted: a pure function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from predictor.store.wanted import Entry, Route, Wanted

Key = tuple[str, int]  # name and version


@dataclass(frozen=True, slots=True)
class Now:
    """What this process serves."""

    loaded: Mapping[Key, str]  # the signature of what is loaded
    failed: Mapping[Key, str]  # the signature of what could not be loaded
    routes: Mapping[str, Route]
    default: str | None
    loading: Mapping[Key, str] = field(default_factory=dict)  # the signature of what is loading
    stalled: bool = False  # whether models without an old route do not wait for what is loading


@dataclass(frozen=True, slots=True)
class Load:
    """Begin to load this version. It then replaces an older state of the same version at once."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Switch:
    """Answer requests by these routes from now on. All their versions are loaded."""

    routes: Mapping[str, Route]
    default: str | None


@dataclass(frozen=True, slots=True)
class Unload:
    """Free this version once its last request is answered. No route needs it."""

    name: str
    version: int


Step = Load | Switch | Unload


def plan(wanted: Wanted, now: Now) -> list[Step]:
    """Return the next steps; none if this process serves what is wanted, as far as it can.

    Carry them out in order and plan again, as often as there are steps. What can be done at once
    comes first, so that it does not wait for a load and frees memory for it: a switch, then the
    unloads that it allows. Otherwise, the steps load what one model lacks. Loads take long, so
    that they run beside all other steps.

    The route of a model changes when all versions that it needs are loaded. If one cannot be
    loaded, the model keeps its old route, and without an old route it gets what is loaded of the
    wanted one. If the changed files of a loaded version cannot be loaded, the old state serves on.
    """
    routes = {name: route for name in wanted.routes if (route := _route(name, wanted, now))}
    default = wanted.default if routes else None
    if default is not None and default not in routes and now.default in routes:
        default = now.default
    needed = _keys(routes) | _keys(wanted.routes)
    steps: list[Step] = [Unload(*key) for key in sorted(now.loaded.keys() - needed)]
    if (routes, default) != (now.routes, now.default):
        steps.insert(0, Switch(routes, default))
    return steps or _loads(wanted, now)


def shortfalls(wanted: Wanted, now: Now) -> dict[str, str]:
    """Return a sentence for each model that cannot be served as wanted, by the model's name."""
    return {
        name: _sentence(name, failed, now.routes.get(name))
        for name, route in wanted.routes.items()
        if (failed := [v for v in route.versions if _has_failed((name, v), wanted, now)])
    }


def _sentence(name: str, failed: Iterable[int], route: Route | None) -> str:
    versions = ", ".join(map(str, failed))
    served = ", ".join(map(str, route.versions)) if route else "none"
    return (
        f"The model {name!r} is not served as wanted. Versions that cannot be loaded: {versions}."
        f" Versions that answer requests until that is corrected: {served}."
    )


def _route(name: str, wanted: Wanted, now: Now) -> Route | None:
    """Return the route that the model can have now; None: it cannot be served yet."""
    route, old = wanted.routes[name], now.routes.get(name)
    keys = [(name, version) for version in route.versions]
    if any(_is_pending(key, wanted, now) for key in keys) and (old or not now.stalled):
        return old
    if all(key in now.loaded for key in keys):
        return route
    return old or _reduced(route, [v for v in route.versions if (name, v) in now.loaded])


def _reduced(route: Route, versions: list[int]) -> Route | None:
    """Return the route without the versions that are not loaded."""
    if not versions:
        return None
    default = route.default if route.default in versions else max(versions)
    return Route(
        tuple(versions), default, {v: route.split[v] for v in versions if v in route.split}
    )


def _loads(wanted: Wanted, now: Now) -> list[Step]:
    """Return the loads of one model: of the default model first."""
    for name in sorted(wanted.routes, key=lambda name: name != wanted.default):
        keys = [(name, version) for version in wanted.routes[name].versions]
        lacked = [wanted.entries[key] for key in keys if _is_pending(key, wanted, now)]
        if loads := [Load(e) for e in lacked if now.loading.get((name, e.version)) != e.signature]:
            return [*loads]
    return []


def _is_pending(key: Key, wanted: Wanted, now: Now) -> bool:
    return wanted.entries[key].signature not in (now.loaded.get(key), now.failed.get(key))


def _has_failed(key: Key, wanted: Wanted, now: Now) -> bool:
    signature = wanted.entries[key].signature
    return now.failed.get(key) == signature != now.loaded.get(key)


def _keys(routes: Mapping[str, Route]) -> set[Key]:
    return {(name, version) for name, route in routes.items() for version in route.versions}
