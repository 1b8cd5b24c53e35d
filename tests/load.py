"""Clients that keep a server busy while a test does something to it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import requests

from pictures import COLOURS, picture
from waiting import wait_until


class Load:
    """Clients that send red, green and blue photos until the block ends; counts the answers."""

    def __init__(self, server, clients=6):
        self.tally, self._server, self._ended = Counter(), server, False
        self._pool = ThreadPoolExecutor(clients)
        self._clients = [self._pool.submit(self._ask, number) for number in range(clients)]

    def _ask(self, number):
        while not self._ended:
            colour = list(COLOURS)[number % 3]
            try:
                response = requests.post(f"{self._server.url}/predict", picture(colour), timeout=60)
            except requests.ConnectionError:
                self.tally["broken off"] += 1
                continue
            body = response.json()
            right = body.get("class_name") == f"{colour}_thing"
            self.tally["right" if right else body.get("code", "wrong")] += 1

    def __enter__(self):
        wait_until(lambda: self.tally["right"] > 5)
        return self

    def __exit__(self, *_):
        before = self.tally["right"]
        wait_until(lambda: self.tally["right"] > before + 5)  # photos are classified again
        self._ended = True
        for client in self._clients:
            client.result(timeout=60)
        self._pool.shutdown()
