"""The steps from what is served to what is wanted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictor.store.plan import Load, Now, Switch, Unload, plan, shortfalls
from predictor.store.wanted import Entry, Route, Wanted

NOTHING = Now({}, {}, {}, None)


def entry(version, signature="a", name="m"):
    return Entry(name, version, None, signature)


def route(*versions, default=None, **split):
    weights = {int(name[1:]): weight for name, weight in split.items()}
    return Route(versions, default or max(versions), weights)


def wanted(*entries, default="m", **routes):
    return Wanted({(one.name, one.version): one for one in entries}, routes, default)


def serving(route, failed=(), default="m", **other):
    loaded = {("m", version): "a" for version in route.versions}
    return Now(loaded | other.get("loaded", {}), dict(failed), {"m": route}, default)


ONE, TWO = entry(1), entry(2)
FAILED = {("m", 2): "a"}


@pytest.mark.parametrize(
    ("state", "now", "steps"),
    [
        pytest.param(wanted(ONE, m=route(1)), NOTHING, [Load(ONE)], id="first start"),
        pytest.param(
            wanted(ONE, m=route(1)), Now({("m", 1): "a"}, {}, {}, None),
            [Switch({"m": route(1)}, "m")], id="loaded",
        ),
        pytest.param(wanted(ONE, m=route(1)), serving(route(1)), [], id="served"),
        pytest.param(
            wanted(ONE, TWO, m=route(2)), serving(route(1)), [Load(TWO)], id="load beside the old",
        ),
        pytest.param(
            wanted(ONE, TWO, m=route(2)), serving(route(1), loaded={("m", 2): "a"}),
            [Switch({"m": route(2)}, "m"), Unload("m", 1)], id="switch, then unload",
        ),
        pytest.param(
            wanted(ONE, TWO, m=route(2)), serving(route(1), FAILED), [], id="broken, old stays",
        ),
        pytest.param(
            wanted(ONE, entry(2, "b"), m=route(2)), serving(route(1), FAILED),
            [Load(entry(2, "b"))], id="corrected",
        ),
        pytest.param(
            wanted(entry(1, "b"), m=route(1)), serving(route(1)), [Load(entry(1, "b"))],
            id="changed, loaded beside the old",
        ),
        pytest.param(
            wanted(entry(1, "b"), m=route(1)), serving(route(1), {("m", 1): "b"}), [],
            id="changed and broken, old state stays",
        ),
        pytest.param(
            wanted(entry(1, "b"), TWO, m=route(1, 2, default=1)),
            serving(route(1, 2), {("m", 1): "b"}),
            [Switch({"m": route(1, 2, default=1)}, "m")],
            id="a broken state of a loaded version keeps no route from changing",
        ),
        pytest.param(
            wanted(ONE, TWO, m=route(1, 2, v1=90, v2=10)), Now({("m", 1): "a"}, FAILED, {}, None),
            [Switch({"m": route(1, v1=90)}, "m")], id="first start, one failed",
        ),
        pytest.param(
            wanted(ONE, TWO, m=route(1, 2)), Now({("m", 1): "a"}, {}, {}, None), [Load(TWO)],
            id="first start waits for all",
        ),
        pytest.param(
            wanted(default=None), serving(route(1)), [Switch({}, None), Unload("m", 1)],
            id="model removed",
        ),
        pytest.param(
            wanted(ONE, entry(1, name="n"), m=route(1), n=route(1), default="n"),
            serving(route(1), {("n", 1): "a"}), [], id="broken default model, old default stays",
        ),
        pytest.param(
            wanted(ONE, entry(1, name="n"), m=route(1), n=route(1)),
            Now({("n", 1): "a"}, {("m", 1): "a"}, {}, None),
            [Switch({"n": route(1)}, "m")],
            id="no other model stands in for a broken default model",
        ),
        pytest.param(
            wanted(ONE, entry(1, name="n"), m=route(1), n=route(1), default="n"), NOTHING,
            [Load(entry(1, name="n"))], id="the default model first",
        ),
        pytest.param(
            wanted(ONE, TWO, entry(1, name="n"), m=route(1, 2, default=1), n=route(1)),
            serving(route(1, 2)),
            [Switch({"m": route(1, 2, default=1)}, "m")], id="a switch waits for no load",
        ),
    ],
)  # fmt: skip
def test_steps(state, now, steps):
    assert plan(state, now) == steps


def test_shortfall_names_the_versions_that_failed_and_those_that_answer():
    state = wanted(ONE, TWO, entry(1, name="n"), m=route(1, 2), n=route(1))
    now = serving(route(1), {**FAILED, ("n", 1): "a"})
    found = shortfalls(state, now)
    assert "'m' is not served as wanted. Versions that cannot be loaded: 2." in found["m"]
    assert found["m"].endswith("until that is corrected: 1.")
    assert found["n"].endswith("until that is corrected: none.")
    assert shortfalls(wanted(ONE, m=route(1)), now) == {}


# Any change


@st.composite
def states(draw):
    entries, routes = {}, {}
    for name in draw(st.sets(st.sampled_from("mno"))):
        numbers = st.sets(st.integers(1, 4), min_size=1)
        versions = tuple(sorted(draw(numbers)))
        for version in versions:
            entries[name, version] = entry(version, draw(st.sampled_from("ab!")), name)
        split = draw(st.dictionaries(st.sampled_from(versions), st.floats(0.1, 100)))
        routes[name] = Route(versions, draw(st.sampled_from(versions)), split)
    return Wanted(entries, routes, draw(st.sampled_from([None, *routes])))


def keys(routes):
    return {(name, version) for name, one in routes.items() for version in one.versions}


def carry_out(now, step):
    """What is served after the step. What is broken has the signature ``!``."""
    loaded, failed = dict(now.loaded), dict(now.failed)
    if isinstance(step, Switch):
        assert keys(step.routes) <= loaded.keys()
        return Now(loaded, failed, step.routes, step.default)
    if isinstance(step, Unload):
        assert (step.name, step.version) not in keys(now.routes)
        del loaded[step.name, step.version]
        return Now(loaded, failed, now.routes, now.default)
    key = step.entry.name, step.entry.version
    assert step.entry.signature not in (loaded.get(key), failed.get(key))
    (failed if step.entry.signature == "!" else loaded)[key] = step.entry.signature
    return Now(loaded, failed, now.routes, now.default)


@settings(deadline=None)
@given(st.lists(states(), min_size=1, max_size=4), st.booleans())
def test_any_change_ends_with_all_that_can_be_served(changes, one_by_one):
    now = NOTHING
    for state in changes:
        before = now
        for _round in range(40):
            steps = plan(state, now)
            for step in steps[:1] if one_by_one else steps:
                now = carry_out(now, step)
            if not steps:
                break
        assert not steps
        assert now.loaded.keys() == keys(now.routes) | (keys(state.routes) & now.loaded.keys())
        for name, one in state.routes.items():
            found = {v: state.entries[name, v].signature for v in one.versions}
            if "!" not in found.values():
                assert now.routes[name] == one
                assert all(now.loaded[name, v] == found[v] for v in one.versions)
            elif name in before.routes:
                assert now.routes[name] in (one, before.routes[name])
        assert now.routes.keys() <= state.routes.keys()
