"""KServe's InferenceRESTClient, in both protocols."""

import numpy as np
import pytest

from clients.answers import CATS, ESPRESSO, MODEL, approximately, best_five, run


@pytest.fixture(scope="module")
def kserve(server, photos):
    """All answers that KServe's client got. It runs once, because importing it takes a second."""
    return run("kserve_rest", server.url, MODEL, *photos)


def test_kserve_client_finds_server_and_model_ready(kserve):
    ready = ("live", "ready", "model_ready")
    assert [kserve["v2"][name] for name in ready] == [True] * 3
    assert kserve["v2"]["unknown_model_ready"] is False
    assert kserve["v1"]["model_ready"] is True
    assert "no-such-model" in kserve["v1"]["unknown_model_ready"].partition("for url")[0]


def test_kserve_v1_client_finds_the_server_alive(kserve):
    assert kserve["v1"]["live"] is True


def test_kserve_v1_client_predicts(kserve, predicted):
    answers = kserve["v1"]["predict"]["predictions"]
    assert [answer["class_name"] for answer in answers] == [p[0]["class_name"] for p in predicted]
    for answer, predictions in zip(answers, predicted, strict=True):
        assert {
            one["class_index"]: one["probability"] for one in answer["predictions"]
        } == approximately(predictions)


def test_kserve_v1_client_explains(kserve, predicted):
    assert kserve["v1"]["explain"]["predictions"] == []
    (explanation,) = kserve["v1"]["explain"]["explanations"]
    assert explanation["class_index"] == ESPRESSO
    assert explanation["probability"] == pytest.approx(predicted[0][0]["probability"], abs=1e-3)
    assert max(map(max, explanation["heat"])) == 1


@pytest.mark.parametrize("how", ["json", "binary"])
def test_kserve_v2_client_infers(kserve, predicted, how):
    answer = kserve["v2"][how]
    (output,) = answer["outputs"]
    assert (output["datatype"], output["shape"]) == ("FP32", [2, 1000])
    rows = np.reshape(output["data"], output["shape"])
    assert [best_five(row) for row in rows] == list(map(approximately, predicted))


def test_kserve_v2_client_gets_its_request_id_back(kserve):
    assert kserve["v2"]["json"]["id"] == "42"


def test_kserve_v2_client_gets_classes(kserve, predicted):
    (output,) = kserve["v2"]["classes"]["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    named = [text.split(":")[2] for text in output["data"]]
    assert named == [one["class_name"] for predictions in predicted for one in predictions[:2]]


def test_kserve_v2_client_can_send_pixels(kserve):
    (output,) = kserve["v2"]["pixels"]["outputs"]
    espresso, cat = np.argmax(np.reshape(output["data"], output["shape"]), axis=1)
    assert espresso == ESPRESSO
    assert cat in CATS


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_kserve_client_shows_the_error_text(kserve, protocol):
    refused, unknown = kserve[protocol]["no_photo"], kserve[protocol]["unknown_model"]
    assert "not an image" in refused
    assert "'415 " in refused
    assert "no-such-model" in unknown.partition("for url")[0]
    assert "'404 " in unknown


def test_kserve_v2_client_gets_a_compressed_response(kserve):
    assert kserve["v2"]["headers"]["content-encoding"] == "gzip"


def test_responses_match_kserve_data_models(kserve):
    assert kserve["faults"]
    assert [fault for fault in kserve["faults"].values() if fault] == []
