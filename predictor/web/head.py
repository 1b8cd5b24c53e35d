"""Answer what a request's head alone decides, before the server receives the body."""

from typing import Any

from flask import Flask, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from predictor.environ import ADMITTED, ERROR, MAX_BODY_WITHOUT_SLOT, PLACE
from predictor.errors import TooLarge
from predictor.web.request import is_probed, place_of_request


def answer(app: Flask, environ: dict[str, Any], start_response: Any) -> Any:
    """Refuse a request or answer a probe, as a WSGI app does; return None to let the app answer.

    The server calls this in its event loop, so nothing here may wait. With :data:`ERROR` in the
    environ, this answers with that error. If the request needs a place, the server finds its
    :class:`~predictor.engine.served.Place` under :data:`PLACE`.
    """
    with app.request_context(environ) as context:
        try:
            if (error := environ.get(ERROR)) is not None:
                raise error
            found = app.preprocess_request()  # the guards
            found = _decide() if found is None else found
        except Exception as error:
            found = app.handle_user_exception(error)
        if found is None:
            environ[ADMITTED] = context
            return None
        return app.process_response(app.make_response(found))(environ, start_response)


def _decide() -> ResponseReturnValue | None:
    if request.routing_exception is not None:
        current_app.raise_routing_exception(request)
    if is_probed():
        return current_app.dispatch_request()
    size = request.content_length or 0
    if size > current_app.config["MAX_CONTENT_LENGTH"]:
        raise RequestEntityTooLarge
    place = place_of_request()
    if place is None and size > MAX_BODY_WITHOUT_SLOT:
        raise TooLarge(f"At this address at most {MAX_BODY_WITHOUT_SLOT:,} bytes are accepted.")
    if place is not None:
        place.check()
        request.environ[PLACE] = place
    return None
