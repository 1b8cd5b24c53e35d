import base64
import functools
import io
import re
import sys
import threading

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from conftest import app_of, store_of
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.models.card import Card
from predictor.models.scorer import LoadedModel, ModelInfo
from predictor.setting_parsers import parse_rates
from predictor.settings import Settings
from predictor.web.openapi import WEB
from toy import LABELS, ToyModel

TOKEN = "correct-horse-battery"
COUNTS = {"threads": 1, "parameters": 3, "classes": 3, "outputs": 3}
INFO = ModelInfo("toy", "toy.pth", "cpu", "float32", **COUNTS, labels="numbers")
CARD = Card("toy", "toy", ToyModel.preprocessing, LABELS)
VARIANTS = {
    "defaults": {},
    "no explanations": {"max_explanations": 0},
    "tokens": {"tokens": (TOKEN,)},
    "rate limit": {"rate_limit": parse_rates("9/minute")},
    "management": {"management_tokens": (TOKEN,)},
    "served name": {"served_name": "lights"},
}


@pytest.fixture
def serve():
    """Build apps around the toy model, with one of the variants of the settings."""
    started = []

    def build(variant="defaults"):
        model = LoadedModel(ToyModel(), INFO, CARD)
        started.append(Classifier(Settings(**VARIANTS[variant]), load=lambda *_: model))
        started[-1].start()
        started[-1].loading.result(timeout=10)
        return app_of(started[-1])

    yield build
    for classifier in started:
        classifier.close()


def document(app, **headers):
    headers = {"Authorization": f"Bearer {TOKEN}", **headers}
    return app.test_client().get("/openapi.json", headers=headers).json


def operations(document):
    return {
        (path, method): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_document_describes_exactly_the_served_routes(serve, variant):
    app = serve(variant)
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD"}
        if not rule.endpoint.endswith("static")
        and not (method == "OPTIONS" and rule.provide_automatic_options)
    }
    described = operations(document(app)).keys()
    missing, unknown = served - described, described - served
    assert missing == set(), "describe them in predictor/web/api/predict.yaml or a protocol's .yaml"
    assert unknown == set(), "a .yaml file in predictor/web describes routes that are not served"


def test_every_described_path_is_served_with_all_features_on(serve):
    files = [yaml.safe_load(file.read_text()) for file in WEB.rglob("*.yaml")]
    written = {path for file in files for path in file.get("paths", {})}
    assert written == document(serve("management"))["paths"].keys()


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_document_is_valid_openapi(serve, make_loading_app, variant):
    validate(document(serve(variant)))
    validate(document(make_loading_app(**VARIANTS[variant])))


def test_document_has_no_placeholder_left(serve, make_loading_app):
    for app in (serve(), make_loading_app()):
        text = str(document(app))
        assert "${" not in text
        assert "x-refuses" not in text
        assert ": None" not in text  # a comma in an unquoted text makes its rest a key


def test_document_has_the_limits_and_names_of_the_app(serve):
    described = document(serve())
    assert "20,971,520 bytes" in described["info"]["description"]
    (name,) = described["paths"]["/v2/models/{model}"]["parameters"]
    assert name["$ref"] == "#/components/parameters/model_or_tensor"
    assert described["components"]["parameters"]["model_or_tensor"]["schema"]["enum"] == [
        "toy",
        "toy-tensor",
    ]


def test_document_omits_the_model_while_it_loads(make_loading_app):
    described = document(make_loading_app())
    top_k = described["paths"]["/predict"]["post"]["parameters"][0]
    assert top_k["schema"] == {"type": "integer", "minimum": 1}
    assert "enum" not in described["components"]["parameters"]["model"]["schema"]


def test_document_requires_tokens_except_for_probes(serve):
    assert "security" not in document(serve())
    described = document(serve("tokens"))
    assert described["security"] == [{"bearer": []}, {"basic": []}]
    for (path, _), operation in operations(described).items():
        is_open = path in ("/healthz", "/readyz", "/ping", "/v2/health/live", "/v2/health/ready")
        assert (path, operation.get("security")) == (path, [] if is_open else None)
        assert (path, "401" in operation["responses"]) == (path, not is_open)


def test_document_names_the_rate_limit_if_set(serve):
    limited = {
        key
        for key, one in operations(document(serve("rate limit"))).items()
        if "429" in one["responses"]
    }
    assert {("/predict", "post"), ("/", "post"), ("/predictions/{model}", "get")} <= limited
    assert ("/models", "get") not in limited
    assert "9 per 1 minute" in str(document(serve("rate limit")))
    assert "429" not in str(document(serve()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_links_lead_to_served_operations(serve, variant):
    described = operations(document(serve(variant))).values()
    answers = [answer for one in described for answer in one["responses"].values()]
    linked = {link["operationId"] for one in answers for link in one.get("links", {}).values()}
    assert linked
    assert linked <= {one["operationId"] for one in described}


def test_server_of_the_document_is_relative_or_has_the_announced_prefix(make_app):
    app = make_app(trusted_proxies=1)
    assert document(app, **{"X-Forwarded-Prefix": "/photos"})["servers"] == [{"url": "/photos"}]
    assert document(app)["servers"] == [{"url": "."}]
    assert app.test_client().options("/predictions/toy").json["servers"] == [{"url": ".."}]


@pytest.mark.parametrize("path", ["/openapi.json", "/api-description"])
def test_description_is_made_once_for_each_path_prefix(make_app, monkeypatch, path):
    made = []
    module = sys.modules["predictor.web.openapi"]  # create_app's module has the same name
    monkeypatch.setattr(module, "document", lambda _: made.append(1) or {"openapi": "ä"})
    client = make_app(trusted_proxies=1).test_client()
    answers = {client.get(path).text for _ in range(3)}
    assert len(answers) == len(made) == 1
    assert '"ä"' in answers.pop()
    client.get(path, headers={"X-Forwarded-Prefix": "/photos"})
    assert len(made) == 2


def test_description_has_the_model_once_it_is_loaded():
    let = threading.Event()
    classifier = Classifier(
        Settings(), lambda *_: let.wait(60) and LoadedModel(ToyModel(), INFO, CARD)
    )
    app = app_of(classifier)
    store_of(app).start()
    assert "toy-tensor" not in str(document(app))
    let.set()
    store_of(app).loading.result(timeout=10)
    assert "toy-tensor" in str(document(app))
    classifier.close()


# What is answered is what is described


def b64(data=None):
    return base64.b64encode(data or picture()).decode()


TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64()]}
INFER = "/v2/models/{model}/infer"
ANSWERS = {
    "a photo": ("post", "/predict", {"data": picture()}, 200),
    "with classes": ("put", "/predict?top_k=3", {"data": picture()}, 200),
    "several": ("post", "/predict", {"json": {"images": [b64(), "!"]}}, 200),
    "no photo": ("post", "/predict", {}, 400),
    "text": ("post", "/predict", {"data": b"text"}, 415),
    "damaged": ("post", "/predict", {"data": picture()[:60]}, 422),
    "a heat map": ("post", "/explain", {"data": picture()}, 200),
    "heat": ("post", "/explain?format=json", {"data": picture()}, 200),
    "no such class": ("post", "/explain?class_index=3", {"data": picture()}, 400),
    "a preview": ("post", "/preview", {"data": picture()}, 200),
    "a preview of text": ("put", "/preview", {"data": b"text"}, 415),
    "alive": ("get", "/healthz", {}, 200),
    "ready": ("get", "/readyz", {}, 200),
    "metrics": ("get", "/metrics", {}, 200),
    "openmetrics": (
        "get", "/metrics", {"headers": {"Accept": "application/openmetrics-text"}}, 200),
    "itself": ("get", "/openapi.json", {}, 200),
    "its page": ("get", "/docs", {}, 200),
    "the page": ("get", "/", {}, 200),
    "the root": ("get", "/", {"headers": {"Accept": "application/json"}}, 200),
    "the page's form": ("post", "/", {"data": {"file": (io.BytesIO(picture()), "a.png")}}, 200),
    "the form alone": ("post", "/", {}, 400),
    "ping": ("get", "/ping", {}, 200),
    "labels": ("put", "/predictions/{model}", {"data": picture()}, 200),
    "a list": ("post", "/predictions/{model}/1.0", {"json": [b64()]}, 200),
    "an envelope": ("post", "/invocations", {"json": {"instances": [b64()]}}, 200),
    "no label": ("get", "/predictions/{model}", {}, 400),
    "no such version": ("get", "/predictions/{model}/2.0", {"data": picture()}, 404),
    "heat for torchserve": ("post", "/explanations/{model}", {"json": [b64()]}, 200),
    "models": ("get", "/models?limit=0", {}, 200),
    "workers": ("get", "/models/{model}/all", {}, 200),
    "v1's models": ("get", "/v1/models", {}, 200),
    "v1's model": ("get", "/v1/models/{model}", {}, 200),
    "instances": ("post", "/v1/models/{model}:predict", {"json": {"instances": [b64()]}}, 200),
    "no instances": ("post", "/v1/models/{model}:predict", {"json": {}}, 400),
    "v1's heat": ("post", "/v1/models/{model}:explain", {"json": {"instances": [b64()]}}, 200),
    "v2": ("get", "/v2", {}, 200),
    "v2's model": ("get", "/v2/models/{model}", {}, 200),
    "its configuration": ("get", "/v2/models/{model}/config", {}, 200),
    "its statistics": ("get", "/v2/models/{model}/stats", {}, 200),
    "its index": ("post", "/v2/repository/index", {}, 200),
    "logits": ("post", INFER, {"json": {"inputs": [TENSOR]}}, 200),
    "classes": ("post", INFER, {"json": {"inputs": [TENSOR], "outputs": [
        {"name": "logits", "parameters": {"classification": 2}}]}}, 200),
    "binary logits": (
        "post", INFER,
        {"data": picture(), "headers": {"Inference-Header-Content-Length": "0"}}, 200),
    "no inputs": ("post", INFER, {"json": {}}, 400),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
def test_response_matches_its_description(serve, case):
    method, address, request, status = ANSWERS[case]
    app = serve()
    response = app.test_client().open(address.format(model="toy"), method=method, **request)
    assert response.status_code == status
    expect_described(response, document(app), method, address.partition("?")[0])


@pytest.mark.parametrize(
    ("method", "path"),
    [("post", "/predict"), ("get", "/readyz"), ("get", "/ping"), ("post", INFER),
     ("get", "/v1/models"), ("get", "/models"), ("post", "/"), ("post", "/v2/repository/index")],
)  # fmt: skip
def test_response_while_loading_matches_its_description(make_loading_app, method, path):
    app = make_loading_app()
    response = app.test_client().open(path.format(model="toy"), method=method)
    assert response.status_code in (200, 500, 503)
    expect_described(response, document(app), method, path)


@pytest.mark.parametrize("path", ["/predict", "/", "/predictions/{model}", "/v1/models", INFER])
def test_missing_token_response_matches_its_description(serve, path):
    app = serve("tokens")
    method = "get" if path.endswith("models") else "post"
    response = app.test_client().open(path.format(model="toy"), method=method)
    assert response.status_code == 401
    expect_described(response, document(app), method, path)


def expect_described(response, document, method, path):
    path = path.replace("/1.0", "/{version}").replace("/2.0", "/{version}")
    path = path.replace("/all", "/{version}")
    resolve = functools.partial(resolved, document)
    described = resolve(document["paths"][path][method]["responses"][str(response.status_code)])
    for name, header in described["headers"].items():
        if resolve(header).get("required"):
            assert response.headers[name]
    schema = described["content"][response.mimetype]["schema"]
    if response.is_json:
        assert_valid(response.json, schema, document)


def resolved(document, node):
    if "$ref" not in node:
        return node
    return functools.reduce(lambda part, key: part[key], node["$ref"].split("/")[1:], document)


def assert_valid(content, schema, document):
    whole = {**schema, "components": document["components"]}  # where its references lead
    Draft202012Validator(whole).validate(content)
