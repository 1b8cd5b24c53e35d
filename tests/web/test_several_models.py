"""Several models and versions: which one answers, and who says so."""

import io
import logging
import re

import pytest
from PIL import Image
from werkzeug.test import EnvironBuilder

from conftest import StuckModel, store_of
from pictures import picture
from predictor.environ import ERROR
from predictor.errors import ModelError, Overloaded
from predictor.logs import JSONFormatter
from predictor.server.console import overview
from toy import ToyModel
from web.several import Larger, serve_instead, several


@pytest.fixture
def app():
    return several({("flowers", 1): ToyModel(), ("flowers", 2): Larger(), ("dogs", 7): Larger()})


@pytest.fixture
def client(app):
    return app.test_client()


def test_the_list_of_models_says_why_versions_cannot_be_loaded():
    damaged = ModelError("The file is damaged.")
    app = several({("a", 1): ToyModel(), ("a", 2): damaged, ("b", 7): damaged})
    assert app.test_client().get("/models").json["models"] == [
        {"modelName": "a", "modelUrl": "toy.pth", "failed": {"2.0": "The file is damaged."}},
        {"modelName": "b", "modelUrl": "", "failed": {"7.0": "The file is damaged."}},
    ]


def named(response):
    return response.headers.get("X-Model-Name"), response.headers.get("X-Model-Version")


@pytest.mark.parametrize(
    ("query", "size"),
    [("model=flowers", (8, 8)), ("model=flowers&version=2", (12, 16)), ("model=dogs", (12, 16))],
)
def test_the_query_chooses_what_answers(client, query, size):
    seen = client.post(f"/preview?{query}", data=picture())
    assert Image.open(io.BytesIO(seen.data)).size == size
    answer = client.post(f"/predict?{query}", data=picture("green"))
    assert answer.json == {"class_id": "n00000001", "class_name": "green_thing"}
    assert named(answer) == named(seen)


@pytest.mark.parametrize("version", [1_700_000_000, 10**18 - 1])
def test_a_version_may_be_a_time_stamp(version):
    client = several({("flowers", 1): ToyModel(), ("flowers", version): Larger()}).test_client()
    for path in (f"/predict?model=flowers&version={version}", f"/predictions/flowers/{version}.0"):
        assert named(client.post(path, data=picture())) == ("flowers", str(version))


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/predict?model=flowers&version=2.0", picture(), 200),
        ("/predict?model=flowers&version=2", picture()[:60], 422),
        ("/explain?model=flowers&version=2", b"text", 415),
        ("/?model=flowers&version=2", b"", 400),
        ("/predictions/flowers/2.0", picture(), 200),
        ("/v1/models/flowers/versions/2:predict", b"{}", 400),
        ("/v2/models/flowers-tensor/versions/2/infer", b"{}", 400),
    ],
)
def test_answers_and_errors_say_model_and_version(client, caplog, path, data, status):
    caplog.set_level(logging.INFO)
    response = client.post(path, data=data)
    assert (response.status_code, named(response)) == (status, ("flowers", "2"))
    record = next(r for r in caplog.records if r.name == "predictor.web.request_log")
    assert ", flowers/2, " in record.getMessage()
    assert '"model": "flowers", "version": "2"' in JSONFormatter().format(record)


def test_a_full_queue_says_whose_it_is(app, monkeypatch):
    """Both when the head is checked and without a server that checks it."""

    def refuse(*_):
        raise Overloaded("Later.", 1)

    monkeypatch.setattr("predictor.engine.served.Served.room", refuse)
    client = app.test_client()
    assert named(client.post("/predict?model=dogs", data=picture())) == ("dogs", "7")
    started = []
    environ = EnvironBuilder("/predict?model=dogs", method="POST").get_environ()
    app.extensions["head"](environ, lambda *given: started.append(dict(given[1])))
    assert started[0]["X-Model-Name"] == "dogs"


def test_a_request_that_the_server_ends_says_whose_it_was(app):
    """Its place was found before its body arrived."""
    environ = EnvironBuilder("/predict?model=dogs", method="POST").get_environ()
    started = []
    for error in (None, Overloaded("Later.", 1)):
        environ[ERROR] = error
        app.extensions["head"](environ, lambda *given: started.append(dict(given[1])))
    assert [one["X-Model-Name"] for one in started] == ["dogs"]


def test_an_unknown_model_is_not_named(client):
    response = client.post("/predict?model=cats", data=picture())
    assert (response.status_code, named(response)) == (404, (None, None))
    assert "X-Model-Name" not in client.get("/readyz").headers


def test_other_origins_read_model_and_version():
    app = several({("dogs", 1): ToyModel()}, cors_origins=("*",))
    answer = app.test_client().post("/predict", data=picture(), headers={"Origin": "http://a.test"})
    assert {"X-Model-Name", "X-Model-Version"} <= {
        name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")
    }


def test_openapi_lists_what_is_served_now(app, client):
    document = client.get("/openapi.json").json
    parameters = document["components"]["parameters"]
    assert parameters["model_name"]["schema"]["enum"] == ["flowers", "dogs"]
    assert parameters["model_version"]["schema"]["enum"] == ["1", "2", "7"]
    (_, _, rows, columns) = document["components"]["schemas"]["PixelsTensor"]["properties"][
        "shape"]["prefixItems"]  # fmt: skip
    assert (rows, columns) == ({"enum": [8, 16]}, {"enum": [8, 12]})
    serve_instead(app, {("cats", 3): ToyModel()})
    parameters = client.get("/openapi.json").json["components"]["parameters"]
    assert parameters["model_name"]["schema"]["enum"] == ["cats"]
    assert parameters["version"]["schema"]["enum"] == ["3"]


def test_openapi_says_how_to_choose(client):
    document = client.get("/openapi.json").json
    for path in ("/predict", "/explain", "/preview", "/"):
        chosen = document["paths"][path]["post"]
        names = [one["$ref"].split("/")[-1] for one in chosen["parameters"] if "$ref" in one]
        assert names == ["model_name", "model_version", "routing_key"]
        assert {"X-Model-Name", "X-Model-Version"} <= chosen["responses"]["200"]["headers"].keys()
        assert "404" in chosen["responses"]


def test_readiness_and_console_name_all_versions_and_failures():
    app = several({("flowers", 1): ToyModel(), ("flowers", 2): ModelError("It is broken.")})
    ready = app.test_client().get("/readyz").json
    assert ready["models"] == [
        {"name": "flowers", "version": "1", "state": "READY"},
        {"name": "flowers", "version": "2", "state": "UNAVAILABLE"},
    ]
    assert "broken" not in str(ready)  # it needs no token
    store = store_of(app)
    block = overview(store.statuses(), "http://127.0.0.1:5000", store.default)
    assert re.search(r"flowers/1 +3 classes, toy.pth, cpu", block)
    assert re.search(r"flowers/2 +UNAVAILABLE: It is broken\.", block)
    assert "/predict?model=flowers&version=1" in block


def test_console_proposes_the_default_model():
    store = store_of(several({("a", 1): ToyModel(), ("b", 1): ToyModel()}, default="b"))
    assert "/predict?model=b&version=1" in overview(store.statuses(), "", store.default)


def test_the_page_chooses_among_several(client):
    page = client.get("/?model=flowers&version=2").text
    assert re.search('<a href="[?]model=dogs&amp;version=7" *>dogs/7</a>', page)
    assert 'aria-current="true">flowers/2</a>' in page
    assert 'action="?model=flowers&amp;version=2"' in page
    assert 'data-endpoint="predict?top_k=3&amp;model=flowers&amp;version=2"' in page
    assert 'data-preview="preview?model=flowers&amp;version=2"' in page
    assert "data-explain" not in page
    assert 'data-input="12 × 16 RGB' in page
    assert 'data-explain="explain?model=flowers&amp;version=1"' in client.get("/").text


def test_the_form_of_the_page_is_answered_by_the_chosen_version(client):
    form = {"file": (io.BytesIO(picture("blue")), "photo.png")}
    response = client.post("/?model=dogs&version=7", data=form)
    assert named(response) == ("dogs", "7")
    assert "blue thing" in response.text
    assert 'aria-current="true">dogs/7</a>' in response.text


@pytest.mark.parametrize(("method", "query"), [("GET", "model=cats"), ("POST", "version=9")])
def test_the_page_says_that_there_is_no_such_version(client, method, query):
    response = client.open(f"/?{query}", method=method, data=b"x" if method == "POST" else b"")
    assert response.status_code in (400, 404)
    assert re.search("There is no model|Name a model", response.text)
    assert 'id="models"' in response.text


@pytest.mark.parametrize("is_named", [True, False])
@pytest.mark.parametrize("path", ["/predict", "/explain", "/preview", "/", "/invocations"])
def test_server_without_a_model_answers_404_also_if_none_is_named(path, is_named):
    parameter = "model_name" if path == "/invocations" else "model"
    query = {parameter: "cats"} if is_named else {}
    response = several({}).test_client().post(path, query_string=query, data=picture())
    assert response.status_code == 404
    assert "This server serves no model." in response.text
    assert "Name a model" not in response.text


def test_request_without_a_model_is_told_the_parameter_of_each_endpoint(client):
    for path in ("/predict", "/explain", "/preview", "/invocations"):
        response = client.post(path, data=picture())
        assert response.status_code == 400
        assert "Name a model with ?model= (of /invocations: ?model_name=)." in response.text


@pytest.mark.parametrize("default", [None, "dogs"])
@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [("/invocations", "model_name", "model"), ("/predict", "model", "model_name")],
)
def test_parameter_of_another_endpoint_is_refused(default, path, right, wrong):
    app = several({("flowers", 1): ToyModel(), ("dogs", 7): Larger()}, default)
    client = app.test_client()
    assert named(client.post(f"{path}?{right}=flowers", data=picture())) == ("flowers", "1")
    response = client.post(f"{path}?{wrong}=flowers", data=picture())
    assert response.status_code == 400
    assert f"no parameter '{wrong}'. Did you mean {right}?" in response.text


def test_one_model_has_no_chooser():
    page = several({("dogs", 1): StuckModel()}, "dogs").test_client().get("/").text
    assert 'id="models"' not in page
    assert 'data-endpoint="predict?top_k=3"' in page


def test_a_flood_of_one_model_leaves_slots_to_the_others():
    app = several({("a", 1): ToyModel(), ("a", 2): ToyModel(), ("b", 1): ToyModel()})
    client, slots = app.test_client(), store_of(app).process.slots
    for _ in range(48):
        slots.take("a")

    def status(query):
        return client.post(f"/predict?model={query}", data=picture()).status_code

    assert [status(query) for query in ("a", "a&version=2", "b", "b")] == [503, 503, 200, 200]
    serve_instead(app, {("a", 1): ToyModel()})
    assert status("a") == 200


def test_a_model_whose_name_is_another_ones_for_tensors_is_itself():
    client = several({("x", 1): ToyModel(), ("x-tensor", 7): Larger()}).test_client()
    expected = {"x": ("1", "BYTES"), "x-tensor": ("7", "BYTES"), "x-tensor-tensor": ("7", "FP32")}
    for name, (version, datatype) in expected.items():
        found = client.get(f"/v2/models/{name}").json
        assert (found["versions"], found["inputs"][0]["datatype"]) == ([version], datatype)
        assert named(client.post(f"/v2/models/{name}/infer", data=b"{}"))[1] == version
    listed = client.post("/v2/repository/index").json
    assert [(one["name"], one["version"]) for one in listed] == [
        (name, version) for name, (version, _) in expected.items()
    ]
