"""The current request: its record, its call to the engine, and the version that answers it."""

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeVar, cast

from flask import Flask, Request, current_app, request
from flask.ctx import RequestContext
from werkzeug.http import parse_date

from predictor.engine.call import Call
from predictor.engine.served import Place, Served, SlotKind
from predictor.environ import ADMITTED, LEFT, PLACE
from predictor.store.store import Store
from predictor.web.params import parameters

View = TypeVar("View", bound=Callable[..., Any])
# From a view's arguments to the model and the version that a request names, or None.
Target = Callable[[Mapping[str, Any]], tuple[str | None, str | None]]

SENT_PATH = "predictor.sent_path"  # in the environ: the path before doubled slashes are merged
KEY = "predictor"  # of the store, in the app's extensions
DATES = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE", "HTTP_IF_RANGE")
MAX_ACCEPT = 1000  # characters of an Accept header; a browser sends about 150
# Long enough for every tracing system. No character is special in a log, a shell or HTML.
VALID_ID = re.compile(r"[A-Za-z0-9._:+=@/-]{1,128}")
_parsers = {"form": threading.Lock(), "json": threading.Lock()}  # of the threads that parse


@dataclass(slots=True)
class RequestRecord:
    """A request's id, times, errors and results, for its log line and the metrics."""

    id: str  # the client's X-Request-ID, or a new one
    call: Call
    began: float = field(default_factory=monotonic)
    codes: list[str] = field(default_factory=list)  # of the errors sent to the client
    place: Place | None = None  # that the request needs

    @property
    def seconds(self) -> float:
        """Seconds since the request's header was read."""
        return monotonic() - self.began

    def note_model(self) -> None:
        """Record which model and version answers the request, or refuses it."""
        if self.place is not None:
            self.call.model, self.call.version = self.place.found


class RecordedRequest(Request):
    """A request with its record."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Create the record. Its id is the client's X-Request-ID, if valid.

        Accept headers longer than ``MAX_ACCEPT`` are ignored: parsing 56 kB takes 160 ms. So are
        dates that werkzeug fails to parse.
        """
        environ: dict[str, Any] = args[0]
        sent = environ.setdefault(SENT_PATH, environ["PATH_INFO"])
        environ["PATH_INFO"] = re.sub("//+", "/", sent) or "/"  # the router would redirect
        super().__init__(*args, **kwargs)
        for name in ("HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING"):
            if len(self.environ.get(name, "")) > MAX_ACCEPT:
                del self.environ[name]
        for name in DATES:
            try:
                parse_date(self.environ.get(name))
            except OverflowError:
                del self.environ[name]
        given = self.headers.get("X-Request-ID", "")
        self.begin(given if VALID_ID.fullmatch(given) else uuid.uuid4().hex)

    def begin(self, request_id: str) -> None:
        """Begin a new record."""
        call, place = Call(left=self.environ.get(LEFT) or Future()), self.environ.get(PLACE)
        self.record = RequestRecord(request_id, call, place=place)


class RecordingFlask(Flask):
    """An app whose requests have records."""

    request_class = RecordedRequest

    def request_context(self, environ: dict[str, Any]) -> RequestContext:
        """Return a context for the request, or the one in which its head has been checked.

        The record begins again, because the time to receive the body is the client's.
        """
        context: RequestContext | None = environ.get(ADMITTED)
        if context is None:
            return super().request_context(environ)
        request = cast(RecordedRequest, context.request)
        request.begin(request.record.id)
        return context


def current_record() -> RequestRecord:
    """Return the record of the current request."""
    return cast(RecordedRequest, request).record


def current_call() -> Call:
    """Return the call that the current request makes to the engine."""
    return current_record().call


def current_store() -> Store:
    """Return the store of the current app."""
    return cast(Store, current_app.extensions[KEY])


def resolve(model: str | None, version: str | None = None) -> Served:
    """Return what answers the current request for a model, as :meth:`Store.resolve` does."""
    return current_store().resolve(model, version, _routing_key())


def _routing_key() -> str:
    """Return who asks: the header X-Routing-Key, else the token, else the client's address."""
    headers = request.headers
    return headers.get("X-Routing-Key") or headers.get("Authorization") or request.remote_addr or ""


def by_query(_arguments: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the model and the version that the query string names."""
    given = parameters(("model", "version"))
    return given.get("model"), given.get("version")


def by_path(arguments: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the model and the version that the path names."""
    return arguments["model"], arguments.get("version")


def needs_slot(kind: SlotKind, target: Target = by_query) -> Callable[[View], View]:
    """Return a decorator that marks a view whose requests need a place. It uses :func:`admitted`.

    ``target`` finds out which model and version a request names.
    """

    def mark(view: View) -> View:
        view.place = kind, target  # type: ignore[attr-defined]
        return view

    return mark


def place_of_request() -> Place | None:
    """Return the place that the current request needs, not taken yet; None if it needs none."""
    view = current_app.view_functions[request.endpoint or ""]
    if request.method == "OPTIONS" or not hasattr(view, "place"):
        return None
    kind, target = view.place
    model, version = target(request.view_args or {})
    place = Place(kind, partial(current_store().resolve, model, version, _routing_key()))
    current_record().place = place
    return place


@contextmanager
def admitted() -> Iterator[Served]:
    """Hold the place of the current request for the block; yield the version that answers it.

    Raises:
        NotReady, Overloaded, ExplainerBusy, RequestError: the request cannot be answered.
    """
    taken: Place | None = request.environ.get(PLACE)  # by the server
    place = taken or place_of_request()
    assert place is not None
    with nullcontext(place.served) if taken else place.hold() as served:
        current_record().note_model()
        yield served


@contextmanager
def parsing(kind: Literal["form", "json"]) -> Iterator[None]:
    """Let only one thread parse a body of a kind, in the block.

    Threads that parse hold Python's lock. While 60 parsed a form each, the event loop got it so
    seldom that /healthz took 0.7 s; one after the other, they end sooner, and it takes 30 ms.

    Raises:
        ClientGone: the client has left.
    """
    with _parsers[kind]:
        current_call().check()
        yield


def probe(view: View) -> View:
    """Mark a view that monitoring calls often: it needs no token, and only failures are logged.

    The server calls it in its event loop, so it must not wait.
    """
    view.is_probe = True  # type: ignore[attr-defined]
    return view


def is_probe(endpoint: str | None) -> bool:
    """Return whether the view of an endpoint is a probe."""
    return getattr(current_app.view_functions.get(endpoint or ""), "is_probe", False)


def is_probed() -> bool:
    """Return whether the current request is a probe."""
    return is_probe(request.endpoint)
