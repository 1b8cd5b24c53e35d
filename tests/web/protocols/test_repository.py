import pytest

from predictor.store import file
from web.managed import TEXT, managed, write_store

MODELS = "/v2/repository/models"


@pytest.fixture
def folder(tmp_path):
    return write_store(tmp_path / "store")


@pytest.fixture
def client(folder):
    with managed(folder) as client:
        yield client


def states(client):
    index = client.post("/v2/repository/index").json
    return {(one["name"], one["version"]): one["state"] for one in index}


def test_model_is_loaded_and_unloaded(client, folder):
    response = client.post(f"{MODELS}/dogs/load")
    assert (response.status_code, response.json) == (200, {"name": "dogs", "load": True})
    assert states(client)["dogs", "1"] == "READY"
    assert 'versions = "newest"' in (folder / "store.toml").read_text()
    response = client.post(
        f"{MODELS}/dogs/unload", json={"parameters": {"unload_dependents": True}}
    )
    assert (response.status_code, response.json) == (200, {"name": "dogs", "unload": True})
    assert ("dogs", "1") not in states(client)


def test_model_that_is_served_is_loaded_without_a_change(client, folder):
    assert client.post(f"{MODELS}/flowers/load").status_code == 200
    assert (folder / "store.toml").read_text() == TEXT


def test_model_that_cannot_be_loaded_is_500_with_the_reason(client, folder):
    client.post(f"{MODELS}/dogs/load")
    client.post(f"{MODELS}/flowers/unload")
    before = (folder / "store.toml").read_text()
    response = client.post(f"{MODELS}/flowers/load")  # its newest version
    assert response.status_code == 500
    assert "flowers/3 cannot be loaded" in response.json["error"]
    assert "model.onnx is damaged" in response.json["error"]
    assert (folder / "store.toml").read_text() == before


@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
def test_load_with_files_in_the_request_is_refused(client, folder, name):
    response = client.post(f"{MODELS}/dogs/load", json={"parameters": {name: "e30="}})
    assert response.status_code == 400
    assert f"'{name}' is not accepted" in response.json["error"]
    assert "dogs" not in file.read(folder).routes


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize("body", ["x", "[]", '{"parameters": []}'])
def test_body_that_is_not_an_object_is_400(client, folder, verb, body):
    assert client.post(f"{MODELS}/flowers/{verb}", data=body).status_code == 400
    assert (folder / "store.toml").read_text() == TEXT


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_unknown_model_is_404(client, verb):
    response = client.post(f"{MODELS}/cats/{verb}")
    assert response.status_code == 404
    assert "Model not found: cats" in response.json["error"]
