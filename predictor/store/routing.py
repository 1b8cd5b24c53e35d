"""Which version of a model answers a request that names none. A new way to route is one function.

A split is weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): each version draws a
number for the key, exponentially distributed by the version's weight, and the least one wins. No
state is kept: all processes and machines choose alike. If one version's weight changes, only keys
move that it wins or loses.
"""

import hashlib
import math

from predictor.store.wanted import Route


def choose(route: Route, key: str) -> int:
    """Return a version: by the split, else the default. The same key always gets the same.

    ``key`` should contain the model's name: otherwise the splits of several models send the same
    clients to their small parts.
    """
    drawn = {v: _draw(key, v) / weight for v, weight in route.split.items() if weight > 0}
    return min(drawn, key=drawn.__getitem__, default=route.default)


def _draw(key: str, version: int) -> float:
    """Return a positive number of the exponential distribution with mean 1."""
    text = f"{version}:{key}".encode(errors="surrogatepass")
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
    return -math.log((number + 1) / 2**64)
