"""A store of several models behind a real gunicorn with two processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
import requests

from conftest import LABELS
from pictures import picture
from predictor.errors import StoreError
from predictor.processes import is_running
from predictor.server.start import shared_memory
from predictor.store import file
from predictor.store.followers import Followers
from predictor.store.routing import choose
from running_server import Server
from waiting import wait_until


def add(store, name, version, word):
    """Add a version of :mod:`toy_store`, as an administrator should: by renaming a folder."""
    hidden = store / name / f".{version}"
    hidden.mkdir(parents=True)
    (hidden / "model.txt").write_text(word)
    hidden.rename(store / name / str(version))


class StoreServer(Server):
    """Two processes that follow a store."""

    def __init__(self, store, *options):
        options = ("--workers", "2", "--pythonpath", "tests", *options)
        super().__init__(*options, app="toy_store:app", store=store)
        self.store = store
        wait_until(lambda: self._check_alive() or len(self.reports()) == 2)

    def reports(self):
        """What the processes that serve have reported."""
        for pid in reversed(self.workers):
            if found := [*Path(shared_memory() or "/tmp").glob(f"predictor-*/followers/{pid}-*")]:
                return Followers(found[0].parent).reports()
        return []

    def follows(self, wanted, workers=2):
        """Wait until all processes serve what is wanted."""
        wait_until(lambda: [one.revision for one in self.reports()] == [wanted.revision] * workers)

    def ask(self, key="", **query):
        """Return the index of the class that is answered, or the status."""
        url, headers = f"{self.url}/predict", {"X-Routing-Key": key}
        answer = requests.post(url, picture(), params=query, headers=headers, timeout=60)
        names = [label.class_name for label in LABELS]
        return names.index(answer.json()["class_name"]) if answer.ok else answer.status_code


@pytest.fixture
def store(tmp_path):
    """Three models; version 1 of each answers class 1, and version 2 class 2."""
    store = tmp_path / "models"
    for name in "abc":
        for version in (1, 2):
            add(store, name, version, str(version))
        file.serve(store, name, [1])
    return store


@pytest.fixture
def server(store):
    server = StoreServer(store)
    yield server
    server.close()


class Clients:
    """Clients that ask for all models and versions until the block ends, and note the answers."""

    def __init__(self, server, count=6):
        self.notes, self._server, self._ended = [], server, False
        self.threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(count)]

    def _ask(self, number):
        drawn = random.Random(number)
        while not self._ended:
            query = {"model": drawn.choice("abc")}
            if drawn.random() < 0.3:
                query["version"] = drawn.choice((1, 2, 3))
            key, began = f"client {drawn.randrange(9)}", monotonic()
            try:
                found = self._server.ask(key, **query)
            except requests.ConnectionError:
                found = "broken off"
            self.notes.append((began, monotonic(), query, key, found))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._ended = True
        for thread in self.threads:
            thread.join(60)


class Served:
    """Which routes were served when."""

    def __init__(self, wanted):
        self.states = [(0.0, dict(wanted.routes))]  # with the moment from which they may be served
        self.ends = []  # the moments until which they may be served

    def change(self, began, wanted, ended):
        """Note a change. A model with a version that is broken keeps its routes."""
        before = self.states[-1][1]
        routes = {m: before[m] if 3 in r.versions else r for m, r in wanted.routes.items()}
        self.states.append((began, routes))
        self.ends.append(ended)

    def allowed(self, began, ended, query, key):
        """What may be answered to a request."""
        for (begins, routes), ends in zip(self.states, [*self.ends, float("inf")], strict=True):
            if begins <= ended and began <= ends:
                route = routes[query["model"]]
                version = query.get("version") or choose(route, f"{query['model']}:{key}")
                yield version if version in route.versions else 404


CHANGES = {
    file.serve: [[1], [2], [3]],
    file.unserve: [1, 2, 3, 3],
    file.set_split: [{}, {1: 1, 2: 1}, {1: 1, 2: 9}],
    file.set_default: [1, 2],
}


def test_no_change_breaks_a_request_or_answers_with_a_wrong_version(server, store):
    for name in "abc":
        add(store, name, 3, "broken")
    drawn, served, kinds = random.Random(1), Served(file.read(store)), Counter()
    with Clients(server) as clients:
        while kinds.total() < 24:
            name, change = drawn.choice("abc"), drawn.choice([*CHANGES])
            before, began = file.read(store), monotonic()
            if change is file.unserve and len(before.routes[name].versions) == 1:
                continue
            try:
                wanted = change(store, name, drawn.choice(CHANGES[change]))
            except StoreError:  # such as the default version is not served any more
                continue
            if wanted.revision != before.revision:
                server.follows(wanted)
                served.change(began, wanted, monotonic())
                kinds[change] += 1
    wrong = [note for note in clients.notes if note[-1] not in [*served.allowed(*note[:-1])]]
    assert wrong == []
    answers = Counter(note[-1] for note in clients.notes)
    assert answers.keys() == {1, 2, 404}
    assert len(server.workers) == 2


def cut_off(store):
    path = store / "store.toml"
    path.write_text(path.read_text()[:-5])


def unreadable(store):
    (store / "store.toml").write_bytes(b"\xff\xfe")


def deleted(store):
    (store / "store.toml").unlink()


def linked_to_nothing(store):
    deleted(store)
    (store / "store.toml").symlink_to(store / "nothing")


def without_a_served_folder(store):
    shutil.rmtree(store / "b" / "2")


def a_folder(store):
    deleted(store)
    (store / "store.toml").mkdir()


def is_said_by_both(server, sentence):
    return server.log.count(sentence) >= 2


FAULTS = {
    cut_off: "is not valid TOML",
    unreadable: "it is not UTF-8 text",
    deleted: "does not exist",
    linked_to_nothing: "does not exist",
    without_a_served_folder: "models.b.versions is",
    a_folder: "cannot be read: Is a directory",
}


def test_a_broken_store_changes_nothing_until_it_is_good_again(server, store):
    good = (store / "store.toml").read_text()
    target = store.parent / "target.toml"
    for number, (fault, sentence) in enumerate(FAULTS.items()):
        fault(store)
        wait_until(partial(is_said_by_both, server, sentence))
        assert [server.ask(model=name) for name in "abc"] == [1 + (number > 0)] * 3
        if (store / "store.toml").is_dir():
            (store / "store.toml").rmdir()
        shutil.rmtree(store / "b" / "2", ignore_errors=True)
        add(store, "b", 2, "2")
        target.write_text(good.replace("[1]", "[2]"))
        (store / ".new").symlink_to(target)  # the good state is a link
        (store / ".new").replace(store / "store.toml")
        server.follows(file.read(store))
        assert [server.ask(model=name) for name in "abc"] == [2] * 3
    assert len(server.workers) == 2


def test_a_config_map_is_followed_though_only_a_link_changes(store):
    for state in ("1", "2"):
        (store.parent / state).mkdir()
        text = (store / "store.toml").read_text().replace("[1]", f"[{state}]")
        (store.parent / state / "store.toml").write_text(text)
    data = store / "..data"
    data.symlink_to(store.parent / "1")
    (store / "store.toml").unlink()
    (store / "store.toml").symlink_to("..data/store.toml")
    server = StoreServer(store)
    try:
        assert server.ask(model="a") == 1
        (store / "..new").symlink_to(store.parent / "2")
        (store / "..new").replace(data)
        server.follows(file.read(store))
        assert [server.ask(model=name) for name in "abc"] == [2] * 3
    finally:
        server.close()


def begin_slow_load(server):
    """Let both processes load version 3 of a model until ``.let`` is there; return what is wanted.

    Other models can be changed meanwhile, and old versions answer.
    """
    server.follows(file.serve(server.store, "b", [2]))
    add(server.store, "a", 3, "slow")
    file.serve(server.store, "a", [3])
    wanted = file.set_default(server.store, "b", 1)
    for _ in range(9):  # either process
        wait_until(lambda: server.ask(model="b") == 1)
    assert server.ask(model="a") == 1
    return wanted


def test_a_process_that_is_killed_during_a_load_is_replaced(server, store):
    wanted = begin_slow_load(server)
    with Clients(server) as clients:
        os.kill(server.worker, signal.SIGKILL)
        wait_until(lambda: len(server.workers) == 3)
        seen = len(clients.notes)
        wait_until(lambda: len(clients.notes) > seen + 50)
        (store / "a" / "3" / ".let").touch()
        server.follows(wanted)
    assert {note[-1] for note in clients.notes} <= {0, 1, 2, 404, "broken off"}
    assert [note[-1] for note in clients.notes].count("broken off") <= len(clients.threads)
    assert server.ask(model="a") == 0


def test_a_reload_during_a_load_loses_no_request(server, store):
    wanted = begin_slow_load(server)
    old = server.workers
    with Clients(server) as clients:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(server.workers) == 4)
        seen = len(clients.notes)
        wait_until(lambda: len(clients.notes) > seen + 50)
        (store / "a" / "3" / ".let").touch()
        server.follows(wanted)
        wait_until(lambda: not any(is_running(pid) for pid in old))
    assert {note[-1] for note in clients.notes} <= {0, 1, 2, 404}
    assert server.ask(model="a") == 0


def test_a_version_that_fails_for_each_photo_harms_no_other(server, store):
    add(store, "a", 3, "raises")
    server.follows(file.serve(store, "a", [3]))
    for _ in range(9):
        assert server.ask(model="a") == 500
        assert [server.ask(model="a", version=1), server.ask(model="b")] == [1, 1]
    assert "a fault of the model" in server.log
    server.follows(file.unserve(store, "a", 3))
    assert server.ask(model="a") == 1
    assert len(server.workers) == 2


def test_a_key_meets_one_version_in_all_processes_and_after_a_restart(server, store):
    file.serve(store, "a", [2])
    server.follows(file.set_split(store, "a", {1: 50, 2: 50}))
    keys = [f"client {number}" for number in range(20)]
    met = {key: server.ask(key, model="a") for key in keys}
    assert {*met.values()} == {1, 2}
    for _ in range(3):
        assert {key: server.ask(key, model="a") for key in keys} == met
    other = StoreServer(store)
    try:
        assert {key: other.ask(key, model="a") for key in keys} == met
    finally:
        other.close()
