"""Request → encoded images, in whichever of the usual ways they were sent."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from urllib.parse import unquote

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from predictor.decoding import begins_like_an_image
from predictor.errors import BadRequest, RequestError, TooLarge, UnsupportedImage
from predictor.web.exchange import current_exchange

HOW_TO = (
    ' Send a file in the form field "file" (curl -F file=@photo.jpg), or the photo itself as the'
    ' body (curl -T photo.jpg), or JSON {"image": "<base64>"}.'
)
URLENCODED = "application/x-www-form-urlencoded"
TEXT_FIELDS = ("file", "image", "images")
URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Upload:
    """The images of a request; in place of one that could not be unpacked stands its error."""

    images: list[bytes | RequestError]
    several: bool  # whether the caller sent a list, and so is answered with one


def read_upload(request: Request, max_images: int) -> Upload:
    """Read the images: multipart, form, JSON or the body itself.

    Raises:
        BadRequest: there is no image, or its wrapping cannot be undone.
        TooLarge: more than ``max_images``, readable or not.
        UnsupportedImage: the body is compressed.
    """
    if request.content_encoding not in (None, "", "identity"):
        raise UnsupportedImage(
            f"A body with Content-Encoding {request.content_encoding} is not read here;"
            " images are compressed already."
        )
    with current_exchange().timings.measure("read"):
        body = _body(request)
    if request.mimetype == "multipart/form-data":
        return _from_form(request, max_images)
    if request.is_json:
        return _from_json(body, max_images)
    # "curl --data-binary @photo.jpg" calls the photo a urlencoded form unless told otherwise.
    if request.mimetype == URLENCODED and not begins_like_an_image(body):
        return _from_form(request, max_images)
    if not body:
        raise BadRequest("There is no image: the request has no body." + HOW_TO)
    return Upload([body], several=False)


def _body(request: Request) -> bytes:
    """The body read to its end; of multipart, the form is read and nothing is left over."""
    limit = request.max_content_length
    try:
        body = request.get_data(parse_form_data=request.mimetype == "multipart/form-data")
    except RequestEntityTooLarge:
        if request.content_length is None or request.content_length > (limit or 0):
            raise
        raise TooLarge(f"The form has more than {request.max_form_parts:,} fields.") from None
    except Exception as error:  # of the server's parser: malformed chunks, a client that left
        raise BadRequest("The body is malformed or broke off before its end.") from error
    if request.content_length is None and limit is not None and len(body) >= limit:
        raise RequestEntityTooLarge  # a chunked body is cut there without a word
    return body


def _from_form(request: Request, max_images: int) -> Upload:
    files = request.files.getlist("file")
    texts = [text for name in TEXT_FIELDS for text in request.form.getlist(name)]
    if request.mimetype == URLENCODED:  # a "+" that was sent as it is arrives as a space
        texts = [text.replace(" ", "+") for text in texts]
    count = len(files) + len(texts)
    if count == 0:
        fields = [name for name in (*request.files, *request.form) if name]  # a part may have none
        found = f"; there is {', '.join(repr(name[:30]) for name in fields[:5])}" if fields else ""
        raise BadRequest(f'There is no image: the form has no field "file"{found}.{HOW_TO}')
    _check_count(count, max_images)
    read = [file.stream.read() for file in files]
    return _single_or_several([*read, *map(_from_base64, texts)], several=count > 1)


def _from_json(body: bytes, max_images: int) -> Upload:
    try:
        content = json.loads(body)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    except (ValueError, RecursionError) as error:  # Python's words, and no business of a caller's
        raise BadRequest("The body is not JSON that can be read.") from error
    if isinstance(content, dict) and {"image", "images"} <= content.keys():
        raise BadRequest('The JSON has both "image" and "images"; send one of them.')
    if isinstance(content, dict) and isinstance(content.get("images"), list) and content["images"]:
        _check_count(len(content["images"]), max_images)
        return Upload([_from_base64(text) for text in content["images"]], several=True)
    if isinstance(content, dict) and "image" in content:
        return _single_or_several([_from_base64(content["image"])], several=False)
    raise BadRequest(
        'There is no image: the JSON is neither {"image": "<base64>"}'
        ' nor {"images": ["<base64>", …]} with at least one.'
    )


def _single_or_several(images: list[bytes | RequestError], several: bool) -> Upload:
    if not several and isinstance(images[0], RequestError):
        raise images[0]
    return Upload(images, several)


def _check_count(count: int, max_images: int) -> None:
    """Before they are unpacked: a million broken ones would cost a million error messages."""
    if count > max_images:
        raise TooLarge(f"The request has {count} images; at most {max_images} are accepted.")


def _from_base64(text: object) -> bytes | RequestError:
    """Base64, plain or URL-safe, with or without padding, or a data URL that holds it."""
    if not isinstance(text, str):
        return BadRequest("The image is not a string of base64.")
    data = "".join(text.split())
    if data[:5].lower() == "data:":
        data = unquote(data.partition(",")[2])
    data = data.rstrip("=").translate(URL_SAFE)
    try:
        return base64.b64decode(data + "=" * (-len(data) % 4), validate=True)
    except ValueError:
        return BadRequest(
            "The image is text that is no base64. Names and addresses are not followed: send the"
            " photo itself (curl does with an @ before its name: -F file=@photo.jpg)."
        )
