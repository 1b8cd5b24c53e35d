"""Requests as clients of TensorFlow Serving send them."""

import json

import pytest
import requests

from clients.answers import MODEL, approximately, curl, in_base64


@pytest.mark.parametrize(
    "body",
    [
        lambda texts: {"instances": [{"b64": text} for text in texts]},
        lambda texts: {"instances": [{"image_bytes": {"b64": text}} for text in texts]},
        lambda texts: {
            "signature_name": "serving_default",
            "instances": [{"b64": text} for text in texts],
        },
        lambda texts: {"inputs": [{"b64": text} for text in texts]},
    ],
    ids=["b64", "by the input's name", "signature", "inputs"],
)
@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_tensorflow_serving_clients_predict(server, photos, predicted, body, version):
    url = f"{server.url}/v1/models/{MODEL}{version}:predict"
    text = json.dumps(body([in_base64(photo) for photo in photos]))
    answer = requests.post(
        url, data=text, timeout=60
    ).json()  # without a Content-Type, as TensorFlow Serving's client does
    for one, predictions in zip(answer["predictions"], predicted, strict=True):
        top = {p["class_index"]: p["probability"] for p in one["predictions"]}
        assert top == approximately(predictions)


def test_tensorflow_serving_curl_line_predicts(server, photos):
    """curl -d sends JSON as a urlencoded form."""
    file = photos[0].with_suffix(".json")
    file.write_text(json.dumps({"instances": [{"b64": in_base64(photos[0])}]}))
    line = f"curl -d @{file} -X POST http://localhost:8080/v1/models/densenet161:predict"
    (prediction,) = json.loads(curl(line, server, photos))["predictions"]
    assert prediction["class_name"] == "espresso"


def test_tensorflow_serving_clients_read_the_model_state(server):
    answer = requests.get(f"{server.url}/v1/models/{MODEL}", timeout=60).json()
    (version,) = answer["model_version_status"]
    assert (version["version"], version["state"]) == ("1", "AVAILABLE")
    assert version["status"] == {"error_code": "OK", "error_message": ""}
