import io
import threading
from socket import gethostname
from time import time

import pytest

from conftest import app_of, store_of
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.settings import Settings
from scrape import Scrape
from toy import toy_model


@pytest.fixture
def scrape(client):
    return lambda: Scrape(client.get("/metrics").text)


def test_requests_are_counted_by_route_method_and_status(client, scrape):
    client.post("/predict", data=picture())
    client.put("/predict", data=b"text")
    client.get("/static/style.css").close()
    numbers = scrape()
    for series in (
        'method="POST",model="toy",route="/predict",status="200",version="1"',
        'method="PUT",model="toy",route="/predict",status="415",version="1"',
        'method="GET",route="/static/<path:filename>",status="200"',  # concerns no model
    ):
        assert numbers[f"predictor_requests_total{{{series}}}"] == 1
    series = '{model="toy",route="/predict",version="1"}'
    assert numbers[f"predictor_request_duration_seconds_count{series}"] == 2


def test_invented_paths_and_methods_add_no_series(client, scrape):
    scrape()  # itself a request, and a series from now on
    before = scrape()
    for i in range(20):
        client.get(f"/made/up/{i}?{i}")
        client.open("/predict", method=f"MADE{i}")
        client.get(f"/static/{i}")
    new = scrape().keys() - before.keys()
    assert {name for name in new if "_total" in name} == {
        'predictor_requests_total{method="GET",route="unmatched",status="404"}',
        'predictor_requests_total{method="other",route="unmatched",status="405"}',
        'predictor_requests_total{method="GET",route="/static/<path:filename>",status="404"}',
        'predictor_rejected_total{reason="not-found"}',
        'predictor_rejected_total{reason="method-not-allowed"}',
    }


def test_predictions_are_counted_by_model_and_errors_by_reason(client, scrape):
    client.post("/predict", json={"images": ["%%"]})
    client.post("/", data={"file": (io.BytesIO(picture()), "photo.png")})
    client.post("/predict", data=picture()[:60])
    numbers = scrape()
    assert numbers['predictor_predictions_total{model="toy",version="1"}'] == 1
    assert numbers['predictor_rejected_total{model="toy",reason="bad-request",version="1"}'] == 1
    assert numbers['predictor_rejected_total{model="toy",reason="damaged-image",version="1"}'] == 1
    assert numbers['predictor_decode_seconds_count{model="toy",version="1"}'] == 3
    assert numbers['predictor_queue_seconds_count{model="toy",version="1"}'] == 1


def test_metrics_name_classes_by_their_id_alone(client, scrape):
    client.post("/predict", data=picture("green"))
    names = [name for name in scrape() if "n00000001" in name or "green" in name]
    assert names == ['predictor_predicted_classes_total{class="n00000001",model="toy",version="1"}']


def test_metrics_answer_while_all_slots_are_held(make_app):
    app = make_app(max_in_flight=1)
    client = app.test_client()
    with store_of(app).process.slots.hold():
        client.post("/predict", data=picture())
        numbers = Scrape(client.get("/metrics").text)
    assert numbers["predictor_in_flight"] == 1
    assert numbers['predictor_rejected_total{model="toy",reason="overloaded",version="1"}'] == 1


def test_metrics_do_not_load_the_model():
    loads = threading.Event()
    classifier = Classifier(Settings(), load=lambda *_: loads.set() or toy_model())
    client = app_of(classifier).test_client()
    assert Scrape(client.get("/metrics").text)["predictor_ready"] == 0
    assert not loads.wait(0.1)


def test_failed_probe_is_not_counted_as_an_error(loading_client):
    assert loading_client.get("/readyz").status_code == 503
    numbers = Scrape(loading_client.get("/metrics").text)
    assert numbers['predictor_rejected_total{reason="not-ready"}'] == 0


@pytest.mark.parametrize(
    ("accepted", "type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=x", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text; version=1.0",
        ),
    ],
)
def test_accept_header_chooses_the_metrics_format(client, accepted, type):
    response = client.get("/metrics", headers={"Accept": accepted})
    assert response.headers["Content-Type"].startswith(type)
    assert response.text.endswith("# EOF\n") == ("openmetrics" in type)
    assert client.head("/metrics").status_code == 200


def test_prediction_requests_are_counted_by_outcome(client, scrape):
    client.post("/predict", data=picture())
    client.post("/", data={"file": (io.BytesIO(picture()), "photo.png")})
    client.post("/predict", data=b"text")
    client.post("/predict", data=b"")  # nothing of it came to the model
    numbers = scrape()
    count = 'predictor_prediction_seconds_count{model="toy",outcome="%s",version="1"}'
    assert numbers[count % "success"] == 2
    assert numbers[count % "fail"] == 1
    assert 0 <= time() - numbers["predictor_last_prediction_timestamp_seconds"] < 60


def test_torchserve_metric_names_have_the_same_numbers(client, scrape):
    client.post("/predict", data=picture())
    client.post("/predict", data=b"text")
    numbers = scrape()
    labels = f'{{hostname="{gethostname()}",model_name="toy",model_version="1.0"}}'
    assert numbers[f"ts_inference_requests_total{labels}"] == 2
    latency_s = numbers.sum("predictor_prediction_seconds_sum")
    assert numbers[f"ts_inference_latency_microseconds{labels}"] == pytest.approx(latency_s * 1e6)
    queue_s = numbers.sum("predictor_queue_seconds_sum")
    assert numbers[f"ts_queue_latency_microseconds{labels}"] == pytest.approx(queue_s * 1e6)


def test_torchserve_metrics_use_the_served_name(make_client):
    client = make_client(served_name="flowers")
    assert 'model_name="flowers"' in client.get("/metrics").text
