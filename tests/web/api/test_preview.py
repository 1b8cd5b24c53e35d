import io

import numpy as np
import pytest
from PIL import Image

from conftest import store_of
from pictures import COLOURS, encode, picture
from predictor.images.preprocessing import Interpolation, Preprocessing
from scrape import Scrape
from toy import ToyModel


def described(size, resize, channels="RGB"):
    """A toy model with another input."""
    model, count = ToyModel(), len(channels)
    model.preprocessing = Preprocessing(
        size, resize, Interpolation.BILINEAR, (0,) * count, (1,) * count, channels
    )
    return model


def seen(response):
    assert (response.status_code, response.mimetype) == (200, "image/png")
    return Image.open(io.BytesIO(response.data))


def test_preview_is_the_picture_that_the_model_is_given(client):
    photo = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 50).convert("RGB")
    shown = seen(client.post("/preview", data=encode(photo)))
    assert np.array_equal(np.asarray(shown), ToyModel.preprocessing(photo))


def test_preview_is_encoded_while_it_has_its_turn(client, monkeypatch):
    """Clients that ask for many would keep the event loop from the processors otherwise."""
    turns, free = store_of(client.application).process.decoders.turns, []
    photo, save = picture(), Image.Image.save
    monkeypatch.setattr(
        Image.Image,
        "save",
        lambda *args, **options: free.append(turns._free) or save(*args, **options),
    )
    seen(client.post("/preview", data=photo))
    assert free == [turns._decoders - 1]


@pytest.mark.parametrize("channels", ["RGB", "BGR", "RGBA"])
def test_preview_has_the_photos_colours_whatever_the_channels(make_client, channels):
    client = make_client(described((6, 8), "squash", channels))
    shown = seen(client.post("/preview", data=picture("blue")))
    assert (shown.mode, shown.size, shown.getpixel((0, 0))) == ("RGB", (8, 6), COLOURS["blue"])


def test_preview_of_a_model_of_grey_is_grey(make_client):
    client = make_client(described((6, 8), "squash", "L"))
    shown = seen(client.post("/preview", data=picture("blue")))
    assert (shown.mode, shown.getpixel((0, 0))) == ("RGB", (29, 29, 29))


def test_preview_accepts_forms_and_put(client):
    form = {"file": (io.BytesIO(picture()), "photo.png")}
    assert client.post("/preview", data=form).status_code == 200
    assert client.put("/preview/", data=picture()).status_code == 200
    assert client.put("/preview/photo.jpg", data=picture()).status_code == 200


@pytest.mark.parametrize(
    ("data", "status", "code", "words"),
    [
        (b"", 400, "bad-request", "no image"),
        (b"text", 415, "unsupported-image", "not an image"),
        (picture()[:40], 422, "damaged-image", "damaged"),
        (picture(size=(9, 8)), 422, "wrong-size", "9 × 8 pixels; the model takes 8 × 8 only"),
    ],
)
def test_bad_preview_request_gets_a_helpful_error(make_client, data, status, code, words):
    response = make_client(described((8, 8), "none")).post("/preview", data=data)
    assert (response.status_code, response.json["code"]) == (status, code)
    assert words in response.json["detail"]


def test_preview_is_not_counted_as_a_prediction(client):
    for data in (picture(), b"text", picture()[:40]):
        response = client.post("/preview", data=data)
    assert "preview;dur=" in response.headers["Server-Timing"]
    numbers = Scrape(client.get("/metrics").text)
    assert numbers.sum("predictor_requests_total") == 3
    assert numbers.sum("predictor_prediction_seconds_count") == 0
    assert numbers.sum("ts_inference_requests_total") == 0
    assert numbers["predictor_last_prediction_timestamp_seconds"] == 0
    assert client.get("/v2/models/toy/stats").json["model_stats"][0]["last_inference"] == 0


def test_several_photos_are_413(client):
    form = {"file": [(io.BytesIO(picture()), f"{name}.png") for name in "ab"]}
    assert client.post("/preview", data=form).status_code == 413


def test_preview_needs_a_token_a_slot_and_a_loaded_model(make_client, make_app, loading_client):
    assert make_client(tokens=("secret-secret-secret",)).post("/preview").status_code == 401
    app = make_app(max_in_flight=1)
    with store_of(app).process.slots.hold():
        assert app.test_client().post("/preview", data=picture()).status_code == 503
    assert loading_client.post("/preview", data=picture()).json["code"] == "not-ready"
