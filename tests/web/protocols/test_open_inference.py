import gzip
import io
import json
import zlib

import numpy as np
import pytest

from conftest import store_of
from predictor.web.protocols.open_inference import tensors
from toy import ToyInfo
from web.protocols.v2 import BLUE, HEADER, RED, b64, binary, element, image, logits, plane, refused

numbers = tensors._numbers


def test_v2_names_server_and_extensions(client):
    answer = client.get("/v2").json
    assert (answer["name"], list(answer)) == ("predictor", ["name", "version", "extensions"])
    assert {"binary_tensor_data", "classification"} <= set(answer["extensions"])


def test_v2_health_is_live_and_ready(client):
    assert client.get("/v2/health/live?").json == {"live": True}
    assert client.get("/v2/health/ready?").json == {"ready": True}
    assert client.get("/v2/models/toy/ready").json == {"name": "toy", "ready": True}


def test_v2_is_live_but_not_ready_while_loading(loading_client):
    assert loading_client.get("/v2/health/live").status_code == 200
    assert "loading" in refused(loading_client.get("/v2/health/ready"), 503)
    assert "loading" in refused(loading_client.get("/v2/models/vgg16"), 503)
    (loading,) = loading_client.post("/v2/repository/index").json
    assert (loading["name"], loading["state"]) == ("vgg16", "LOADING")
    assert loading_client.post("/v2/repository/index", json={"ready": True}).json == []


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_v2_metadata_has_photos_in_and_logits_out(client, version):
    answer = client.get(f"/v2/models/toy{version}").json
    assert answer["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert answer["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert answer["versions"] == ["1"]


def test_platform_and_backend_are_those_of_the_model(client, monkeypatch):
    monkeypatch.setattr(ToyInfo, "platform", "onnxruntime_onnx")
    monkeypatch.setattr(ToyInfo, "backend", "onnxruntime")
    config = client.get("/v2/models/toy/config").json
    assert (config["platform"], config["backend"]) == ("onnxruntime_onnx", "onnxruntime")
    assert client.get("/v2/models/toy").json["platform"] == "onnxruntime_onnx"


def test_second_name_has_a_tensor_input(client):
    answer = client.get("/v2/models/toy-tensor").json
    assert answer["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    config = client.get("/v2/models/toy-tensor/versions/1/config").json
    assert config["max_batch_size"] == 64
    (tensor,) = config["input"]
    assert (tensor["format"], tensor["dims"]) == ("FORMAT_NCHW", [3, 8, 8])
    assert config["parameters"]["std"] == {"string_value": "1,1,1"}


def test_max_batch_size_fits_into_a_body(make_client):
    client = make_client(max_upload_bytes=1024 + 5 * 4 * 3 * 8 * 8)
    assert client.get("/v2/models/toy-tensor/config").json["max_batch_size"] == 5
    batch = np.zeros((5, 3, 8, 8), np.float32).tobytes()
    only = image(None, "FP32", [5, 3, 8, 8], parameters={"binary_data_size": len(batch)})
    response = client.post("/v2/models/toy/infer", **binary({"inputs": [only]}, batch))
    assert response.status_code == 200


def test_photo_config_has_the_batch_as_a_dimension(client):
    config = client.get("/v2/models/toy/config").json
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (0, [-1])
    assert config["output"][0]["dims"] == [-1, 3]


@pytest.mark.parametrize("body", ["", "{}", '{"ready": true}'])
def test_repository_lists_both_names(client, body):
    models = client.post("/v2/repository/index", data=body).json
    assert [(one["name"], one["state"]) for one in models] == [
        ("toy", "READY"),
        ("toy-tensor", "READY"),
    ]


@pytest.mark.parametrize("path", ["", "/ready", "/config", "/stats", "/infer"])
@pytest.mark.parametrize(
    "model", ["dog", "dog/versions/1", "toy/versions/2", "toy-tensor/versions/7"]
)
def test_unknown_v2_model_or_version_is_404(client, model, path):
    method = "POST" if path == "/infer" else "GET"
    error = refused(client.open(f"/v2/models/{model}{path}", method=method, data="{}"), 404)
    assert "'toy'" in error


@pytest.mark.parametrize(
    "path", ["/v2/nothing", "/v2/models/toy/nothing", "/v2/systemsharedmemory"]
)
def test_unknown_v2_path_is_404_in_its_shape(client, path):
    refused(client.get(path), 404)


def test_wrong_v2_method_is_405_in_its_shape(client):
    response = client.get("/v2/models/toy/infer")
    refused(response, 405)
    assert "POST" in response.headers["Allow"]


def test_statistics_count_requests_and_images(client, infer):
    infer(inputs=[image([b64(RED), b64(BLUE)])])
    infer(inputs=[image([b64(b"text")])])
    (stats,) = client.get("/v2/models/stats").json["model_stats"]
    assert (stats["name"], stats["inference_count"]) == ("toy", 2)
    assert 1 <= stats["execution_count"] <= 2
    assert stats["last_inference"] > 1.7e12  # milliseconds
    counts = stats["inference_stats"]
    assert (counts["success"]["count"], counts["fail"]["count"]) == (1, 1)
    assert counts["success"]["ns"] > counts["compute_infer"]["ns"] > 0
    assert client.get("/v2/models/toy/stats").json["model_stats"][0] == stats


# Photos


def test_base64_photos_in_json_get_logits(infer):
    answer = logits(infer(inputs=[image([b64(RED), b64(BLUE)])]))
    assert answer == pytest.approx(np.array([[10.2, 0, 0], [0, 0, 10.2]]), abs=0.01)


@pytest.mark.parametrize("shape", [[-1], -1, [1], [-1, 1]])
@pytest.mark.parametrize("data", [[b64(BLUE)], b64(BLUE)])
def test_torchserves_own_v2_request_is_answered(infer, shape, data):
    """As in its kubernetes/kserve/kf_request_json/v2/mnist, before and after its correction."""
    given = {"name": "4b7c7d4a-51e4-43c8-af61-04639f6ef4bc", "shape": shape, "datatype": "BYTES"}
    answer = logits(infer(id="d3b15cad", inputs=[given | {"data": data}]))
    assert (answer.shape, answer.argmax()) == ((1, 3), 2)


def test_first_side_of_minus_1_is_what_the_data_have(infer):
    assert logits(infer(inputs=[image([b64(RED), b64(BLUE)], shape=[-1])])).shape == (2, 3)
    data = element(RED) + element(BLUE)
    only = image(None, shape=[-1], parameters={"binary_data_size": len(data)})
    assert logits(infer(**binary({"inputs": [only]}, data))).shape == (2, 3)
    pixels = np.concatenate([plane(0), plane(2)]).ravel().tolist()
    assert logits(infer(inputs=[image(pixels, "UINT8", [-1, 3, 8, 8])])).shape == (2, 3)


def test_v2_accepts_a_form_and_a_photo(client):
    files = {"file": [(io.BytesIO(RED), "a.png"), (io.BytesIO(BLUE), "b.png")]}
    assert logits(client.post("/v2/models/toy/infer", data=files)).argmax(1).tolist() == [0, 2]
    assert logits(client.post("/v2/models/toy/infer", data=BLUE)).argmax() == 2
    response = client.post("/v2/models/toy/infer", data={"file": (io.BytesIO(b"x"), "a.txt")})
    assert "not an image" in refused(response, 415)


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_binary_photo_is_preceded_by_its_length(infer, shape):
    data = element(BLUE)
    only = image(None, shape=shape, parameters={"binary_data_size": len(data)})
    answer = logits(infer(**binary({"inputs": [only]}, data)))
    assert answer.shape == (1, 3)
    assert answer[0].argmax() == 2


def test_integers_may_be_written_as_floats(infer):
    outputs = [{"name": "logits", "parameters": {"classification": 2.0}}]
    answer = infer(inputs=[image([b64(RED)], shape=[1.0])], outputs=outputs).json
    assert answer["outputs"][0]["shape"] == [1, 2]


def test_raw_request_is_one_photo_with_a_binary_answer(infer):
    response = infer(data=BLUE, headers={HEADER: "0"})
    length = int(response.headers[HEADER])
    (output,) = json.loads(response.data[:length])["outputs"]
    assert (output["shape"], output["parameters"]) == ([1, 3], {"binary_data_size": 12})
    assert np.frombuffer(response.data[length:], "<f4").argmax() == 2


def test_unreadable_v2_photo_is_415_or_422(infer):
    assert "not an image" in refused(infer(inputs=[image([b64(b"text")])]), 415)
    error = refused(infer(inputs=[image([b64(RED), b64(RED[:60])])]), 422)
    assert error.startswith("Image 2 of 2: ")


# Tensors


def test_normalised_tensor_reaches_the_model_unchanged(infer):
    tensor = (plane(1).astype(np.float32) / 255).tolist()  # the toy's mean is 0, its deviation 1
    answer = logits(infer(inputs=[image(tensor, "FP32", [1, 3, 8, 8])]))
    assert answer == pytest.approx(np.array([[0, 10.2, 0]]), abs=1e-4)


@pytest.mark.parametrize("model", ["toy", "toy-tensor"])
@pytest.mark.parametrize("datatype", ["FP32", "UINT8"])
def test_binary_and_json_tensors_get_the_same_answer(infer, model, datatype):
    pixels = np.concatenate([plane(0), plane(2, 100)])
    tensor = pixels if datatype == "UINT8" else (pixels / 255).astype("<f4")
    size = {"binary_data_size": tensor.nbytes}
    only = image(None, datatype, [2, 3, 8, 8], parameters=size)
    packed = logits(infer(model, **binary({"inputs": [only]}, tensor.tobytes())))
    flat = image(tensor.ravel().tolist(), datatype, [2, 3, 8, 8])
    assert packed == pytest.approx(logits(infer(model, inputs=[flat])), abs=1e-6)
    assert packed.argmax(1).tolist() == [0, 2]


def test_raw_request_to_the_second_name_is_a_tensor(infer):
    tensor = (np.concatenate([plane(2)] * 3) / 255).astype("<f4")
    response = infer("toy-tensor", data=tensor.tobytes(), headers={HEADER: "0"})
    length = int(response.headers[HEADER])
    assert json.loads(response.data[:length])["outputs"][0]["shape"] == [3, 3]


# Answers


def test_v2_request_id_is_returned_or_made(infer):
    assert infer(id="42", inputs=[image([b64(RED)])]).json["id"] == "42"
    answer = infer(inputs=[image([b64(RED)])])
    assert answer.json["id"] == answer.headers["X-Request-ID"]


def test_classification_returns_logit_index_and_name(infer):
    outputs = [{"name": "logits", "parameters": {"classification": 2}}]
    (output,) = infer(inputs=[image([b64(RED), b64(BLUE)])], outputs=outputs).json["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"][0] == "10.200000:0:red_thing"
    assert output["data"][2] == "10.200000:2:blue_thing"


def test_too_many_classes_return_all(infer):
    outputs = [{"name": "logits", "parameters": {"classification": 9, "binary_data": True}}]
    response = infer(inputs=[image([b64(RED)])], outputs=outputs)
    length = int(response.headers[HEADER])
    assert json.loads(response.data[:length])["outputs"][0]["shape"] == [1, 3]
    assert response.data[length:].startswith(element(b"10.200000:0:red_thing"))
    assert response.mimetype == "application/octet-stream"


def test_binary_data_overrides_binary_data_output(infer):
    all_binary, this_not = {"binary_data_output": True}, {"binary_data": False}
    response = infer(inputs=[image([b64(RED)])], parameters=all_binary)
    assert response.headers[HEADER]
    outputs = [{"name": "logits", "parameters": this_not}]
    response = infer(inputs=[image([b64(RED)])], parameters=all_binary, outputs=outputs)
    assert HEADER not in response.headers
    assert response.json["outputs"][0]["data"]


@pytest.mark.parametrize(
    ("encoding", "pack", "unpack"),
    [("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)],
)
def test_v2_requests_and_responses_may_be_compressed(infer, encoding, pack, unpack):
    body = pack(json.dumps({"inputs": [image([b64(BLUE)])]}).encode())
    headers = {"Content-Encoding": encoding.upper(), "Accept-Encoding": encoding}
    response = infer(data=body, headers=headers)
    assert response.headers["Content-Encoding"] == encoding
    (output,) = json.loads(unpack(response.data))["outputs"]
    assert np.argmax(output["data"]) == 2


def test_accept_encoding_over_1000_characters_is_ignored(infer):
    headers = {"Accept-Encoding": "gzip" + ", a" * 400}
    response = infer(inputs=[image([b64(BLUE)])], headers=headers)
    assert "Content-Encoding" not in response.headers


# What holds for every way of a photo


def test_v2_is_503_with_retry_after_at_the_limit(make_app):
    app = make_app(max_in_flight=1)
    client = app.test_client()
    with store_of(app).process.slots.hold():
        response = client.post("/v2/models/toy/infer", data="{}")
    assert "limit of 1 requests" in refused(response, 503)
    assert response.headers["Retry-After"]


def test_v2_requires_tokens_except_for_probes(make_client):
    client = make_client(tokens=("correct-horse-battery",))
    assert "Bearer" in refused(client.get("/v2/models/toy"), 401)
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 200
    allowed = {"Authorization": "Bearer correct-horse-battery"}
    assert client.get("/v2/models/toy", headers=allowed).status_code == 200


def test_v2_uses_the_served_name(make_client):
    client = make_client(served_name="flowers")
    assert client.get("/v2/models/flowers-tensor").json["name"] == "flowers-tensor"
    assert client.get("/v2/models/toy").status_code == 404


def test_v2_photos_are_counted_as_predictions(client, infer):
    infer(inputs=[image([b64(RED), b64(BLUE)])])
    assert 'predictor_predictions_total{model="toy",version="1"} 2.0' in client.get("/metrics").text
