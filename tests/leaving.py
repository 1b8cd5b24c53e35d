"""A request whose client has left."""

from math import inf

from predictor.engine.call import Call


def gone(deadline: float = inf) -> Call:
    """Return a call of a client that has closed its connection."""
    call = Call(deadline)
    call.left.set_result(None)
    return call
