"""Request → encoded images, in whichever of the usual ways they were sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from predictor.errors import BadRequest, RequestError, TooLarge, UnsupportedImage
from predictor.images.decoding import begins_like_an_image
from predictor.web.request import current_call

URLENCODED = "application/x-www-form-urlencoded"
# What an image is called in an instance's object, by TensorFlow's, TorchServe's and KServe's habit.
INSTANCE_KEYS = ("b64", "data", "body", "image", "image_bytes")
URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Upload:
    """The images of a request; in place of one that could not be unpacked stands its error."""

    images: list[bytes | RequestError]
    several: bool  # whether the caller sent a list, and so is answered with one


@dataclass(frozen=True, slots=True)
class Fields:
    """Under which names a protocol's clients send images."""

    files: Sequence[str]  # of a form
    texts: Sequence[str]  # of a form, with base64 in them
    json: str

    @property
    def advice(self) -> str:
        """How to send one."""
        name = self.files[0]
        return (
            f' Send a file in the form field "{name}" (curl -F {name}=@photo.jpg), or the photo'
            f' itself as the body (curl -T photo.jpg), or JSON {{"{self.json}": "<base64>"}}.'
        )


OURS = Fields(files=("file",), texts=("file", "image", "images"), json="image")


def read_upload(request: Request, max_images: int, fields: Fields = OURS) -> Upload:
    """Read the images: multipart, form, JSON or the body itself.

    Raises:
        BadRequest: there is no image, or its wrapping cannot be undone.
        TooLarge: more than ``max_images``, readable or not.
        UnsupportedImage: the body is compressed.
    """
    is_form = request.mimetype == "multipart/form-data"
    body = read_body(request, is_form)
    # "curl --data-binary @photo.jpg" calls the photo a urlencoded form unless told otherwise.
    if is_form or (request.mimetype == URLENCODED and not begins_like_an_image(body)):
        return _from_form(request, max_images, fields)
    if request.is_json:
        return _from_json(parse_json(body), max_images)
    if not body:
        raise BadRequest("There is no image: the request has no body." + fields.advice)
    return Upload([body], several=False)


def read_body(request: Request, is_form: bool = False) -> bytes:
    """Read the body; of a form to be parsed, the fields are kept and nothing is returned.

    Raises:
        BadRequest: it broke off, or its chunks are malformed.
        TooLarge: a form of too many fields.
        RequestEntityTooLarge: more bytes than are accepted.
        UnsupportedImage: it is compressed.
    """
    if request.content_encoding not in (None, "", "identity"):
        raise UnsupportedImage(
            f"A body with Content-Encoding {request.content_encoding} is not read here;"
            " images are compressed already."
        )
    with current_call().timings.measure("read"):
        return read_as_sent(request, is_form)


def read_as_sent(request: Request, is_form: bool = False) -> bytes:
    """The same whatever the body's encoding, and not timed."""
    limit = request.max_content_length
    try:
        body = request.get_data(parse_form_data=is_form)
    except RequestEntityTooLarge:
        if request.content_length is None or request.content_length > (limit or 0):
            raise
        raise TooLarge(f"The form has more than {request.max_form_parts:,} fields.") from None
    except Exception as error:  # of the server's parser: malformed chunks, a client that left
        raise BadRequest("The body is malformed or broke off before its end.") from error
    if request.content_length is None and limit is not None and len(body) >= limit:
        raise RequestEntityTooLarge  # a chunked body is cut there without a word
    return body


def _from_form(request: Request, max_images: int, wanted: Fields) -> Upload:
    files = [file for name in wanted.files for file in request.files.getlist(name)]
    texts = [text for name in wanted.texts for text in request.form.getlist(name)]
    if request.mimetype == URLENCODED:  # a "+" that was sent as it is arrives as a space
        texts = [text.replace(" ", "+") for text in texts]
    count = len(files) + len(texts)
    if count == 0:
        fields = [name for name in (*request.files, *request.form) if name]  # a part may have none
        found = f"; there is {', '.join(repr(name[:30]) for name in fields[:5])}" if fields else ""
        raise BadRequest(
            f'There is no image: the form has no field "{wanted.files[0]}"{found}.{wanted.advice}'
        )
    check_count(count, max_images)
    read = [file.stream.read() for file in files]
    return _single_or_several([*read, *map(from_base64, texts)], several=count > 1)


def parse_json(body: bytes) -> Any:
    """Whatever JSON the body has, whatever its type is called.

    Raises:
        BadRequest: it is none.
    """
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    except (ValueError, RecursionError) as error:  # Python's words, and no business of a caller's
        raise BadRequest("The body is not JSON that can be read.") from error


def _from_json(content: Any, max_images: int) -> Upload:
    if isinstance(content, dict) and {"image", "images"} <= content.keys():
        raise BadRequest('The JSON has both "image" and "images"; send one of them.')
    if isinstance(content, dict) and isinstance(content.get("images"), list) and content["images"]:
        check_count(len(content["images"]), max_images)
        return Upload([from_base64(text) for text in content["images"]], several=True)
    if isinstance(content, dict) and "image" in content:
        return _single_or_several([from_base64(content["image"])], several=False)
    raise BadRequest(
        'There is no image: the JSON is neither {"image": "<base64>"}'
        ' nor {"images": ["<base64>", …]} with at least one.'
    )


def _single_or_several(images: list[bytes | RequestError], several: bool) -> Upload:
    if not several and isinstance(images[0], RequestError):
        raise images[0]
    return Upload(images, several)


def from_instances(instances: Any, max_images: int) -> list[bytes | RequestError]:
    """Images of a JSON list, each base64, or an object that has it under one of the usual names.

    Raises:
        BadRequest: it is no list, or it is empty.
        TooLarge: more than ``max_images``.
    """
    if not isinstance(instances, list) or not instances:
        raise BadRequest("A list of images is wanted, with at least one.")
    check_count(len(instances), max_images)
    return [_from_instance(instance) for instance in instances]


def _from_instance(instance: object) -> bytes | RequestError:
    if not isinstance(instance, dict):
        return from_base64(instance)
    found = [instance[key] for key in INSTANCE_KEYS if key in instance]
    if len(found) != 1:
        names = ", ".join(INSTANCE_KEYS)
        return BadRequest(f"An image is wanted under exactly one of the names {names}.")
    if isinstance(found[0], dict):  # {"image_bytes": {"b64": …}}
        return from_base64(found[0].get("b64"))
    return from_base64(found[0])


def check_count(count: int, max_images: int) -> None:
    """Refuse before they are unpacked: a million broken ones would cost as many messages.

    Raises:
        TooLarge: more than ``max_images``.
    """
    if count > max_images:
        raise TooLarge(f"The request has {count} images; it may have {max_images}.")


def from_base64(text: object) -> bytes | RequestError:
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
