"""KServe's manifests fit together, and with the app."""

import base64

import pytest

pytest.importorskip("kubernetes_validate", reason="`make manifests` installs what this needs")

from deployed import apps, environment, kserve

import onnx_files
from app import create_app
from conftest import store_of
from pictures import picture
from predictor.settings import Settings
from waiting import wait_until

MODEL = '[input]\nresize = "squash"\nmean = 0.5\nstd = 0.25\n'


def test_kserve_gets_the_model_by_the_name_of_the_service(tmp_path):
    """KServe puts a folder at /mnt/models, and the name into the settings."""
    onnx_files.write(tmp_path / "model.onnx")
    (tmp_path / "model.toml").write_text(MODEL)
    environ = environment(apps()["kserve"])
    assert environ["PREDICTOR_MODEL"] == "/mnt/models"
    settings = Settings.from_env(environ | {"PREDICTOR_MODEL": str(tmp_path)})
    app = create_app(settings)
    store = store_of(app)
    store.start()
    try:
        wait_until(lambda: app.test_client().get("/v2/health/ready").status_code == 200)
        client = app.test_client()
        photo = {"instances": [{"b64": base64.b64encode(picture()).decode()}]}
        answer = client.post("/v1/models/flowers:predict", json=photo)
        assert len(answer.json["predictions"]) == 1
        assert client.get("/v2/models/flowers/ready").status_code == 200
    finally:
        store.close()


def test_the_inference_service_uses_the_runtime():
    runtime, service = kserve()["ServingRuntime"], kserve()["InferenceService"]
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [
        one["name"] for one in runtime["spec"]["supportedModelFormats"]
    ]
    assert runtime["spec"]["containers"][0]["name"] == "kserve-container"
    rolling = service["spec"]["predictor"]["deploymentStrategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0


def test_kserve_reads_the_metrics_at_the_apps_port(client):
    spec = kserve()["ServingRuntime"]["spec"]
    notes = spec["annotations"]
    assert client.get(notes["prometheus.kserve.io/path"]).status_code == 200
    port = spec["containers"][0]["ports"][0]["containerPort"]
    assert notes["prometheus.kserve.io/port"] == str(port)
