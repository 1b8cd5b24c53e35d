"""Read the encoded images of a request, however they were sent."""

from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from predictor.errors import BadRequest, RequestError, UnsupportedImage
from predictor.images.decoding import begins_like_an_image
from predictor.web.base64_text import BLANKS, from_base64, holds_an_image
from predictor.web.choosing import Chosen, Fields, choose_json, choose_parts
from predictor.web.forms import begins_like_a_form, multipart_parts, urlencoded_parts
from predictor.web.json_body import parse_json
from predictor.web.params import parameters
from predictor.web.request import current_call, parsing

URLENCODED = "application/x-www-form-urlencoded"
PREDICT_FIELDS = Fields(
    ("file", "image", "images"), json='{"image": "<base64>"}', parameters=("top_k",)
)


def read_upload(
    request: Request, max_images: int, fields: Fields = PREDICT_FIELDS
) -> tuple[Chosen, dict[str, Any]]:
    """Return the images of the body, and the parameters of the query string and the body.

    Raises:
        BadRequest: there is no image, the body cannot be parsed, or a parameter has two values.
        TooLarge: there are more than ``max_images`` images, or too many fields or JSON values.
    """
    body = read_body(request)
    if not body and not request.is_json:
        raise BadRequest("The request has no image: its body is empty." + fields.advice)
    chosen = form_or_image(body, request, max_images, fields)
    if chosen is None and (request.is_json or _begins_like_json(body, request.mimetype)):
        with parsing("json"):
            chosen = choose_json(parse_json(body), max_images, fields)
    elif chosen is None:
        is_text = fields.takes_text and request.mimetype == "text/plain"
        chosen = Chosen([from_base64(body) if is_text else body])
    if chosen.shape == "one" and isinstance(chosen.images[0], RequestError):
        raise chosen.images[0]
    return chosen, parameters(fields.parameters, chosen.given)


def form_or_image(body: bytes, request: Request, max_images: int, fields: Fields) -> Chosen | None:
    """Return the images if the body is a form, or one image, also in base64; else None.

    The body's beginning decides, because many clients send another Content-Type. A urlencoded form
    has no such beginning; by default, curl says that any body is one.
    """
    is_form = begins_like_a_form(body)
    if not is_form and begins_like_an_image(body):
        return Chosen([body])
    if not is_form and holds_an_image(body):
        return Chosen([from_base64(body)])
    is_multipart = is_form or request.mimetype.startswith("multipart/")
    is_urlencoded = request.mimetype == URLENCODED and not _begins_like_json(body, URLENCODED)
    if not (is_multipart or is_urlencoded):
        return None
    with parsing("form"):
        if is_multipart:
            parts = multipart_parts(body, request.content_type or "", max_images)
        else:
            parts = urlencoded_parts(body, max_images)
        return choose_parts(parts, max_images, fields)


def _begins_like_json(body: bytes, mimetype: str) -> bool:
    begins = body[:1024].lstrip(BLANKS).startswith((b"{", b"[", b'"'))
    return begins and not mimetype.startswith("image/")


def read_body(request: Request) -> bytes:
    """Return the body and record the reading time. A compressed body raises UnsupportedImage."""
    if (request.content_encoding or "identity").lower() != "identity":
        raise UnsupportedImage(
            f"The body has Content-Encoding {request.content_encoding}, which is not accepted here."
            " Send the images as they are; their formats are compressed."
        )
    with current_call().timings.measure("read"):
        return read_as_sent(request)


def read_as_sent(request: Request) -> bytes:
    """Return the body without decompressing it. It can be read once.

    Raises:
        BadRequest: the body is malformed or ends too early.
        RequestEntityTooLarge: the body is larger than the upload limit.
    """
    limit = request.max_content_length
    if limit is not None and request.content_length is None:
        request.max_content_length = limit + 1  # werkzeug truncates a chunked body without an error
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # from the server's parser: malformed chunks, a client that left
        raise BadRequest("The body is malformed, or ends too early.") from error
    if limit is not None and len(body) > limit:
        raise RequestEntityTooLarge
    current_call().budget.sent = len(body)
    return body
