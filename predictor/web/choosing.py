"""Choose the images and the parameters among the parts of a form, or in JSON.

Nothing here reads a request: :mod:`predictor.web.forms` parses forms, and
:mod:`predictor.web.json_body` JSON.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from predictor.errors import BadRequest, RequestError, TooLarge
from predictor.images.decoding import begins_like_an_image, can_decode
from predictor.web.base64_text import from_base64, holds_an_image
from predictor.web.forms import Part
from predictor.web.json_body import FREE_SIGNS, SIGNS, count, parse_json
from predictor.web.params import known_among, parameters_of

Image = bytes | RequestError  # an image that is not base64 is replaced by an error
Shape = Literal["one", "list", "instances"]

# Members of a JSON object that hold several images, and the usual ones that hold one.
LISTS = ("instances", "inputs", "images")
INSTANCE_KEYS = ("b64", "data", "body", "image", "image_bytes")
NAMES = ", ".join(INSTANCE_KEYS)
NOT_ONE = f"An object must have its image under exactly one of the names {NAMES}."
MAX_DEPTH = 6  # of objects and lists within each other: OpenAI's messages have five
MAX_TEXTS = 1000  # of a request among which images are looked for; each takes 30 µs
JSON_NULLS = (b"null", b"undefined")  # what JavaScript writes for a value that it does not have
JSON_TYPE = "application/json"
MAY_HOLD_AN_IMAGE = (str, dict, list)
MAX_CAPTION = 1000  # bytes of text beside a photo: a name, a path or a URL; longer, it is an error

# The kinds of a form's parts. A part is of the first kind whose rule it meets.
KINDS: Sequence[tuple[str, Callable[[Part], bool]]] = (
    ("empty", lambda part: not part.filename and (not part.value or part.value.isspace())),
    ("image", lambda part: _is_image(part.value) or part.kind.startswith("image/")),
    ("file", lambda part: part.kind != JSON_TYPE and _is_file(part)),
    ("metadata", lambda part: part.value.lstrip()[:1] in b"{[" or part.value in JSON_NULLS),
    ("text", lambda part: True),
)
# The images are the parts of the lowest rank, in the order of the form. A part ranks by its kind,
# and by its name: one that the protocol expects, one that an image has, too, or another name.
RANKS: dict[str, dict[str, int]] = {
    "image": {"expected": 1, "shared": 1, "other": 1},
    "file": {"expected": 1, "shared": 1, "other": 2},
    "text": {"expected": 1},
    "metadata": {"expected": 3},  # alone, they get the error that says what to send
    "empty": {"expected": 3},
}


@dataclass(frozen=True, slots=True)
class Fields:
    """The names under which a protocol's clients send images and parameters."""

    names: Sequence[str]  # form fields that hold an image; the first one is advised
    json: str  # that is advised
    parameters: Sequence[str] = ()
    takes_text: bool = False  # whether a body of type text/plain must be base64

    @property
    def advice(self) -> str:
        """How to send an image, as a sentence to append to an error message."""
        name = self.names[0]
        return (
            f' Send a file in the form field "{name}" (curl -F {name}=@photo.jpg), or the photo'
            f" itself as the body (curl -T photo.jpg), or JSON {self.json}."
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """The images and parameters of a body."""

    images: list[Image]
    shape: Shape = "one"  # in which the client sent the images, and gets the answers
    filenames: Sequence[str | None] = ()  # of a form's images
    given: Sequence[tuple[str, Any]] = ()  # parameters and their values
    targets: Sequence[Any] = ()  # of JSON's instances, the classes to explain; None: the best one


def choose_parts(form: Sequence[Part], max_images: int, fields: Fields) -> Chosen:
    """Choose the images and parameters among the parts of a form, by :data:`RANKS`.

    Raises:
        BadRequest: no part is an image; the message lists the parts.
        TooLarge: more than ``max_images`` parts are images.
    """
    given = [
        (part.name, part.value[:MAX_CAPTION].decode(errors="replace").strip())
        for part in form
        if part.name in fields.parameters and part.value
    ]
    others = [part for part in form if part.name not in fields.parameters]
    found = [(kind_of(part), part) for part in _open_all(others)]
    if any(begins_like_an_image(part.value) for _, part in found):
        found = [("metadata" if _is_caption(kind, part) else kind, part) for kind, part in found]
    shared = {_plain(part.name) for kind, part in found if kind == "image"}
    ranks = [_rank(kind, _plain(part.name), fields.names, shared) for kind, part in found]
    best = min((rank for rank in ranks if rank), default=None)
    if best is None:
        listed = _listed(found or [("parameter", part) for part in form])
        raise BadRequest(f"The request has no image: {listed}.{fields.advice}")
    parts = [part for rank, (_, part) in zip(ranks, found, strict=True) if rank == best]
    check_count(len(parts), max_images)
    shape: Shape = "list" if len(parts) > 1 else "one"
    return Chosen([_image(part) for part in parts], shape, [p.filename for p in parts], given)


def kind_of(part: Part) -> str:
    """Return a part's kind, by :data:`KINDS`."""
    return next(kind for kind, fits in KINDS if fits(part))


def _rank(kind: str, name: str, expected: Sequence[str], shared: set[str]) -> int | None:
    place = "expected" if name in expected else "shared" if name in shared else "other"
    return RANKS[kind].get(place)


def _plain(name: str) -> str:
    """Return ``file`` for ``file[]`` and ``file[0]``."""
    return re.sub(r"\[\w*\]$", "", name[:100]) if name.endswith("]") else name


def _is_file(part: Part) -> bool:
    declared = bool(part.filename) or part.kind == "application/octet-stream"
    return declared or begins_like_an_image(part.value)  # of a format that is not read


def _is_caption(kind: str, part: Part) -> bool:
    return kind == "text" and len(part.value) <= MAX_CAPTION


def _is_image(data: bytes) -> bool:
    return can_decode(data) or holds_an_image(data)


def _open_all(parts: Sequence[Part]) -> Iterator[Part]:
    """Open the parts that are JSON objects, until they have more signs than metadata."""
    signs, looked = 0, iter(range(MAX_TEXTS))
    for part in parts:
        if part.value[:1] == b"{" and len(part.value) >= 50:
            signs += count(part.value, SIGNS)
            yield _open(part, looked) if signs <= FREE_SIGNS else part
        else:
            yield part


def _open(part: Part, looked: Iterator[int]) -> Part:
    """Return a JSON object; if it has an image, with the image as its value."""
    try:
        (image,) = _images_in(parse_json(part.value), looked)
    except (RequestError, ValueError):  # metadata
        return part
    return part._replace(value=image.encode()) if holds_an_image(image) else part


def _image(part: Part) -> Image:
    if begins_like_an_image(part.value):
        return part.value
    is_text = part.filename is None and kind_of(part) not in ("image", "file")
    return from_base64(part.value) if is_text or holds_an_image(part.value) else part.value


def _listed(found: Sequence[tuple[str, Part]]) -> str:
    if not found:
        return "the form has no field, or its boundary is missing"
    fields = dict.fromkeys(f"{part.name[:30]!r} ({kind})" for kind, part in found)
    return f"the form has {', '.join([*fields][:5])}" + (", …" if len(fields) > 5 else "")


def choose_json(content: Any, max_images: int, fields: Fields) -> Chosen:
    """Choose the images and parameters in parsed JSON.

    Raises:
        BadRequest: there is no image, or it is not clear which value is the image.
        TooLarge: a list has more than ``max_images`` elements.
    """
    members = content if isinstance(content, dict) else {}
    given = [*members.items(), *parameters_of(members).items()]
    given = known_among(given, fields.parameters)
    if {"image", "images"} <= members.keys():
        raise BadRequest('The JSON has both "image" and "images"; send one of them.')
    lists = {key: value for key, value in members.items() if isinstance(value, list)}
    keys = [key for key in LISTS if key in lists]
    looked = iter(range(MAX_TEXTS))
    firsts = {key: value[:1] for key, value in lists.items() if key in INSTANCE_KEYS}
    keys += [key for key, first in firsts.items() if any(_images_in(first, looked, 1, named=False))]
    if keys or isinstance(content, list):
        instances = members[keys[0]] if keys else content
        shape: Shape = "instances" if keys[:1] == ["instances"] else "list"
        if instances:
            decoded = from_instances(instances, max_images)
            return Chosen(decoded, shape, (), given, targets_in(instances))
    elif images := list(_images_in(content, looked)):
        check_count(len(images), max_images)
        shape = "list" if len(images) > 1 else "one"
        decoded = [from_base64(one) for one in images]
        return Chosen(decoded, shape, (), given, targets_in([content]))
    raise BadRequest(
        f"The JSON has no image. Send {fields.json}, or a list with at least one"
        f' image as "images" or "instances". An object may name its image {NAMES}.'
    )


def from_instances(instances: Any, max_images: int) -> list[Image]:
    """Return the images of a JSON list. An invalid image is replaced by an error.

    Each instance is base64, or an object with base64 under one of :data:`INSTANCE_KEYS` or under
    another name. Raises BadRequest if ``instances`` is not a list or is empty, and TooLarge if the
    list is too long.
    """
    if not isinstance(instances, list) or not instances:
        raise BadRequest("The images must be a list with at least one image.")
    check_count(len(instances), max_images)
    looked = iter(range(MAX_TEXTS))
    return [_from_instance(instance, looked) for instance in instances]


def targets_in(instances: Sequence[Any]) -> list[Any]:
    """Return the ``target`` of each instance. A list or object, which may be large, is emptied."""
    given = [one.get("target") if isinstance(one, dict) else None for one in instances]
    return [type(one)() if isinstance(one, list | dict) else one for one in given]


def _from_instance(instance: object, looked: Iterator[int]) -> Image:
    try:
        (image,) = _images_in(instance, looked) if isinstance(instance, dict) else [instance]
    except (BadRequest, ValueError):  # none or several
        return BadRequest(NOT_ONE)
    return from_base64(image)


def _images_in(
    value: Any, looked: Iterator[int], depth: int = 0, named: bool = True
) -> Iterator[Any]:
    """Yield the value if it is ``named`` as an image or is one, or those in an object or a list.

    Each text that is looked at takes a number from ``looked``; without one, none is an image.

    Raises:
        BadRequest: several of :data:`INSTANCE_KEYS` are present, and not exactly one is an image.
    """

    def is_image(text: Any) -> bool:
        return isinstance(text, str) and next(looked, None) is not None and holds_an_image(text)

    if not isinstance(value, dict | list):
        if named or is_image(value):
            yield value
        return
    usual = [value[key] for key in INSTANCE_KEYS if isinstance(value, dict) and key in value]
    if len(usual) > 1:  # one may be a description
        usual = [member for member in usual if is_image(member)]
        if named and len(usual) != 1:
            raise BadRequest(NOT_ONE)
    if depth < MAX_DEPTH:
        for member in usual or (value.values() if isinstance(value, dict) else value):
            if usual or isinstance(member, MAY_HOLD_AN_IMAGE):
                yield from _images_in(member, looked, depth + 1, named and bool(usual))


def check_count(count: int, max_images: int) -> None:
    """Raise TooLarge if there are too many images, before each invalid image costs a message."""
    if count > max_images:
        raise TooLarge(f"The request has {count:,} images; the limit is {max_images:,}.")
