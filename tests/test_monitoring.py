"""The dashboard and the alerts use existing metrics and labels, in expressions that parse."""

import json
import re
import shutil
import subprocess
from collections import defaultdict
from contextlib import closing

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from conftest import app_of
from paths import ROOT
from pictures import picture
from running_server import ToyServer
from scrape import Scrape
from waiting import wait_until

FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
EXPRESSIONS = {
    "alerts": [rule["expr"] for rule in ALERTS],
    "dashboard": [t["expr"] for panel in DASHBOARD["panels"] for t in panel.get("targets", ())],
}
TORCHSERVE = re.compile(r"^(# \w+ )?ts_")  # names that TorchServe chose
NAME = r"\b(?:predictor|process)_[a-z_]+\b"
BY_PROMETHEUS = {"instance", "job"}  # labels that Prometheus adds

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (apt-get install prometheus)",
)


either_file = pytest.mark.parametrize("expressions", EXPRESSIONS.values(), ids=EXPRESSIONS)


def promtool(*arguments, **options):
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture(scope="module")
def exposition():
    """The metrics of a server with two workers, after one prediction."""
    with closing(ToyServer("--workers", "2")) as server:
        wait_until(lambda: server.log.count("Ready at") == 2)  # of both workers
        assert server.predict(picture()).status_code == 200
        wait_until(lambda: "predictor_model_info{" in server.get("/metrics").text)
        yield server.get("/metrics").text


@either_file
def test_every_metric_in_an_expression_exists(exposition, expressions):
    named = set(re.findall(NAME, "\n".join(expressions)))
    assert len(named) > 5
    assert named - Scrape(exposition).names == set()


@either_file
def test_every_label_in_an_expression_exists(exposition, expressions):
    known = defaultdict(set)
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            known[sample.name] |= {*sample.labels, *BY_PROMETHEUS}
    for expression in expressions:
        grouped = set(re.findall(r"\w+", ",".join(re.findall(r"by \(([^)]*)\)", expression))))
        for name, matchers in re.findall(rf"({NAME})(?:\{{([^}}]*)\}})?", expression):
            assert {*grouped, *re.findall(r"(\w+)[=!]", matchers)} - known[name] == set(), name


@either_file
def test_every_route_and_reason_in_an_expression_exists(app, expressions):
    text = "\n".join(expressions)
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    named = re.findall(r'route(?:=|!~)"([^"]*)"', text)
    assert named
    assert {route for choice in named for route in choice.split("|")} <= rules
    series = Scrape(app.test_client().get("/metrics").text)
    for reason in re.findall(r'reason=~"([^"]*)"', text):
        for code in reason.split("|"):
            assert f'predictor_rejected_total{{reason="{code}"}}' in series


def test_one_process_has_the_same_metrics_as_several(exposition, classifier):
    client = app_of(classifier).test_client()
    client.post("/predict", data=picture())
    client.get("/metrics")
    assert Scrape(client.get("/metrics").text).names == Scrape(exposition).names


def test_the_dashboard_works_with_any_data_source():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD["panels"]))
    assert set(sources) == {"${datasource}"}
    assert all('instance=~"$instance"' in each for each in EXPRESSIONS["dashboard"])
    assert {"version_a", "version_b"} < variables.keys()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) > 10


@needs_promtool
def test_promtool_accepts_the_rules_and_the_configuration():
    for kind, file in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        checked = promtool("check", kind, FOLDER / file)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_the_expressions_of_the_dashboard_parse(tmp_path):
    filled = [re.sub(r"\$(__)?\w+", "5m", each) for each in EXPRESSIONS["dashboard"]]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_metric_names_follow_the_conventions_of_prometheus(exposition):
    ours = "\n".join(line for line in exposition.splitlines() if not TORCHSERVE.search(line))
    checked = promtool("check", "metrics", input=ours + "\n")
    assert (checked.returncode, checked.stderr) == (0, "")


# Time series, minute by minute, and the alerts that they must raise.
STORIES = {
    "all is well": (
        {
            'predictor_ready{instance="a",pid="1"}': "1x40",
            'predictor_requests_total{instance="a",route="/predict",status="200"}': "0+60x40",
            'predictor_rejected_total{instance="a",reason="overloaded"}': "0x40",
            'up{instance="a",job="predictor"}': "1x40",
        },
        set(),
    ),
    "one of two workers is loading": (
        {
            'predictor_ready{instance="a",pid="1"}': "1x40",
            'predictor_ready{instance="a",pid="2"}': "0x40",
        },
        set(),
    ),
    "no worker is ready": (
        {'predictor_ready{instance="a",pid="1"}': "0x40"},
        {"PredictorNotReady"},
    ),
    "one in ten is refused": (
        {
            'predictor_requests_total{instance="a",route="/predict",status="503"}': "0+60x40",
            'predictor_rejected_total{instance="a",reason="overloaded"}': "0+6x40",
        },
        {"PredictorRefuses"},
    ),
    "a client sends images that cost too much": (
        {
            'predictor_requests_total{instance="a",route="/predict",status="413"}': "0+60x40",
            'predictor_rejected_total{instance="a",reason="too-costly"}': "0+60x40",
        },
        {"PredictorMisused"},
    ),
    "one in ten fails": (
        {
            'predictor_requests_total{instance="a",route="/predict",status="200"}': "0+60x40",
            'predictor_requests_total{instance="a",route="/predict",status="500"}': "0+6x40",
        },
        {"PredictorFails"},
    ),
    "one in a hundred goes to a model that always fails": (
        {
            'predictor_requests_total{instance="a",model="old",status="200"}': "0+6000x40",
            'predictor_requests_total{instance="a",model="new",status="500"}': "0+60x40",
        },
        {"PredictorFails"},
    ),
    "one of two models is slow": (
        {
            'predictor_prediction_seconds_bucket{instance="a",model="old",le="1"}': "0+6000x40",
            'predictor_prediction_seconds_bucket{instance="a",model="old",le="+Inf"}': "0+6000x40",
            'predictor_prediction_seconds_bucket{instance="a",model="new",le="1"}': "0x40",
            'predictor_prediction_seconds_bucket{instance="a",model="new",le="30"}': "0+6x40",
            'predictor_prediction_seconds_bucket{instance="a",model="new",le="+Inf"}': "0+6x40",
        },
        {"PredictorSlow"},
    ),
    "one of two workers cannot load a version": (
        {
            'predictor_model_failed{instance="a",model="net",version="1",pid="1"}': "0x40",
            'predictor_model_failed{instance="a",model="net",version="2",pid="1"}': "1x40",
        },
        {"PredictorModelFails"},
    ),
    "the store was unreadable for a minute": (
        {'predictor_store_failed{instance="a"}': "0x34 1 0x5"},
        set(),
    ),
    "the store is unreadable": (
        {'predictor_store_failed{instance="a"}': "1x40"},
        {"PredictorStoreNotFollowed"},
    ),
    "workers are replaced": (
        {f'predictor_ready{{instance="a",pid="{i}"}}': f"_x{i * 5} 1x4 stale" for i in range(1, 8)},
        {"PredictorWorkersDie"},
    ),
}


@needs_promtool
@pytest.mark.parametrize(("series", "raised"), STORIES.values(), ids=STORIES.keys())
def test_each_situation_raises_exactly_its_alerts(tmp_path, series, raised):
    checks = [{"eval_time": "36m", "alertname": rule["alert"], "exp_alerts": []} for rule in ALERTS]
    story = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": checks,
    }
    tests = {"rule_files": [str(FOLDER / "alerts.yml")], "tests": [story]}
    path = tmp_path / "story.yml"
    path.write_text(json.dumps(tests))
    checked = promtool("test", "rules", path)
    # The story expects no alert at all, so promtool reports each alert that was raised.
    assert set(re.findall(r"alertname: (\w+)", checked.stdout + checked.stderr)) == raised
