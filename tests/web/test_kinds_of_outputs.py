"""One logit, several labels and probabilities, through every protocol.

Red, green and blue photos have the logits 6, -2 and -2 in the order of their channels.
"""

import io
import math
import re

import pytest
from PIL import Image

from conftest import app_of
from own_networks import Colours, IsRed, Red, serve
from pictures import encode, picture
from predictor.engine.classifier import Classifier
from predictor.models.labels import Label
from predictor.settings import Settings
from web.protocols.v2 import BLUE, RED, b64, image

SIGMOID = {"output": {"activation": "sigmoid"}}
HIGH, LOW = 1 / (1 + math.exp(-6)), 1 / (1 + math.exp(2))
PAIR = (Label("0", "other"), Label("1", "red"))


@pytest.fixture
def client_of():
    classifiers = []

    def make(*arguments, **content):
        loaded = serve(*arguments, **content)
        classifiers.append(Classifier(Settings(), load=lambda *_: loaded))
        classifiers[-1].start()
        classifiers[-1].loading.result(60)
        return app_of(classifiers[-1]).test_client()

    yield make
    for classifier in classifiers:
        classifier.close()


@pytest.fixture
def one_logit(client_of):
    return client_of(Red(), PAIR)


@pytest.fixture
def several(client_of):
    return client_of(Colours(), None, **SIGMOID)


def predictions(response):
    return {
        p["class_name"]: pytest.approx(p["probability"], abs=1e-6)
        for p in response.json["predictions"]
    }


@pytest.mark.parametrize(
    ("colour", "name", "probability"), [("red", "red", HIGH), ("blue", "other", 1 - LOW)]
)
@pytest.mark.parametrize("network", [Red, IsRed])
def test_one_output_tells_two_classes_apart(client_of, network, colour, name, probability):
    kind = "sigmoid" if network is Red else "probabilities"
    client = client_of(network(), PAIR, output={"activation": kind})
    answer = client.post("/predict?top_k=5", data=picture(colour))
    assert answer.json["class_name"] == name
    others = {"red", "other"} - {name}
    assert predictions(answer) == {name: probability, others.pop(): 1 - probability}
    assert "predictions" not in client.post("/predict", data=picture(colour)).json


def test_one_logit_without_labels_is_class_0_or_class_1(client_of):
    client = client_of(Red())
    for colour, expected in (("red", ("1", "class 1")), ("green", ("0", "class 0"))):
        answer = client.post("/predict", data=picture(colour)).json
        assert (answer["class_id"], answer["class_name"]) == expected


def test_one_logit_stays_one_number_in_the_open_inference_protocol(one_logit):
    metadata = one_logit.get("/v2/models/net").json
    assert metadata["outputs"][0]["shape"] == [-1, 1]
    config = one_logit.get("/v2/models/net-tensor/config").json
    assert config["output"][0]["dims"] == [1]
    assert config["parameters"]["activation"] == {"string_value": "sigmoid"}
    response = one_logit.post("/v2/models/net/infer", data=RED)
    (output,) = response.json["outputs"]
    assert output["shape"] == [1, 1]
    assert output["data"] == pytest.approx([6])


def test_heat_of_class_0_is_the_evidence_against_the_one_logit(one_logit):
    for index, heat in ((1, 1.0), (0, 0.0)):
        url = f"/explain?format=json&class_index={index}"
        answer = one_logit.post(url, data=RED).json
        assert answer["class_name"] == PAIR[index].class_name
        assert {value for row in answer["heat"] for value in row} == {heat}
    best = one_logit.post("/explain?format=json", data=BLUE).json
    assert best["class_name"] == "other"


def test_several_labels_are_all_from_the_threshold_on(several):
    answer = several.post("/predict", data=RED)
    assert answer.json["class_name"] == "class 0"
    assert predictions(answer) == {"class 0": HIGH}
    yellow = several.post("/predict", data=encode(Image.new("RGB", (9, 9), (255, 255, 0))))
    assert predictions(yellow) == {"class 0": HIGH, "class 1": HIGH}


def test_labels_below_the_threshold_leave_the_best_class_only(client_of):
    output = {"activation": "sigmoid", "threshold": 0.9999}
    answer = client_of(Colours(), None, output=output).post("/predict", data=RED).json
    assert (answer["class_name"], answer["predictions"]) == ("class 0", [])


def test_a_low_threshold_answers_all_labels(client_of):
    output = {"activation": "sigmoid", "threshold": 0.1}
    client = client_of(Colours(), None, output=output)
    everything = {"class 0": HIGH, "class 1": LOW, "class 2": LOW}
    assert predictions(client.post("/predict", data=RED)) == everything
    body = {"instances": [{"b64": b64(RED)}]}
    (answer,) = client.post("/v1/models/net:predict", json=body).json["predictions"]
    assert [one["class_name"] for one in answer["predictions"]] == [*everything]
    assert client.post("/predictions/net", data=RED).json == pytest.approx(everything)


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
def test_top_k_of_several_labels_is_exact(several, top_k):
    answer = several.post(f"/predict?top_k={top_k}", data=RED).json
    assert len(answer["predictions"]) == min(3, top_k)
    served = several.post(f"/predictions/net?top_k={top_k}", data=RED).json
    assert len(served) == min(3, top_k)


def test_torchserve_answers_at_least_the_best_of_several_labels(several):
    assert several.post("/predictions/net", data=RED).json == pytest.approx({"class 0": HIGH})


def test_several_photos_have_their_own_labels(several):
    files = {"file": [(io.BytesIO(RED), "a.png"), (io.BytesIO(BLUE), "b.png")]}
    results = several.post("/predict", data=files).json["results"]
    assert [[p["class_index"] for p in one["predictions"]] for one in results] == [[0], [2]]


def test_the_page_has_its_own_percentage_for_each_label(several):
    page = several.post("/", data={"file": (io.BytesIO(RED), "a.png")})
    shares = re.findall(r'class="share">([\d.]+) %<', page.text)
    assert shares == [f"{100 * p:.1f}" for p in (HIGH, LOW, LOW)]


def test_a_classification_of_one_logit_has_probabilities(one_logit, several):
    outputs = [{"name": "logits", "parameters": {"classification": 2}}]
    for client, expected in (
        (one_logit, [f"{HIGH:.6f}:1:red", f"{1 - HIGH:.6f}:0:other"]),
        (several, ["6.000000:0:class 0", "-2.000000:1:class 1"]),
    ):
        body = {"inputs": [image([b64(RED)])], "outputs": outputs}
        (output,) = client.post("/v2/models/net/infer", json=body).json["outputs"]
        assert output["data"] == expected
