"""Request → encoded images, in whichever of the usual ways they were sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass

from flask import Request

from predictor.decoding import begins_like_an_image
from predictor.errors import BadRequest, RequestError, UnsupportedImage

HOW_TO = (
    ' Send a file in the form field "file" (curl -F file=@photo.jpg), or the photo itself as the'
    ' body (curl -T photo.jpg), or JSON {"image": "<base64>"}.'
)
TEXT_FIELDS = ("file", "image", "images")
URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Upload:
    """The images of a request; in place of one that could not be unpacked stands its error."""

    images: list[bytes | RequestError]
    several: bool  # whether the caller sent a list, and so is answered with one


def read_upload(request: Request) -> Upload:
    """Read the images: multipart, form, JSON or the body itself.

    Raises:
        BadRequest: there is no image, or its wrapping cannot be undone.
        UnsupportedImage: the body is compressed.
    """
    if request.content_encoding not in (None, "", "identity"):
        raise UnsupportedImage(
            f"A body with Content-Encoding {request.content_encoding} is not read here;"
            " images are compressed already."
        )
    if request.mimetype == "multipart/form-data":
        return _from_form(request)
    if request.is_json:
        return _from_json(request.get_data())
    body = request.get_data()  # before .form, which would eat it
    # "curl --data-binary @photo.jpg" calls the photo a urlencoded form unless told otherwise.
    if request.mimetype == "application/x-www-form-urlencoded" and not begins_like_an_image(body):
        return _from_form(request)
    if not body:
        raise BadRequest("There is no image: the request has no body." + HOW_TO)
    return Upload([body], several=False)


def _from_form(request: Request) -> Upload:
    images: list[bytes | RequestError] = [
        file.stream.read() for file in request.files.getlist("file")
    ]
    for name in TEXT_FIELDS:
        # A "+" that was sent as it is in a urlencoded form arrives as a space.
        images += _unpacked(text.replace(" ", "+") for text in request.form.getlist(name))
    if not images:
        fields = [*request.files, *request.form]
        found = f"; there is {', '.join(map(repr, fields[:5]))}" if fields else ""
        raise BadRequest(f'There is no image: the form has no field "file"{found}.{HOW_TO}')
    return _single_or_several(images, several=len(images) > 1)


def _from_json(body: bytes) -> Upload:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    if isinstance(content, dict) and isinstance(content.get("images"), list) and content["images"]:
        return _single_or_several(_unpacked(content["images"]), several=True)
    if isinstance(content, dict) and "image" in content:
        return _single_or_several(_unpacked([content["image"]]), several=False)
    raise BadRequest(
        'There is no image: the JSON is neither {"image": "<base64>"}'
        ' nor {"images": ["<base64>", …]} with at least one.'
    )


def _single_or_several(images: list[bytes | RequestError], several: bool) -> Upload:
    if not several and isinstance(images[0], RequestError):
        raise images[0]
    return Upload(images, several)


def _unpacked(texts: Iterable[object]) -> list[bytes | RequestError]:
    return [_from_base64(text) for text in texts]


def _from_base64(text: object) -> bytes | RequestError:
    """Base64, plain or URL-safe, with or without padding, or a data URL that holds it."""
    if not isinstance(text, str):
        return BadRequest("The image is not a string of base64.")
    data = text.partition(",")[2] if text.startswith("data:") else text
    data = "".join(data.split()).rstrip("=").translate(URL_SAFE)
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except ValueError:
        return BadRequest(
            "The image is text that is no base64. If it names a file, curl sends the file itself"
            " with an @ before its name: -F file=@photo.jpg."
        )
