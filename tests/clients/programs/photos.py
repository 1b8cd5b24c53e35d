"""What a schema cannot tell schemathesis: how to make a photo, and a tensor that fits its shape."""

import base64
import copy
import io
import math

import schemathesis
from hypothesis import strategies as st
from PIL import Image

HEADER = "Inference-Header-Content-Length"
TENSOR = bytes(4 * 3 * 8 * 8)  # an image for the model that the test serves


def encode(kind, width, height, colour):
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, kind)
    return file.getvalue()


KINDS = st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
SIDES, COLOURS = st.integers(1, 64), st.tuples(*[st.integers(0, 255)] * 3)
PHOTOS = st.builds(encode, KINDS, SIDES, SIDES, COLOURS)
schemathesis.openapi.format("binary", PHOTOS)
schemathesis.openapi.format("byte", PHOTOS.map(lambda photo: base64.b64encode(photo).decode()))
schemathesis.openapi.media_type("image/*", PHOTOS)


@schemathesis.deserializer("image/png")
def read_picture(_context, response):
    Image.open(io.BytesIO(response.content)).load()
    return "a picture"  # its schema has the type string


@schemathesis.hook
def map_case(_context, case):
    """Make the parts of a valid request fit together. Invalid requests stay as they are."""
    if case.path.endswith("/infer") and case.meta.generation.mode.is_positive:
        case.headers.pop(HEADER, None)
        if case.media_type == "application/json":
            case.body = copy.deepcopy(case.body)  # other cases share parts of it
            fit(case.body["inputs"][0])
        else:
            case.headers[HEADER] = "0"
            if case.path_parameters["model"].endswith("-tensor"):
                case.body = TENSOR
    return case


def fit(tensor):
    """Set the shape of a tensor to the number of its photos, or its data to its shape."""
    if tensor["datatype"] == "BYTES":
        tensor["shape"][0] = len(tensor["data"])
    else:
        tensor["shape"][0] = 1
        tensor["data"] = [0] * math.prod(tensor["shape"])
