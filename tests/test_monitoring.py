"""The dashboard and the alerts speak of metrics that there are, in expressions that parse."""

import json
import re
import shutil
import subprocess
from contextlib import closing

import pytest

from app import create_app
from paths import ROOT
from pictures import picture
from running_server import Server
from scrape import Scrape
from waiting import wait_until

FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
ALERTS = (FOLDER / "alerts.yml").read_text()
TORCHSERVES = re.compile(r"^(# \w+ )?ts_")  # whose names are as they are
NAME = r"\b(?:predictor|process)_[a-z_]+\b"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (apt-get install prometheus)",
)


def expressions():
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def promtool(*arguments, **options):
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@pytest.fixture(scope="module")
def exposition():
    """The real thing's, of several processes, after a request that was answered."""
    with closing(Server("--workers", "2", model="efficientnet_lite0")) as server:
        wait_until(lambda: server.log.count("Ready at") == 2)  # or the other one might be asked
        assert server.predict(picture()).status_code == 200
        wait_until(lambda: "predictor_model_info{" in server.get("/metrics").text)
        yield server.get("/metrics").text


@pytest.mark.parametrize("text", [ALERTS, "\n".join(expressions())], ids=["alerts", "dashboard"])
def test_every_metric_that_is_named_exists(exposition, text):
    named = set(re.findall(NAME, text))
    assert len(named) > 5
    assert named - Scrape(exposition).names == set()


@pytest.mark.parametrize("text", [ALERTS, "\n".join(expressions())], ids=["alerts", "dashboard"])
def test_every_label_value_that_is_named_exists(app, text):
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    named = re.findall(r'route(?:=|!~)"([^"]*)"', text)
    assert named
    assert {route for choice in named for route in choice.split("|")} <= rules
    series = Scrape(app.test_client().get("/metrics").text)
    for reason in re.findall(r'reason=~"([^"]*)"', text):
        for code in reason.split("|"):
            assert f'predictor_rejected_total{{reason="{code}"}}' in series


def test_one_process_tells_the_same_metrics_as_several(exposition, classifier):
    client = create_app(classifier.settings, classifier).test_client()
    client.post("/predict", data=picture())
    client.get("/metrics")
    assert Scrape(client.get("/metrics").text).names == Scrape(exposition).names


def test_the_dashboard_can_be_imported_anywhere():
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    sources = re.findall(r'"uid": "([^"]*)"', json.dumps(DASHBOARD["panels"]))
    assert set(sources) == {"${datasource}"}
    assert all('instance=~"$instance"' in expression for expression in expressions())
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids) > 10


@needs_promtool
def test_the_rules_and_the_configuration_are_accepted():
    for kind, file in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        checked = promtool("check", kind, FOLDER / file)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_the_dashboards_expressions_parse(tmp_path):
    filled = [e.replace("$__rate_interval", "5m").replace("$instance", ".*") for e in expressions()]
    rules = [{"record": f"panel:{i}", "expr": expr} for i, expr in enumerate(filled)]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs_promtool
def test_the_metrics_are_named_as_the_field_names_them(exposition):
    ours = "\n".join(line for line in exposition.splitlines() if not TORCHSERVES.search(line))
    checked = promtool("check", "metrics", input=ours + "\n")
    assert (checked.returncode, checked.stderr) == (0, "")


# Time series as they come, minute by minute, and which alerts they must raise.
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
    "one of two workers loads": (
        {
            'predictor_ready{instance="a",pid="1"}': "1x40",
            'predictor_ready{instance="a",pid="2"}': "0x40",
        },
        set(),
    ),
    "nobody is ready": (
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
    "one in ten fails": (
        {
            'predictor_requests_total{instance="a",route="/predict",status="200"}': "0+60x40",
            'predictor_requests_total{instance="a",route="/predict",status="500"}': "0+6x40",
        },
        {"PredictorFails"},
    ),
    "workers are replaced": (
        {f'predictor_ready{{instance="a",pid="{i}"}}': f"_x{i * 5} 1x4 stale" for i in range(1, 8)},
        {"PredictorWorkersDie"},
    ),
}


@needs_promtool
@pytest.mark.parametrize(("series", "raised"), STORIES.values(), ids=STORIES.keys())
def test_an_alert_is_raised_when_it_should_be_and_only_then(tmp_path, series, raised):
    alerts = set(re.findall(r"alert: (\w+)", ALERTS))
    checks = [{"eval_time": "36m", "alertname": alert, "exp_alerts": []} for alert in alerts]
    story = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": checks,
    }
    tests = {"rule_files": [str(FOLDER / "alerts.yml")], "tests": [story]}
    path = tmp_path / "story.yml"
    path.write_text(json.dumps(tests))
    checked = promtool("test", "rules", path)
    # Each alert is expected to keep silent, so that what promtool misses is what was raised.
    assert set(re.findall(r"alertname: (\w+)", checked.stdout + checked.stderr)) == raised
