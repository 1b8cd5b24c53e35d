import re

import pytest

from pictures import picture
from predictor.store import file
from web.managed import TEXT, managed, write_store


@pytest.fixture
def folder(tmp_path):
    return write_store(tmp_path / "store")


@pytest.fixture
def client(folder):
    with managed(folder) as client:
        yield client


def text(folder):
    return (folder / "store.toml").read_text()


def refused(response, status, kind):
    assert (response.status_code, response.json["type"]) == (status, kind)
    assert list(response.json) == ["code", "type", "message"]
    return response.json["message"]


def version_of(client, path="/predictions/flowers"):
    return client.post(path, data=picture()).status_code


@pytest.mark.parametrize("query", ["", "&initial_workers=0", "&initial_workers=1&synchronous=true"])
def test_registered_version_is_served_but_not_the_default(client, folder, query):
    response = client.post(f"/models?url=flowers/2{query}")
    workers = 1 if "=1" in query else 0
    status = f'Model "flowers" Version: 2.0 registered with {workers} initial workers'
    assert (response.status_code, response.json) == (200, {"status": status})
    assert response.text == f'{{\n  "status": {response.text[14:-3]}\n}}\n'
    assert client.post("/predictions/flowers/2.0", data=picture()).status_code == 200
    assert client.get("/models/flowers").json[0]["modelVersion"] == "1.0"
    assert "# of the shop" in text(folder)


def test_registration_without_synchronous_is_202(client, folder):
    response = client.post("/models", json={"url": "dogs", "initial_workers": 1})
    assert (response.status_code, response.json["status"]) == (202, "Processing worker updates...")
    assert file.read(folder).routes["dogs"].versions == (1,)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x.mar", "https://example.org/flowers", "s3://bucket/x", "file:///etc/passwd",
     "../flowers", "/flowers", "flowers/../dogs", "flowers/0", "flowers/2/x", "x\\2", "x" * 999],
)  # fmt: skip
def test_registration_by_address_is_refused(client, folder, url):
    response = client.post("/models", query_string={"url": url})
    sentence = refused(response, 404, "ModelNotFoundException")
    assert "does not match any allowed URL(s). Send the name of a folder" in sentence
    assert text(folder) == TEXT


@pytest.mark.parametrize(
    ("query", "status", "kind", "words"),
    [
        ("", 400, "BadRequestException", "Parameter url is required."),
        ("url=flowers.mar", 404, "ModelNotFoundException", "The store has: dogs, flowers"),
        ("url=flowers/9", 404, "ModelVersionNotFoundException", "is not in the store"),
        ("url=flowers/1", 409, "ConflictStatusException", "is already registered"),
        ("url=flowers/2&model_name=x", 400, "BadRequestException", "'flowers'"),
        ("url=flowers/2&initial_workers=2", 400, "BadRequestException", "1 processes run"),
        ("url=flowers/3", 500, "InternalServerException", "model.onnx is damaged"),
    ],
)
def test_refused_registration_changes_nothing(client, folder, query, status, kind, words):
    assert words in refused(client.post(f"/models?{query}"), status, kind)
    assert text(folder) == TEXT
    assert client.get("/models/flowers/all").json[0]["modelVersion"] == "1.0"


def test_version_that_failed_is_not_called_unknown_or_registered(folder):
    (folder / "store.toml").write_text(f"{TEXT.replace('1', '1, 3')}default = 1\n")
    said = "flowers/3 is to be served, but cannot be loaded. See GET /models."
    with managed(folder) as client:
        for path in (
            "/models/flowers/3.0",
            "/predict?model=flowers&version=3",
            "/v2/models/flowers/versions/3",
        ):
            response = client.open(
                path, method="POST" if "predict" in path else "GET", data=picture()
            )
            assert (response.status_code, said in response.text) == (404, True)
        assert refused(client.post("/models?url=flowers/3"), 409, "ConflictStatusException") == said
        sentence = refused(client.get("/models/flowers/2"), 404, "ModelVersionNotFoundException")
        assert "has no version '2'" in sentence


def test_set_default_moves_the_requests_without_a_version(client):
    client.post("/models?url=flowers/2")
    response = client.put("/models/flowers/2.0/set-default")
    status = 'Default version successfully updated for model "flowers" to "2.0"'
    assert (response.status_code, response.json) == (200, {"status": status})
    assert client.get("/models/flowers").json[0]["modelVersion"] == "2.0"


def test_default_version_is_unregistered_only_alone(client, folder):
    client.post("/models?url=flowers/2")
    for path in ("/models/flowers", "/models/flowers/1.0"):
        sentence = refused(client.delete(path), 403, "ForbiddenException")
        assert sentence == "Cannot remove default version for model flowers"
    for path in ("/models/flowers/2.0", "/models/flowers"):
        response = client.delete(path)
        assert (response.status_code, response.json["status"]) == (
            200, 'Model "flowers" unregistered',
        )  # fmt: skip
    assert file.read(folder).routes == {}
    assert (folder / "flowers/1").is_dir()


def test_unknown_model_of_an_empty_store_is_404_with_none(client):
    client.delete("/models/flowers")
    sentence = refused(client.delete("/models/flowers"), 404, "ModelNotFoundException")
    assert sentence == "Model not found: flowers. Served are: none."


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_unknown_model_or_version_is_404(client, method):
    end = "?min_worker=1" if method == "PUT" else ""
    refused(client.open(f"/models/cats{end}", method=method), 404, "ModelNotFoundException")
    path = f"/models/flowers/2{end}"
    refused(client.open(path, method=method), 404, "ModelVersionNotFoundException")


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [
        ("flowers?min_worker=1&synchronous=true", 200, "Workers scaled to 1 for model: flowers"),
        ("flowers/1.0?min_worker=0&synchronous=true", 200,
         "Workers scaled to 0 for model: flowers, version: 1.0"),
        ("flowers?max_worker=1", 202, "Processing worker updates..."),
    ],
)  # fmt: skip
def test_scaling_to_the_processes_changes_nothing(client, folder, path, status, answer):
    response = client.put(f"/models/{path}")
    assert (response.status_code, response.json) == (status, {"status": answer})
    assert text(folder) == TEXT


def test_scaling_beyond_the_processes_is_refused(client):
    sentence = refused(client.put("/models/flowers?min_worker=2"), 400, "BadRequestException")
    assert sentence.startswith("min_worker is 2, but 1 processes run.")
    response = client.put("/models/flowers?min_worker=1&max_worker=0")
    message = "max_worker cannot be less than min_worker."
    assert refused(response, 400, "BadRequestException") == message


@pytest.mark.parametrize(
    ("path", "meant"),
    [("/models/flowers?min_workers=3", "min_worker"), ("/models/flowers?maxWorker=3", "max_worker"),
     ("/models?url=flowers/2&initial_worker=3", "initial_workers")],
)  # fmt: skip
def test_misspelled_parameter_is_refused(client, folder, path, meant):
    response = client.open(path, method="PUT" if "flowers?" in path else "POST")
    sentence = refused(response, 400, "BadRequestException")
    assert sentence.endswith(f"Did you mean {meant}?")
    assert text(folder) == TEXT


def test_misspelled_member_is_refused(client, folder):
    response = client.post("/models", json={"url": "flowers/2", "initialWorkers": 0})
    assert "Did you mean initial_workers?" in refused(response, 400, "BadRequestException")
    assert text(folder) == TEXT


def test_split_is_set_read_and_removed(client, folder):
    client.post("/models?url=flowers/2")
    assert client.get("/models/flowers/split").json == {}
    response = client.put("/models/flowers/split", json={"1": 90, "2": 10.5})
    assert (response.status_code, response.json) == (200, {"1": 90, "2": 10.5})
    assert client.get("/models/flowers/split").json == {"1": 90, "2": 10.5}
    assert client.put("/models/flowers/split", json={}).json == {}
    assert file.read(folder).routes["flowers"].split == {}


def test_a_split_is_removed_by_an_empty_object_but_not_without_a_body(client, folder):
    client.put("/models/flowers/split", json={"1": 90})
    response = client.put("/models/flowers/split")
    message = "The body must be a JSON object."
    assert refused(response, 400, "BadRequestException") == message
    assert file.read(folder).routes["flowers"].split == {1: 90}


@pytest.mark.parametrize("weight", ["0", "-1", '"9"', "true", "1000001", "1e300", "1e999"])
def test_wrong_weight_is_refused_with_the_range(client, folder, weight):
    response = client.put("/models/flowers/split", data=f'{{"1": {weight}}}')
    sentence = refused(response, 400, "BadRequestException")
    assert "a weight above 0 and up to 1,000,000, like" in sentence
    assert text(folder) == TEXT


def test_wrong_split_is_refused(client, folder):
    refused(client.put("/models/flowers/split", json=[1]), 400, "BadRequestException")
    unknown = client.put("/models/flowers/split", json={"2": 1})
    refused(unknown, 404, "ModelVersionNotFoundException")
    assert text(folder) == TEXT


@pytest.mark.parametrize("version", ["1", "1.0", "", "0", "01", "1.00", "1.5", "-1", "9" * 19])
def test_split_names_versions_as_the_description_says(client, version):
    paths = client.get("/openapi.json").json["paths"]
    body = paths["/models/{model}/split"]["put"]["requestBody"]["content"]["application/json"]
    is_version = re.search(body["schema"]["propertyNames"]["pattern"], version)
    status = client.put("/models/flowers/split", json={version: 5}).status_code
    assert status == (200 if is_version else 404)


def test_models_are_listed_in_pages(client):
    client.post("/models?url=dogs")
    page = client.get("/models?limit=1").json
    assert page["nextPageToken"] == "1"
    rest = client.get("/models?limit=1&next_page_token=1").json
    assert "nextPageToken" not in rest
    names = [one["modelName"] for one in page["models"] + rest["models"]]
    assert sorted(names) == ["dogs", "flowers"]
