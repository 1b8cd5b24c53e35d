"""A store of several models behind a real gunicorn with two processes."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from functools import partial
from time import monotonic

import pytest

from predictor.errors import StoreError
from predictor.processes import is_running
from predictor.store import file
from store_server import Clients, Served, StoreServer, add
from waiting import wait_until


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


def test_processes_that_start_while_a_folder_is_missing_serve_the_rest(server, store):
    shutil.rmtree(store / "b" / "1")
    wait_until(partial(is_said_by_both, server, "models.b.versions is"))
    old = server.workers
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(is_running(pid) for pid in old) and server.ask(model="a") == 1)
    assert [server.ask(model=name) for name in "abc"] == [1, 404, 1]
    assert str(store / "b" / "1") in server.log
    assert "predictor-" not in server.log  # the folder of the processes
    add(store, "b", 1, "1")
    server.follows(file.read(store))
    assert [server.ask(model=name) for name in "abc"] == [1] * 3
    assert len(server.workers) == 4


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
