"""A store of toy models that follows what the test wants."""

import gc
import threading
import weakref
from functools import partial

import pytest

from predictor.engine.admission import Process
from predictor.engine.classifier import Classifier
from predictor.errors import NotReady, StartError, StoreError
from predictor.settings import Settings
from predictor.store.store import Store
from predictor.store.wanted import Entry, Route, Wanted
from toy import ToyModel, toy_model
from waiting import wait_until


class Weights:
    """Stands for what a load keeps in the memory."""


class Toys:
    """Models whose loads the test controls, by name, version and signature."""

    def __init__(self):
        self.gates, self.made, self.wanted = {}, [], None
        self.closed = threading.Event()
        self.weights = lambda: None
        process = Process(Settings())
        self.store = Store(Settings(), process, self.read, partial(self.make, process))

    def want(self, **models):
        """Want these models: versions with the signatures of their files."""
        entries = [
            Entry(name, version, None, signature)
            for name, versions in models.items()
            for version, signature in versions.items()
        ]
        routes = {name: Route((*each,), max(each), {}) for name, each in models.items()}
        self.wanted = Wanted({(one.name, one.version): one for one in entries}, routes, "m")
        self.store.start()
        self.store.follow()
        return self

    def read(self):
        if self.wanted is None:
            raise StoreError("It is broken.")
        return self.wanted

    def make(self, process, entry):
        gate = self.gates.get((entry.name, entry.version, entry.signature))
        classifier = Classifier(Settings(served_name=entry.name), partial(self.load, gate), process)
        self.made.append((entry, classifier))
        if isinstance(gate, threading.Event):
            classifier.on_close.append(self.closed.set)
        return classifier

    def load(self, gate, *_):
        weights = Weights()
        self.weights = weakref.ref(weights)
        if isinstance(gate, threading.Event):
            assert gate.wait(60)
        elif gate is not None:
            raise gate
        model = ToyModel()
        model.weights = weights
        return toy_model(model)

    def is_followed(self):
        reports = self.store.followers.reports()
        return [(one.revision, one.loading) for one in reports] == [(self.wanted.revision, [])]

    def served(self):
        made = {classifier: entry for entry, classifier in self.made}
        entries = [made[one.classifier] for one in self.store.served()]
        return sorted((entry.name, entry.version, entry.signature) for entry in entries)


@pytest.fixture
def toys():
    made = Toys()
    yield made
    for gate in made.gates.values():
        if isinstance(gate, threading.Event):
            gate.set()
    made.store.close()


def test_a_load_that_hangs_stops_no_other_change(toys):
    toys.gates["m", 2, "a"] = threading.Event()
    toys.want(m={1: "a"}, n={1: "a"})
    wait_until(toys.is_followed)
    toys.want(m={1: "a", 2: "a"}, n={2: "a"})
    wait_until(lambda: toys.served() == [("m", 1, "a"), ("n", 2, "a")])
    states = {(one.name, one.version): one.state for one in toys.store.statuses()}
    assert states == {("m", 1): "READY", ("m", 2): "LOADING", ("n", 2): "READY"}
    assert not toys.is_followed()
    toys.want(m={1: "a"}, n={2: "a"})
    wait_until(toys.is_followed)
    toys.gates["m", 2, "a"].set()
    toys.closed.wait(60)
    assert toys.served() == [("m", 1, "a"), ("n", 2, "a")]


def test_an_older_state_of_files_that_loads_longer_does_not_serve(toys):
    toys.gates["m", 1, "a"] = threading.Event()
    toys.want(m={1: "a"})
    wait_until(lambda: toys.made)
    toys.want(m={1: "b"})
    wait_until(toys.is_followed)
    toys.gates["m", 1, "a"].set()
    toys.closed.wait(60)
    assert toys.served() == [("m", 1, "b")]


def test_a_version_that_failed_is_tried_again_when_it_is_wanted_again(toys):
    toys.gates["m", 2, "a"] = RuntimeError("no luck")
    toys.want(m={1: "a", 2: "a"})
    wait_until(toys.is_followed)
    assert [one.reason for one in toys.store.statuses()] == ["", "no luck"]
    del toys.gates["m", 2, "a"]
    for versions in ({1: "a"}, {1: "a", 2: "a"}):
        toys.want(m=versions)
        wait_until(toys.is_followed)
    assert toys.served() == [("m", 1, "a"), ("m", 2, "a")]


def test_a_failed_load_keeps_nothing_in_the_memory(toys):
    toys.gates["m", 2, "a"] = StartError("no luck")  # of others, pytest's log keeps the traceback
    toys.want(m={1: "a"})
    wait_until(toys.is_followed)
    toys.want(m={1: "a", 2: "a"})
    wait_until(toys.is_followed)
    del toys.gates["m", 2, "a"], toys.made[:]

    def is_freed():
        gc.collect()
        return toys.weights() is None

    wait_until(is_freed)


def test_an_unloaded_version_keeps_nothing_in_the_memory(toys):
    toys.want(m={1: "a"})
    wait_until(toys.is_followed)
    del toys.made[:]
    toys.want(n={1: "a"})
    weights = toys.weights
    wait_until(lambda: weights() is None)


def test_a_store_that_cannot_be_read_changes_nothing_until_it_can(toys, caplog):
    toys.want(m={1: "a"})
    wait_until(toys.is_followed)
    good, toys.wanted = toys.wanted, None
    toys.store.follow()
    assert wait_until(lambda: toys.store.error) == "It is broken."
    wait_until(lambda: caplog.messages == ["What is served stays as it is. It is broken."])
    assert toys.served() == [("m", 1, "a")]
    toys.wanted = good
    toys.store.follow()
    wait_until(lambda: toys.store.error is None)
    toys.want(m={1: "a", 2: "a"})
    wait_until(toys.is_followed)
    assert toys.served() == [("m", 1, "a"), ("m", 2, "a")]


def test_a_version_that_is_unloaded_does_not_make_the_process_unhealthy(toys):
    toys.want(m={1: "a", 2: "a"})
    wait_until(toys.is_followed)
    before = toys.store.served()
    toys.want(m={2: "a"})
    wait_until(toys.is_followed)
    wait_until(lambda: not before[0].enter())
    assert before[0].classifier.unhealthy_reason() is None


def test_a_process_is_ready_without_a_model_that_hangs(toys, monkeypatch):
    monkeypatch.setattr("predictor.store.patience.STALLED_S", 0.1)
    for key in (("m", 2, "a"), ("n", 1, "a")):
        toys.gates[key] = threading.Event()
    toys.want(m={1: "a", 2: "a"}, n={1: "a"})
    wait_until(toys.store.loading.done)
    assert toys.served() == [("m", 1, "a")]
    assert toys.store.is_ready()
    assert toys.store.resolve().version == 1
    with pytest.raises(NotReady, match="The model is loading"):
        toys.store.resolve("n")
    for gate in toys.gates.values():
        gate.set()
    wait_until(toys.is_followed)
    assert [toys.store.resolve(name).version for name in ("m", "n")] == [2, 1]


def test_a_process_is_not_ready_without_its_default_model(toys, monkeypatch):
    monkeypatch.setattr("predictor.store.patience.STALLED_S", 0.01)
    toys.gates["m", 1, "a"] = threading.Event()
    toys.want(m={1: "a"}, n={1: "a"})
    wait_until(lambda: toys.store._patience.is_over and toys.served() == [("n", 1, "a")])
    assert not toys.store.is_ready()
    toys.gates["m", 1, "a"].set()
    wait_until(toys.store.is_ready)


def test_a_load_that_ends_after_the_process_began_to_end_logs_nothing(toys, caplog):
    toys.gates["m", 1, "a"] = gate = threading.Event()
    toys.want(m={1: "a"})
    wait_until(lambda: toys.made)
    toys.store._tasks.shutdown()  # as Python does at its end
    ended = threading.Event()  # set after the callbacks that were added before
    toys.made[0][1].loading.add_done_callback(lambda _: ended.set())
    gate.set()
    assert ended.wait(60)
    assert caplog.records == []
