"""NVIDIA's tritonclient, and a program like its image_client.py."""

import json
from contextlib import closing

import numpy as np
import pytest
import requests

from clients.answers import CATS, ESPRESSO, MODEL, approximately, best_five, run
from running_server import Server

TENSOR = f"{MODEL}-tensor"


def outputs(answers):
    """Return the rows of all answers, one for each photo."""
    return [row for answer in answers for row in answer["outputs"][0]["data"]]


INFERENCES = [
    "",
    "--output json",
    "--json-input --output binary",
    "--json-input --output json",
    "--column --version 1",
    "--datatype UINT8",
    "--datatype UINT8 --json-input",
    "--datatype FP32",
    "--datatype FP32 --json-input --output json",
    "--send gzip --receive gzip",
    "--send deflate --receive deflate",
    "--send gzip --receive deflate --json-input --output json",
    "--by async_infer",
    "--by async_infer --send deflate --receive gzip",
    "--by aio",
    "--by aio --output json",
    "--by aio --datatype FP32 --send gzip --receive deflate",
]


@pytest.mark.parametrize("options", INFERENCES, ids=lambda options: options or "defaults")
def test_triton_client_gets_the_logits_of_our_predictions(server, photos, predicted, options):
    answers = run("triton_infer", server.url, MODEL, *options.split(), *photos)
    assert [answer["outputs"][0]["datatype"] for answer in answers] == ["FP32"] * len(answers)
    assert [best_five(row) for row in outputs(answers)] == list(map(approximately, predicted))


@pytest.mark.parametrize("datatype", ["BYTES", "UINT8", "FP32"])
def test_both_model_names_accept_photos_and_tensors(server, photos, predicted, datatype):
    answers = run("triton_infer", server.url, TENSOR, "--datatype", datatype, *photos)
    assert answers[0]["model_name"] == TENSOR
    assert [best_five(row) for row in outputs(answers)] == list(map(approximately, predicted))


@pytest.mark.parametrize("options", ["", "--output json", "--by aio", "--by async_infer"])
def test_triton_client_gets_classes_on_request(server, photos, predicted, options):
    answers = run("triton_infer", server.url, MODEL, "--classes", "3", *options.split(), *photos)
    for row, predictions in zip(outputs(answers), predicted, strict=True):
        values, indices, labels = zip(*(text.split(":") for text in row), strict=True)
        assert [int(index) for index in indices] == [p["class_index"] for p in predictions[:3]]
        assert list(labels) == [p["class_name"] for p in predictions[:3]]
        odds = np.exp(float(values[1]) - float(values[0]))
        assert odds == pytest.approx(
            predictions[1]["probability"] / predictions[0]["probability"], rel=1e-3
        )


def test_triton_client_gets_its_request_id_back(server, photos):
    (answer,) = run("triton_infer", server.url, MODEL, "--id", "42", *photos)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("42", MODEL, "1")


def test_triton_raw_binary_request_is_one_photo(server, photos, predicted):
    """The request has no JSON; the response has a tensor after its JSON."""
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
    url = f"{server.url}/v2/models/{MODEL}/infer"
    answer = requests.post(url, photos[0].read_bytes(), headers=headers, timeout=60)
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(answer.content[:length])["outputs"][0]["shape"] == [1, 1000]
    logits = np.frombuffer(answer.content[length:], "<f4")
    assert best_five(logits) == approximately(predicted[0])


@pytest.mark.parametrize(
    ("model", "options", "status", "words"),
    [
        ("no-such-model", "", "404", "no-such-model"),
        (MODEL, "--version 7", "404", "7"),
        (MODEL, "--name probabilities", "400", "logits"),
        (MODEL, "--datatype FP64", "400", "FP64"),
        (MODEL, "--datatype FP32 --side 200", "400", "200"),
        (MODEL, "--send gzip --receive gzip --datatype UINT8 --side 225", "400", "225"),
        (MODEL, "--by aio --version 7 --receive gzip", "404", "7"),
    ],
)
def test_triton_client_shows_the_error_text(server, photos, model, options, status, words):
    refusal = run("triton_infer", server.url, model, "--output", "json", *options.split(), *photos)
    assert refusal["status"] == status
    assert words in refusal["message"]
    assert (
        "exception occurred" not in refusal["message"]
    )  # its text for an error that it cannot parse


@pytest.mark.parametrize("options", ["", "--by aio", "--json-input", "--send gzip --receive gzip"])
def test_triton_client_shows_what_is_wrong_with_a_photo(server, photos, tmp_path, options):
    text, half = tmp_path / "text.jpg", tmp_path / "half.png"
    text.write_text("no photo")
    half.write_bytes(photos[0].read_bytes()[:10_000])
    refusal = run("triton_infer", server.url, MODEL, *options.split(), text)
    assert refusal == {"status": "415", "message": refusal["message"]}
    assert "not an image" in refusal["message"]
    assert run("triton_infer", server.url, MODEL, *options.split(), half)["status"] == "422"


def test_triton_client_reuses_the_connection_after_a_refusal(server, photos):
    """The request is refused before its photo is read, and the next request is still read."""
    (answer,) = run("triton_infer", server.url, MODEL, "--refused", "--classes", "1", photos[0])
    assert answer["outputs"][0]["data"][0][0].endswith(":espresso")


def test_triton_client_sees_a_loading_server():
    with closing(Server(model=MODEL)) as loading:
        status = run("triton_status", loading.url, MODEL)  # loading takes seconds
    assert (status["live"], status["ready"], status["model_ready"]) == (True, False, False)
    assert status["metadata"]["status"] == "503"
    assert "loading" in status["metadata"]["message"]


@pytest.fixture(scope="module")
def status(server, photos):
    """Answers of all status methods, and the statistics after two photos were classified."""
    before = run("triton_status", server.url, MODEL)
    run("triton_infer", server.url, MODEL, *photos)
    after = run("triton_status", server.url, MODEL)
    return before | {"statistics_after": after["statistics"]}


def test_triton_client_finds_server_and_model_ready(status):
    ready = ("live", "ready", "model_ready", "version_ready")
    assert [status[name] for name in ready] == [True] * 4
    assert not status["unknown_model_ready"]
    assert not status["unknown_version_ready"]


def test_triton_client_reads_inputs_and_outputs(status):
    assert status["server"].keys() >= {"name", "version", "extensions"}
    metadata, tensor = status["metadata"], status["tensor_metadata"]
    assert (metadata["name"], metadata["versions"]) == (MODEL, ["1"])
    assert metadata["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 1000]}]
    assert tensor["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 224, 224]}]
    assert status["version_metadata"] == metadata


def test_triton_client_reads_the_model_configuration(status):
    (photo,), (tensor,) = status["config"]["input"], status["tensor_config"]["input"]
    assert (photo["data_type"], status["config"]["max_batch_size"]) == ("TYPE_STRING", 0)
    assert (tensor["data_type"], tensor["format"]) == ("TYPE_FP32", "FORMAT_NCHW")
    assert (tensor["dims"], status["tensor_config"]["max_batch_size"]) == ([3, 224, 224], 34)


def test_triton_client_lists_the_models(status):
    listed = [(m["name"], m["version"], m["state"]) for m in status["repository"]]
    assert sorted(listed) == [(MODEL, "1", "READY"), (TENSOR, "1", "READY")]


def test_triton_client_reads_the_statistics(status):
    (before,), (after,) = (
        status[name]["model_stats"] for name in ("statistics", "statistics_after")
    )
    assert (after["name"], after["version"]) == (MODEL, "1")
    assert after["inference_count"] == before["inference_count"] + 2
    assert after["execution_count"] > before["execution_count"]
    inferred, earlier = (one["inference_stats"]["compute_infer"] for one in (after, before))
    assert inferred["ns"] > earlier["ns"]
    assert after["last_inference"] > before["last_inference"]
    assert MODEL in {one["name"] for one in status["all_statistics"]["model_stats"]}


@pytest.mark.parametrize(
    ("asked", "codes"),
    [
        ("unknown_metadata", {"404"}),
        ("unknown_version_metadata", {"404"}),
        ("load", {"404", "405", "501"}),
        ("trace", {"404", "501"}),
    ],
)
def test_triton_client_shows_the_error_for_unknown_paths(status, asked, codes):
    assert status[asked]["status"] in codes
    assert "exception occurred" not in status[asked]["message"]


def test_triton_image_client_prints_the_classes(server, photos):
    espresso, cat = run("image_client", server.url, TENSOR, "3", *photos)
    assert espresso[0][1:] == [str(ESPRESSO), "espresso"]
    assert {int(index) for _, index, _ in cat} <= CATS
    assert float(espresso[0][0]) > float(espresso[1][0]) > float(espresso[2][0])
