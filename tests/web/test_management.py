import logging
import os
import threading

import pytest

from conftest import store_of
from pictures import picture
from predictor.environ import MANAGEMENT
from predictor.errors import ModelError
from predictor.setting_parsers import parse_bind, parse_rates
from predictor.tokens import TokensFile
from toy import toy_model
from web.access import OTHER, TOKEN, basic, bearer
from web.managed import MANAGER, TEXT, managed, write_store

CHANGES = [
    ("POST", "/models?url=flowers/2"),
    ("PUT", "/models/flowers?min_worker=1"),
    ("PUT", "/models/flowers/1?min_worker=1"),
    ("PUT", "/models/flowers/1/set-default"),
    ("DELETE", "/models/flowers"),
    ("DELETE", "/models/flowers/1"),
    ("PUT", "/models/flowers/split"),
    ("GET", "/models/flowers/split"),
    ("POST", "/v2/repository/models/dogs/load"),
    ("POST", "/v2/repository/models/flowers/unload"),
]
BOUND = {"management_bind": ("127.0.0.1", 8081)}


@pytest.fixture
def folder(tmp_path):
    return write_store(tmp_path / "store")


@pytest.fixture
def client(folder):
    with managed(folder) as client:
        yield client


def message(response):
    return response.json.get("message") or response.json["error"]


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_management_is_off_without_its_tokens(folder, method, path):
    with managed(folder, management_tokens=(), tokens=(TOKEN,)) as client:
        response = client.open(path, method=method, headers=bearer(TOKEN))
    assert response.status_code in (404, 405)
    assert (folder / "store.toml").read_text() == TEXT


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Authorization": ""}, 401), (bearer(OTHER), 401), (basic(f"me:{MANAGER}"), 401),
     (bearer(TOKEN), 403)],
    ids=["none", "unknown", "basic", "ordinary"],
)  # fmt: skip
def test_management_needs_a_token_of_its_own(folder, method, path, headers, status):
    with managed(folder, tokens=(TOKEN,)) as client:
        response = client.open(path, method=method, headers=headers)
    assert response.status_code == status
    assert "A management token is required" in message(response)
    assert response.headers.get("WWW-Authenticate", "Bearer").startswith("Bearer")
    assert (folder / "store.toml").read_text() == TEXT


@pytest.mark.parametrize("tokens", [(), (TOKEN,)], ids=["open", "with tokens"])
@pytest.mark.parametrize(("method", "path"), [CHANGES[4], CHANGES[7], ("GET", "/models")])
def test_guesses_of_management_tokens_count_for_the_rate_limit(folder, method, path, tokens):
    own = {MANAGEMENT: True}
    with managed(folder, tokens=tokens, rate_limit=parse_rates("2/day"), **BOUND) as client:
        for _ in range(3):  # the right token does not count
            assert client.get("/models", environ_overrides=own).status_code == 200
        found = [
            client.open(
                path, method=method, headers=bearer(f"guess-{n:011}"), environ_overrides=own
            )
            for n in range(3)
        ]
    assert [response.status_code for response in found] == [401, 401, 429]


def test_management_token_does_not_classify(folder):
    with managed(folder, tokens=(TOKEN,)) as client:
        for method, path in (
            ("POST", "/predict"), ("GET", "/models"), ("PUT", "/models/flowers/invoke")
        ):  # fmt: skip
            response = client.open(path, method=method, data=picture())
            assert (path, response.status_code) == (path, 403)
            assert "This token is only for the management API." in response.text
        paths = client.get("/openapi.json", headers=bearer(TOKEN)).json["paths"]
        assert "403" in paths["/predict"]["post"]["responses"]
        password = basic(f"me:{MANAGER}")  # a browser asks again only after 401
        assert client.get("/", headers=password).status_code == 401
        path = "/predict?model=flowers"
        assert client.post(path, data=picture(), headers=bearer(TOKEN)).status_code == 200


def test_replaced_management_token_is_invalid_without_a_reload(folder, tmp_path):
    path = tmp_path / "tokens"
    path.write_text(MANAGER)
    file = TokensFile(str(path))
    with managed(folder, management_tokens=(), management_tokens_file=file) as client:
        assert client.get("/models/flowers/split").status_code == 200
        path.write_text(OTHER)
        store_of(client.application).watch.poll()
        assert client.get("/models/flowers/split").status_code == 401
        assert client.get("/models/flowers/split", headers=bearer(OTHER)).status_code == 200


def test_each_address_answers_only_its_own_paths(folder):
    with managed(folder, **BOUND) as client:
        own = {MANAGEMENT: True}
        for method, path in CHANGES:
            assert client.open(path, method=method).status_code == 404
        for path in ("/", "/predict", "/healthz", "/openapi.json", "/v2", "/nothing"):
            assert client.get(path, environ_overrides=own).status_code == 404
        nothing = client.get("/nothing", environ_overrides=own).text
        assert "There is nothing at /nothing. This is the address of the management" in nothing
        for path in ("/models", "/models/flowers", "/models/flowers/split"):
            assert client.get(path, environ_overrides=own).status_code == 200
            nobody = client.get(path, environ_overrides=own, headers={"Authorization": ""})
            assert nobody.status_code == 401
        assert client.post("/v2/repository/index", environ_overrides=own).status_code == 200
        assert client.get("/models").status_code == 200
        assert "/models/{model}/split" not in client.get("/openapi.json").json["paths"]


def test_each_use_is_logged_with_the_token_as_a_fingerprint(client, caplog):
    caplog.set_level(logging.INFO, "predictor.web.management")
    client.post("/models?url=flowers/2")
    client.delete("/models/cats", headers=bearer(OTHER))
    lines = [one.getMessage() for one in caplog.records if "management" in one.name]
    assert lines[0].endswith("of 127.0.0.1: register flowers/2, status 200")
    assert lines[1].endswith("of 127.0.0.1: DELETE /models/cats, status 401")
    assert len({line.split()[1] for line in lines}) == 2
    assert MANAGER not in "".join(lines)


def test_a_time_stamp_can_be_registered_and_unregistered(folder):
    (folder / "flowers/1700000000").mkdir()
    with managed(folder) as client:
        assert client.post("/models?url=flowers/1700000000").status_code == 200
        assert client.put("/models/flowers/split", json={"1700000000": 1}).status_code == 200
        assert client.delete("/models/flowers/1700000000").status_code == 200


def test_split_that_names_a_version_twice_is_400(client, folder):
    response = client.put("/models/flowers/split", json={"1": 1, "1.0": 2})
    assert (response.status_code, "1, 1.0 must differ" in message(response)) == (400, True)
    assert (folder / "store.toml").read_text() == TEXT


def test_second_change_at_once_is_409(folder):
    loading, let = threading.Event(), threading.Event()

    def load(entry):
        if entry.version == 2:
            loading.set()
            assert let.wait(30)
        return toy_model()

    with managed(folder, load) as client:
        answers = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/models?url=flowers/2"))
        )
        first.start()
        assert loading.wait(30)
        second = client.application.test_client().post(
            "/v2/repository/models/dogs/load", headers=bearer(MANAGER)
        )
        let.set()
        first.join()
    assert (second.status_code, answers[0].status_code) == (409, 200)
    assert "Another change" in second.json["error"]


def test_change_that_is_not_followed_in_time_is_503_and_stays(folder):
    let = threading.Event()

    def load(entry):
        assert entry.version == 1 or let.wait(30)
        return toy_model()

    with managed(folder, load, request_timeout_s=0.2) as client:
        response = client.post("/models?url=flowers/2")
        let.set()
    assert response.status_code == 503
    assert f"have not followed: {os.getpid()}" in message(response)
    assert "[1, 2]" in (folder / "store.toml").read_text()


def test_a_load_that_hangs_holds_up_no_change_of_another_model(folder):
    let = threading.Event()

    def load(entry):
        assert entry.version == 1 or let.wait(30)
        return toy_model()

    with managed(folder, load, request_timeout_s=5) as client:
        assert client.post("/models?url=flowers/2&initial_workers=1").status_code == 202
        assert client.post("/models?url=dogs").status_code == 200
        assert client.delete("/models/dogs").status_code == 200
        let.set()


@pytest.mark.parametrize(("method", "path"), [CHANGES[0], CHANGES[3], *CHANGES[-2:]])
def test_read_only_store_is_405_with_a_sentence(folder, monkeypatch, method, path):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with managed(folder) as client:
        monkeypatch.setattr("predictor.store.file.replace", refuse)
        response = client.open(path, method=method)
    assert response.status_code == 405
    assert "cannot be changed: Permission denied" in message(response)
    assert response.headers["Allow"]
    assert (folder / "store.toml").read_text() == TEXT


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_broken_store_is_409_without_its_path(client, folder, method, path):
    (folder / "store.toml").write_text("[models.flowers]\nversions = [9]\n")
    response = client.open(path, method=method, json={})
    assert response.status_code == 409
    assert message(response).startswith("store/store.toml, line 2: models.flowers.versions is [9]")
    assert str(folder.parent) not in response.text


def test_reasons_of_failed_loads_have_no_path_above_the_store(folder):
    reason = "{}/model.toml: labels has 3. '/srv/our data/a.pth' and /srv/secret/b.pth differ."
    (folder / "store.toml").write_text("[models.flowers]\nversions = [1, 2]\n")

    def load(entry):
        if entry.version == 2:
            raise ModelError(reason.format(entry.folder))
        return toy_model()

    with managed(folder, load, management_tokens=()) as client:
        listed = client.get("/models")
        index = client.post("/v2/repository/index")
    for found in (listed.json["models"][0]["failed"]["2.0"], index.json[-1]["reason"]):
        assert found.startswith("store/flowers/2/model.toml: labels has 3.")
        assert found.endswith("data/a.pth' and …/b.pth differ.")
    assert str(folder.parent) not in listed.text + index.text


@pytest.mark.parametrize("text", ["8081", "localhost:8081", "127.0.0.1:0", "127.0.0.1:", "[::1]"])
def test_address_of_management_is_an_ip_address_and_a_port(text):
    with pytest.raises(ValueError, match="write an IP address and a port"):
        parse_bind(text)
    assert parse_bind("[::1]:8081") == ("::1", 8081)
