"""What is remembered of a request until it is answered, for its log line and the metrics."""

from __future__ import annotations

import re
import socket
import uuid
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, cast

from flask import Request, request

from predictor.engine.timings import Timings

# Long enough for every tracing system's; nothing in it that a log, a shell or a page could mistake.
SANE_ID = re.compile(r"[A-Za-z0-9._:+=@/-]{1,128}")


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    id: str  # the client's X-Request-ID, or ours
    began: float = field(default_factory=monotonic)
    timings: Timings = field(default_factory=Timings)
    codes: list[str] = field(default_factory=list)  # of the errors that its caller is told
    class_ids: list[str] = field(default_factory=list)  # the best class of each image answered


class ObservedRequest(Request):
    """A request with its exchange, from before anything else looks at it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take the client's id if it is sane."""
        super().__init__(*args, **kwargs)
        given = self.headers.get("X-Request-ID", "")
        self.exchange = Exchange(given if SANE_ID.fullmatch(given) else uuid.uuid4().hex)

    def client_has_left(self) -> bool:
        """Whether the client has closed its connection; over TLS that is not to be seen."""
        connection = self.environ.get("gunicorn.socket")
        if type(connection) is not socket.socket:
            return False
        try:
            return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


def current_exchange() -> Exchange:
    """The exchange of the request in work."""
    return cast(ObservedRequest, request).exchange
