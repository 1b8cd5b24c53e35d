"""The curl lines of TorchServe's manual, and SageMaker's requests."""

import json

import pytest
import requests

from clients.answers import ESPRESSO, MODEL, approximately, curl, in_base64


@pytest.mark.parametrize(
    "line",
    [
        "curl http://127.0.0.1:8080/predictions/densenet161 -T kitten_small.jpg",
        "curl http://localhost:8080/predictions/densenet161/1.0 -T kitten_small.jpg",
        "curl -X POST http://localhost:8080/predictions/densenet161 -T kitten_small.jpg",
        'curl http://localhost:8080/predictions/densenet161 -F "data=@kitten_small.jpg"',
        'curl http://localhost:8080/predictions/densenet161 -F "body=@kitten_small.jpg"',
        "curl http://localhost:8080/predictions/densenet161 --data-binary @kitten_small.jpg",
        "curl -X POST http://localhost:8080/models/densenet161/invoke -T kitten_small.jpg",
        "curl -X POST http://localhost:8080/invocations -T kitten_small.jpg",
    ],
)
def test_torchserve_curl_lines_predict(server, photos, predicted, line):
    text = curl(line, server, photos)
    assert text.startswith('{\n  "espresso": 0.9')
    answer = json.loads(text)
    assert answer == approximately(predicted[0], "class_name")
    assert list(answer.values()) == sorted(answer.values(), reverse=True)


def test_torchserve_curl_line_classifies_several_photos(server, photos, predicted):
    line = "curl http://localhost:8080/predictions/densenet161 -F data=@kitten_small.jpg"
    answers = json.loads(curl(f"{line} -F data=@chelsea.png", server, photos))
    assert answers == [approximately(predictions, "class_name") for predictions in predicted]


def test_torchserve_curl_line_explains(server, photos):
    line = "curl http://127.0.0.1:8080/explanations/densenet161 -T kitten_small.jpg"
    explanation = json.loads(curl(line, server, photos))
    assert explanation["class_index"] == ESPRESSO
    assert max(map(max, explanation["heat"])) == 1


def test_torchserve_curl_line_pings(server, photos):
    assert (
        curl("curl http://localhost:8080/ping", server, photos) == '{\n  "status": "Healthy"\n}\n'
    )


@pytest.mark.parametrize(
    "line",
    [
        "curl -X OPTIONS http://localhost:8080",
        "curl -X OPTIONS http://localhost:8080/predictions/densenet161",
        "curl http://localhost:8080/api-description",
    ],
)
def test_torchserve_curl_lines_get_the_api_description(server, photos, line):
    description = json.loads(curl(line, server, photos))
    assert description["openapi"].startswith("3.")
    assert any(path.startswith("/predictions/") for path in description["paths"])


@pytest.mark.parametrize("query", ["", "?limit=2&next_page_token=0"])
def test_torchserve_curl_lines_list_the_model(server, photos, query):
    listed = json.loads(curl(f'curl "http://localhost:8081/models{query}"', server, photos))
    assert [model["modelName"] for model in listed["models"]] == [MODEL]
    assert listed["models"][0]["modelUrl"]


@pytest.mark.parametrize("version", ["", "/1.0", "/all", "?customized=true"])
def test_torchserve_curl_lines_describe_the_model(server, photos, version):
    line = f'curl "http://localhost:8081/models/densenet161{version}"'
    (described,) = json.loads(curl(line, server, photos))
    assert (described["modelName"], described["modelVersion"]) == (MODEL, "1.0")
    assert [worker["status"] for worker in described["workers"]] == ["READY"]
    assert described["jobQueueStatus"]["pendingRequests"] == 0


def test_torchserve_curl_line_reads_the_request_count(server, photos):
    def counted():
        text = curl("curl http://127.0.0.1:8082/metrics", server, photos)
        lines = [line for line in text.splitlines() if f'model_name="{MODEL}"' in line]
        return sum(
            float(x.split()[1]) for x in lines if x.startswith("ts_inference_requests_total")
        )

    before = counted()
    curl("curl http://127.0.0.1:8080/predictions/densenet161 -T kitten_small.jpg", server, photos)
    assert counted() == before + 1


@pytest.mark.parametrize(
    ("line", "code", "kind"),
    [
        ("predictions/no-such-model -T kitten_small.jpg", 404, "ModelNotFoundException"),
        ("predictions/densenet161/7.0 -T kitten_small.jpg", 404, "ModelVersionNotFoundException"),
        ("models/no-such-model", 404, "ModelNotFoundException"),
        ("predictions/densenet161 -H Content-Type:text/plain -d nothing", 415, None),
        ("ping -X DELETE", 405, "MethodNotAllowedException"),
    ],
)
def test_torchserve_clients_get_errors_in_its_shape(server, photos, line, code, kind):
    refusal = json.loads(curl(f"curl http://localhost:8080/{line}", server, photos))
    assert refusal.keys() == {"code", "type", "message"}
    assert refusal["code"] == code
    assert kind in (None, refusal["type"])


@pytest.mark.parametrize(
    "body",
    [
        lambda text: {"data": text},
        lambda text: {"body": text},
        lambda text: text,
    ],
    ids=["data", "body", "a string"],
)
def test_torchserve_json_predicts(server, photos, predicted, body):
    url = f"{server.url}/predictions/{MODEL}"
    answer = requests.post(url, json=body(in_base64(photos[0])), timeout=60).json()
    assert answer == approximately(predicted[0], "class_name")


@pytest.mark.parametrize("several", [lambda texts: texts, lambda texts: {"instances": texts}])
def test_torchserve_json_predicts_several_photos(server, photos, predicted, several):
    url = f"{server.url}/predictions/{MODEL}"
    texts = [in_base64(photo) for photo in photos]
    answer = requests.post(url, json=several(texts), timeout=60).json()
    answers = answer["predictions"] if isinstance(answer, dict) else answer
    assert answers == [approximately(predictions, "class_name") for predictions in predicted]


def test_torchserve_json_for_kserve_predicts_and_explains(server, photos, predicted):
    """``{"data": …, "target": …}``, as in TorchServe's manual: target is the class to explain."""
    body = {"instances": [{"data": in_base64(photos[1]), "target": 285}]}
    url = f"{server.url}/v1/models/{MODEL}"
    (prediction,) = requests.post(f"{url}:predict", json=body, timeout=60).json()["predictions"]
    assert prediction["class_id"] == predicted[1][0]["class_id"]
    (explanation,) = requests.post(f"{url}:explain", json=body, timeout=60).json()["explanations"]
    assert explanation["class_index"] == 285


@pytest.mark.parametrize("content_type", ["image/png", "application/x-image", "application/json"])
def test_sagemaker_pings_and_invokes(server, photos, predicted, content_type):
    assert requests.get(f"{server.url}/ping", timeout=60).status_code == 200
    photo = photos[0].read_bytes()
    if content_type == "application/json":
        photo = json.dumps({"instances": [{"data": in_base64(photos[0])}]})
    answer = requests.post(
        f"{server.url}/invocations", data=photo, headers={"Content-Type": content_type}, timeout=60
    ).json()
    expected = approximately(predicted[0], "class_name")
    assert answer == ({"predictions": [expected]} if "json" in content_type else expected)
