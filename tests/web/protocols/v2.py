"""Requests of the Open Inference Protocol, and what is in the answers."""

import base64
import json
import struct

import numpy as np

from pictures import picture

HEADER = "Inference-Header-Content-Length"
RED, BLUE = picture("red"), picture("blue")


def b64(data):
    return base64.b64encode(data).decode()


def image(data, datatype="BYTES", shape=None, **parameters):
    """The one input: base64, or numbers."""
    shape = [len(data)] if shape is None else shape
    return {"name": "image", "datatype": datatype, "shape": shape, "data": data} | parameters


def plane(channel, value=255):
    """A picture of one colour, as a tensor ``(1, 3, 8, 8)``."""
    pixels = np.zeros((1, 3, 8, 8), np.uint8)
    pixels[0, channel] = value
    return pixels


def binary(header, data):
    head = json.dumps(header).encode()
    return {"data": head + data, "headers": {HEADER: str(len(head))}}


def element(data):
    return struct.pack("<I", len(data)) + data


def logits(response):
    assert response.status_code == 200, response.text
    (output,) = response.json["outputs"]
    assert (output["name"], output["datatype"]) == ("logits", "FP32")
    return np.reshape(output["data"], output["shape"])


def refused(response, status=400):
    assert response.status_code == status
    assert response.mimetype == "application/json"
    assert list(response.json) == ["error"]
    return response.json["error"]
