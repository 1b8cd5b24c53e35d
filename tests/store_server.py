"""A real gunicorn whose two processes follow a store, and clients that note its answers."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from time import monotonic

import requests

from pictures import picture
from predictor.server.start import shared_memory
from predictor.store.followers import Followers
from predictor.store.routing import choose
from running_server import Server
from toy import LABELS
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
        expected = [(wanted.revision, [])] * workers
        wait_until(lambda: [(one.revision, one.loading) for one in self.reports()] == expected)

    def ask(self, key="", **query):
        """Return the index of the class that is answered, or the status."""
        url, headers = f"{self.url}/predict", {"X-Routing-Key": key}
        answer = requests.post(url, picture(), params=query, headers=headers, timeout=60)
        names = [label.class_name for label in LABELS]
        return names.index(answer.json()["class_name"]) if answer.ok else answer.status_code


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
