"""Models whose input is not a square of RGB: tensors, descriptions and heat maps."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from pictures import encode, picture
from predictor.images.preprocessing import Interpolation, Preprocessing
from toy import ToyModel

SHAPES = {"L": 1, "BGR": 3, "RGBA": 4}


class Echo(ToyModel):
    """Its logits are the mean of each channel, padded with zeros to three classes."""

    def __init__(self, channels="RGB", size=(6, 10), resize="squash", scale="0..1"):
        super().__init__()
        count = len(channels)
        self.preprocessing = Preprocessing(
            size, resize, Interpolation.BILINEAR, (0.25,) * count, (0.5,) * count, channels, scale
        )

    def logits(self, images, lanes):
        means = np.stack(images).mean((1, 2)).astype(np.float32)
        return np.pad(means, ((0, 0), (0, 3)))[:, :3]

    def explain(self, image, class_index, pause):
        """The heat is one cell per pixel: how red it is."""
        return self.logits([image], 1)[0], image[..., 0].astype(np.float32) / 255


def infer(client, tensor, datatype):
    sent = {
        "name": "image", "datatype": datatype, "shape": list(tensor.shape),
        "data": tensor.ravel().tolist(),
    }  # fmt: skip
    return client.post("/v2/models/toy/infer", json={"inputs": [sent]})


@pytest.mark.parametrize("scale", ["0..1", "-1..1", "0..255"])
@pytest.mark.parametrize("channels", SHAPES)
def test_tensor_has_the_models_channels_and_size(make_client, channels, scale):
    client = make_client(Echo(channels, scale=scale))
    count = SHAPES[channels]
    levels = np.array([10, 20, 30, 40], np.float32)[:count]
    pixels = np.broadcast_to(levels[:, None, None], (count, 6, 10))[None]
    expected = np.pad(levels, (0, 3))[:3].tolist()
    scaled = {"0..1": pixels / 255, "-1..1": pixels / 127.5 - 1, "0..255": pixels}[scale]
    for tensor, datatype in ((pixels.astype(np.uint8), "UINT8"), ((scaled - 0.25) / 0.5, "FP32")):
        answer = infer(client, tensor, datatype).json["outputs"][0]["data"]
        assert answer == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("channels", SHAPES)
def test_tensor_of_another_shape_names_the_right_one(make_client, channels):
    client = make_client(Echo(channels))
    response = infer(client, np.zeros((1, SHAPES[channels], 10, 6)), "FP32")
    assert response.status_code == 400
    assert f"must be [N, {SHAPES[channels]}, 6, 10]." in response.json["error"]


def test_tensor_config_says_all_of_the_normalisation(make_client):
    config = make_client(Echo("BGR", scale="0..255")).get("/v2/models/toy-tensor/config").json
    assert config["input"][0]["dims"] == [3, 6, 10]
    said = {key: value["string_value"] for key, value in config["parameters"].items()}
    assert said == {
        "mean": "0.25,0.25,0.25", "std": "0.5,0.5,0.5", "channels": "BGR", "scale": "0..255",
        "activation": "softmax",
    }  # fmt: skip


def test_openapi_describes_the_models_tensor(make_client):
    document = make_client(Echo("RGBA")).get("/openapi.json").json
    shape = document["components"]["schemas"]["PixelsTensor"]["properties"]["shape"]
    assert shape["prefixItems"][1:] == [{"enum": [4]}, {"enum": [6]}, {"enum": [10]}]


def test_photo_is_answered_by_a_model_of_alpha(make_client):
    client = make_client(Echo("RGBA"))
    photo = Image.new("RGBA", (20, 12), (200, 100, 40, 0))
    data = encode(photo)
    sent = {"name": "image", "datatype": "BYTES", "shape": [1]}
    body = json.dumps({"inputs": [sent | {"parameters": {"binary_data_size": len(data) + 4}}]})
    response = client.post(
        "/v2/models/toy/infer",
        data=body.encode() + len(data).to_bytes(4, "little") + data,
        headers={"Inference-Header-Content-Length": str(len(body))},
    )
    # Pillow resizes with premultiplied alpha, so the colour of a transparent pixel is lost.
    assert response.json["outputs"][0]["data"] == [0, 0, 0]
    opaque = client.post("/predict?top_k=3", data=encode(photo.convert("RGB"))).json
    assert [one["class_index"] for one in opaque["predictions"]] == [0, 1, 2]


def test_transparent_photo_is_explained_on_white(make_client):
    client = make_client(Echo("RGBA"))
    data = encode(Image.new("RGBA", (20, 12), (0, 100, 40, 0)))
    painted = Image.open(io.BytesIO(client.post("/explain", data=data).data))
    assert (painted.mode, painted.getpixel((0, 0))) == ("RGB", (255, 255, 255))


LEFT_RED = Image.new("RGB", (120, 60), "blue")
LEFT_RED.paste("red", (0, 0, 60, 60))
TALL_RED = LEFT_RED.transpose(Image.Transpose.ROTATE_270)  # its upper half is red


@pytest.mark.parametrize("photo", [LEFT_RED, TALL_RED])
@pytest.mark.parametrize("size", [(8, 8), (6, 10), (10, 6), (4, 24)])
@pytest.mark.parametrize("resize", ["squash", "pad", 12, 4])
def test_heat_lies_where_it_belongs(make_client, size, resize, photo):
    client = make_client(Echo(size=size, resize=resize))
    picture = client.post("/explain", data=encode(photo)).data
    painted = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), int)
    assert painted.shape == photo.size[::-1]
    plain = np.asarray(photo.convert("L"), int)
    right = (painted > plain + 60) == (np.asarray(photo)[..., 0] > 0)
    answer = client.post("/explain?format=json", data=encode(photo)).json
    left, top, right_, bottom = (max(0, min(1, side)) for side in answer["box"])
    seen = right[
        round(top * photo.height) : round(bottom * photo.height),
        round(left * photo.width) : round(right_ * photo.width),
    ]
    assert seen.mean() > 0.7  # the map is coarse
    assert np.array(answer["heat"]).shape == size


def test_heat_of_a_long_photo_on_a_long_padding_is_painted_quickly(make_client):
    """The box has 25,600 × 1,024 of the picture's pixels, of which 1,024 × 1,024 are the photo."""
    client = make_client(Echo(size=(4, 100), resize="pad"))
    response = client.post("/explain", data=picture(size=(1024, 1024)))
    assert Image.open(io.BytesIO(response.data)).size == (1024, 1024)
