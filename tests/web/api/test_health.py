import pytest

from conftest import store_of
from predictor.errors import WeightsError
from toy import ToyInfo


def test_ready_app_is_alive_and_names_its_model(client):
    assert client.get("/healthz").json == {"status": "alive"}
    ready = client.get("/readyz").json
    assert ready["status"] == "ready"
    assert ready["model"] == {
        **ToyInfo().public(),
        "input": {
            "size": [8, 8], "resize": 9, "interpolation": "bilinear", "mean": [0, 0, 0],
            "std": [1, 1, 1], "channels": "RGB", "scale": "0..1",
        },
        "output": {"activation": "softmax"},
        "max_batch_size": 8,
    }  # fmt: skip


def test_loading_app_is_alive_but_not_ready(loading_client):
    assert loading_client.get("/healthz").status_code == 200
    response = loading_client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["Retry-After"]


def test_failed_load_makes_both_probes_500_without_the_cause(make_loading_app):
    app = make_loading_app()
    store_of(app).loading.set_exception(WeightsError("A path on our machine."))
    for path in ("/healthz", "/readyz"):
        response = app.test_client().get(path)
        assert response.status_code == 500
        assert "path on our machine" not in response.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_ended_inference_thread_makes_both_probes_500(client, store, path):
    store.close()
    assert client.get(path).status_code == 500


def test_hanging_batch_makes_healthz_500(client, monkeypatch):
    monkeypatch.setattr("predictor.engine.lanes.Lanes.busy_s", 121.0)
    assert "121 s" in client.get("/healthz").json["detail"]
