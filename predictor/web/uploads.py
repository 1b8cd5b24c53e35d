"""Read the encoded images of a request, however they were sent."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Request
from werkzeug.exceptions import RequestEntityTooLarge

from predictor.errors import BadRequest, RequestError, TooLarge, UnsupportedImage
from predictor.images.decoding import begins_like_an_image
from predictor.web.forms import STEP, Field, multipart_fields, unquote, urlencoded_fields
from predictor.web.request import current_call

URLENCODED = "application/x-www-form-urlencoded"
# Keys under which clients of TensorFlow Serving, TorchServe and KServe put an image in an object.
INSTANCE_KEYS = ("b64", "data", "body", "image", "image_bytes")
URL_SAFE = bytes.maketrans(b"-_", b"+/")
BLANKS = b" \t\r\n\v\f"
# Parsed, a string, list or object takes up to 50 times its size. The most images that the settings
# allow, each in an object with all its members, have half as many signs.
MAX_SIGNS = 200_000
# Numbers that are parsed while all other threads wait: whole numbers of two digits, and fractions.
# Both take up to 30 ms.
TURN, FRACTIONS = 200_000, 10_000
MAX_DIGITS = 40  # of a number: FP32 has 39. Twice as many take four times as long to parse


@dataclass(frozen=True, slots=True)
class Upload:
    """The images of a request. An image that is not base64 is replaced by an error."""

    images: list[bytes | RequestError]
    several: bool  # whether the client sent a list, and so gets a list of answers
    filenames: Sequence[str | None] = ()  # of a form's files, in the order of the images


@dataclass(frozen=True, slots=True)
class Fields:
    """The names under which a protocol's clients send images."""

    files: Sequence[str]  # form fields that hold a file
    texts: Sequence[str]  # form fields that hold base64
    json: str  # member of a JSON object

    @property
    def advice(self) -> str:
        """How to send an image, as a sentence to append to an error message."""
        name = self.files[0]
        return (
            f' Send a file in the form field "{name}" (curl -F {name}=@photo.jpg), or the photo'
            f' itself as the body (curl -T photo.jpg), or JSON {{"{self.json}": "<base64>"}}.'
        )


PREDICT_FIELDS = Fields(files=("file",), texts=("file", "image", "images"), json="image")


def read_upload(request: Request, max_images: int, fields: Fields = PREDICT_FIELDS) -> Upload:
    """Read the images from a form, from JSON, or from a body that is one image.

    Raises:
        BadRequest: there is no image, or the body cannot be parsed.
        TooLarge: there are more than ``max_images`` images, or too many fields or JSON values.
    """
    body = read_body(request)
    if request.mimetype == "multipart/form-data":
        form = multipart_fields(body, request.mimetype_params.get("boundary", ""))
        return _from_form(form, max_images, fields)
    # By default, curl --data-binary @photo.jpg says that the photo is a urlencoded form.
    if request.mimetype == URLENCODED and not begins_like_an_image(body):
        return _from_form(urlencoded_fields(body), max_images, fields)
    if request.is_json:
        return _from_json(parse_json(body), max_images)
    if not body:
        raise BadRequest("The request has no image: its body is empty." + fields.advice)
    return Upload([body], several=False)


def read_body(request: Request) -> bytes:
    """Return the body and record the reading time. A compressed body raises UnsupportedImage."""
    if request.content_encoding not in (None, "", "identity"):
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
    try:
        body = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # from the server's parser: malformed chunks, a client that left
        raise BadRequest("The body is malformed, or ends too early.") from error
    if request.content_length is None and limit is not None and len(body) >= limit:
        raise RequestEntityTooLarge  # werkzeug truncates a chunked body without an error
    return body


def _from_form(form: list[Field], max_images: int, names: Fields) -> Upload:
    files = [f for name in names.files for f in form if f.name == name and f.filename is not None]
    texts = [f for name in names.texts for f in form if f.name == name and f.filename is None]
    images: list[bytes | RequestError] = [file.value for file in files]
    count = len(files) + len(texts)
    if count == 0:
        fields = dict.fromkeys(repr(field.name[:30]) for field in form if field.name)
        found = f", but {', '.join([*fields][:5])}" if fields else ""
        raise BadRequest(
            f'The request has no image: the form has no field "{names.files[0]}"{found}.'
            + names.advice
        )
    check_count(count, max_images)
    images += [from_base64(text.value) for text in texts]
    upload = _single_or_several(images, several=count > 1)
    return replace(upload, filenames=[file.filename for file in files])


def parse_json(body: bytes, is_tensor: bool = False) -> Any:
    """Parse a body as JSON, whatever its Content-Type.

    If ``is_tensor``, any count of numbers is accepted.

    Raises:
        BadRequest: the body is not JSON, or has NaN, Infinity or a number that is too long.
        TooLarge: the JSON has so many values that it would need much memory.
    """
    numbers, signs = body.count(b","), b'"[{' if is_tensor else b'"[{,'
    if numbers > TURN:
        signs += b"lr"  # null, false and true are parsed while all other threads wait
    steps = range(0, len(body), STEP)
    if sum(body.count(sign, step, step + STEP) for sign in signs for step in steps) > MAX_SIGNS:
        raise TooLarge(
            "The JSON has too many values. Send images as base64, and tensors as binary data."
        )
    # Calls of Python code let other threads run, but take five times as long. A body with at most
    # 6 bytes for each number, such as a UINT8 tensor, has no room for many long numbers.
    parse_float = _fraction if numbers > FRACTIONS else None
    parse_int = _whole_number if numbers > TURN or len(body) > 6 * numbers else None
    try:
        return json.loads(
            body, parse_float=parse_float, parse_int=parse_int, parse_constant=_whole_number
        )
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from error
    except (ValueError, RecursionError) as error:  # Python's message would not help a client
        raise BadRequest(
            "The body is not JSON in UTF-8, is nested too deeply, or has NaN, Infinity or a number"
            f" that is too long. Send finite numbers of at most {MAX_DIGITS} digits."
        ) from error


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError
    return int(text)  # raises ValueError for NaN and Infinity, which json would accept


def _fraction(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise ValueError
    return float(text)


def _from_json(content: Any, max_images: int) -> Upload:
    found = content if isinstance(content, dict) else {}
    if {"image", "images"} <= found.keys():
        raise BadRequest('The JSON has both "image" and "images"; send one of them.')
    if isinstance(images := found.get("images"), list) and images:
        check_count(len(images), max_images)
        return Upload([from_base64(text) for text in images], several=True)
    if "image" in found:
        return _single_or_several([from_base64(found["image"])], several=False)
    raise BadRequest(
        'The JSON has no image. Send {"image": "<base64>"}, or {"images": ["<base64>", …]} with'
        " at least one."
    )


def _single_or_several(images: list[bytes | RequestError], several: bool) -> Upload:
    if not several and isinstance(images[0], RequestError):
        raise images[0]
    return Upload(images, several)


def from_instances(instances: Any, max_images: int) -> list[bytes | RequestError]:
    """Return the images of a JSON list. An invalid image is replaced by an error.

    Each instance is base64, or an object with base64 under one of :data:`INSTANCE_KEYS`. Raises
    BadRequest if ``instances`` is not a list or is empty, and TooLarge if the list is too long.
    """
    if not isinstance(instances, list) or not instances:
        raise BadRequest("The images must be a list with at least one image.")
    check_count(len(instances), max_images)
    return [_from_instance(instance) for instance in instances]


def _from_instance(instance: object) -> bytes | RequestError:
    if not isinstance(instance, dict):
        return from_base64(instance)
    found = [instance[key] for key in INSTANCE_KEYS if key in instance]
    if len(found) != 1:
        names = ", ".join(INSTANCE_KEYS)
        return BadRequest(f"An object must have its image under exactly one of the names {names}.")
    # {"image_bytes": {"b64": …}}
    return from_base64(found[0].get("b64") if isinstance(found[0], dict) else found[0])


def check_count(count: int, max_images: int) -> None:
    """Raise TooLarge if there are too many images, before each invalid image costs a message."""
    if count > max_images:
        raise TooLarge(f"The request has {count:,} images; the limit is {max_images:,}.")


def from_base64(text: object) -> bytes | RequestError:
    """Decode base64: plain or URL-safe, with or without padding, or in a data URL.

    The error is returned, not raised, because the other images of the request may be valid.
    """
    if not isinstance(text, str | bytes):
        return BadRequest("The image is not a string; it must be base64.")
    try:
        data = (text.encode("ascii") if isinstance(text, str) else text).lstrip()
        if data[:5].lower() == b"data:":
            data = unquote(data.partition(b",")[2])
        data = data.translate(URL_SAFE, BLANKS).rstrip(b"=")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError:
        return BadRequest(
            "The image is text, but not base64. File names and URLs are not followed: send the"
            " photo itself (with curl, put an @ before the file name: -F file=@photo.jpg)."
        )
