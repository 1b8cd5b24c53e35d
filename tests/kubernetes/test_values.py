"""The manifests agree with the app, and with each other: ports, probes, limits, names, times."""

import json
import re

import pytest
import yaml

pytest.importorskip("kubernetes_validate", reason="`make manifests` installs what this needs")

from deployed import (
    FOLDER,
    OVERLAYS,
    apps,
    bytes_of,
    environment,
    graceful_timeout,
    kserve,
    overlay,
    pod_of,
    pods,
    settings,
)

from paths import ROOT
from pictures import picture
from predictor.settings import WITHOUT_PREFIX, Settings
from predictor.store import file

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# Bytes of a loaded VGG16 in float32 (README.md), and of a small network in ONNX Runtime.
MODELS = {"cpu": 1.3e9, "cuda": 1.3e9, "onnx": 0.3e9, "kserve": 0.3e9}

each_app = pytest.mark.parametrize("name", [*OVERLAYS, "kserve"])
each_overlay = pytest.mark.parametrize("name", OVERLAYS)


@pytest.fixture
def tokens(tmp_path):
    (tmp_path / "tokens").write_text("correct-horse-battery\n")
    return tmp_path / "tokens"


# The container


@each_app
def test_every_variable_is_a_setting_of_the_app(name, tokens):
    environ = environment(apps()[name])
    settings(apps()[name], tokens)  # or it raises SettingsError
    assert {one for one in environ if not one.startswith("PREDICTOR_")} <= set(WITHOUT_PREFIX)


@each_app
def test_the_app_listens_where_the_probes_ask(name):
    container = apps()[name]
    (port,) = container["ports"]
    assert environment(container)["PORT"] == str(port["containerPort"])
    asked = {container[probe]["httpGet"]["port"] for probe in PROBES}
    assert asked <= {port["name"], port["containerPort"]}


@each_app
def test_probes_are_answered_without_a_token(name, make_client):
    client = make_client(tokens=("correct-horse-battery",))
    assert client.get("/models").status_code == 401
    container = apps()[name]
    paths = [container[probe]["httpGet"]["path"] for probe in PROBES]
    assert [client.get(path).status_code for path in paths] == [200] * 3
    assert paths[:2] in (["/readyz"] * 2, ["/v2/health/ready"] * 2)


@each_app
def test_a_loading_pod_gets_no_requests_and_is_not_restarted(name, make_loading_app):
    client, container = make_loading_app().test_client(), apps()[name]
    status = {
        probe: client.get(container[probe]["httpGet"]["path"]).status_code for probe in PROBES
    }
    assert status == {"startupProbe": 503, "readinessProbe": 503, "livenessProbe": 200}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


@each_app
def test_a_pod_has_time_to_answer_the_requests_in_progress(name):
    before = apps()[name]["lifecycle"]["preStop"]["sleep"]["seconds"]
    pod = kserve()["InferenceService"]["spec"]["predictor"] if name == "kserve" else pods()[name]
    assert before >= 5  # until no node sends requests to the pod any more
    assert pod["terminationGracePeriodSeconds"] >= before + graceful_timeout() + 5


@each_app
def test_processors_are_whole_and_reserved(name):
    resources = apps()[name]["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]
    assert resources["limits"]["cpu"].isdecimal()  # the app rounds a fraction down


@each_app
def test_memory_suffices_for_the_model_and_the_uploads(name, tokens):
    resources, chosen = apps()[name]["resources"], settings(apps()[name], tokens)
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    uploads = chosen.max_in_flight * chosen.max_upload_bytes
    assert bytes_of(resources["limits"]["memory"]) >= MODELS[name] + uploads


@each_app
def test_no_variable_of_a_service_disturbs_the_app(name):
    pod = kserve()["InferenceService"]["spec"]["predictor"] if name == "kserve" else pods()[name]
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("name", [*OVERLAYS, "fill", "kserve"])
def test_every_container_is_confined(name):
    """As Kubernetes' profile "restricted" wants it, and without a writable root."""
    pod = pods()[name]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        context = pod.get("securityContext", {}) | container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == 10001
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"cpu", "memory"} == container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
    assert name == "kserve" or pod["automountServiceAccountToken"] is False


# The Deployment, and what leads to it


@each_overlay
def test_a_rollout_and_a_drain_leave_pods_that_answer(name):
    found = overlay(name)
    spec = found["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in spec  # the autoscaler has them
    least = found["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
    assert least > found["PodDisruptionBudget"]["spec"]["maxUnavailable"] >= 1


@each_overlay
def test_every_selector_finds_the_pods(name):
    found = overlay(name)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    (spread,) = pod_of(found["Deployment"])["topologySpreadConstraints"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == found["Deployment"]["metadata"]["name"]


@each_overlay
def test_every_way_leads_to_the_apps_port(name):
    found = overlay(name)
    (port,) = pod_of(found["Deployment"])["containers"][0]["ports"]
    (service,) = found["Service"]["spec"]["ports"]
    assert service["targetPort"] == port["name"]
    (rule,) = found["Ingress"]["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    assert (path["path"], path["pathType"]) == ("/", "Prefix")
    assert backend["name"] == found["Service"]["metadata"]["name"]
    assert backend["port"] == {"name": service["name"]}
    (allowed,) = found["NetworkPolicy"]["spec"]["ingress"]
    assert allowed["ports"] == [{"port": port["name"]}]
    (tls,) = found["Ingress"]["spec"]["tls"]
    assert tls["hosts"] == [rule["host"]]


@each_overlay
def test_the_ingress_accepts_what_the_app_accepts(name, tokens):
    found = overlay(name)
    chosen = settings(pod_of(found["Deployment"])["containers"][0], tokens)
    notes = found["Ingress"]["metadata"]["annotations"]
    sizes = {note for key, note in notes.items() if key.endswith("body-size")}
    assert sizes == {f"{chosen.max_upload_bytes // 2**20}m"}
    times = [int(note.removesuffix("s")) for key, note in notes.items() if "timeout" in key]
    assert len(times) == 2
    assert min(times) > chosen.request_timeout_s
    assert chosen.trusted_proxies == 1


# Metrics


@pytest.fixture
def exposition(client):
    client.post("/predict", data=picture())
    client.get("/metrics")
    return client.get("/metrics").text


@each_overlay
def test_the_autoscaler_follows_a_metric_of_the_app(name, exposition):
    spec = overlay(name)["HorizontalPodAutoscaler"]["spec"]
    queue, cpu = spec["metrics"]
    metric = queue["pods"]["metric"]["name"]
    assert f"# TYPE {metric} gauge" in exposition
    target = queue["pods"]["target"]
    assert target["type"] == "AverageValue"
    assert 0 < int(target["averageValue"]) < Settings().max_queue
    assert cpu["resource"]["name"] == "cpu"  # while the adapter is missing
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    assert re.match(r"\w+", rule["seriesQuery"])[0] == metric


@each_overlay
def test_prometheus_reads_the_metrics_with_a_token(name, client):
    found = overlay(name)
    (endpoint,) = found["ServiceMonitor"]["spec"]["endpoints"]
    assert client.get(endpoint["path"]).status_code == 200
    assert endpoint["port"] == found["Service"]["spec"]["ports"][0]["name"]
    selector = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= found["Service"]["metadata"]["labels"].items()
    secret = endpoint["authorization"]["credentials"]["name"]
    volumes = pod_of(found["Deployment"])["volumes"]
    assert {"secretName": secret} in [volume.get("secret") for volume in volumes]


@each_overlay
def test_the_alerts_find_the_pods(name):
    """Without ``jobLabel``, the label ``job`` is the name of the Service."""
    alerts = (ROOT / "deploy" / "monitoring" / "alerts.yml").read_text()
    jobs = set(re.findall(r'job="(\w+)"', alerts))
    assert jobs == {overlay(name)["Service"]["metadata"]["name"]}
    assert "jobLabel" not in overlay(name)["ServiceMonitor"]["spec"]


# Volumes and the store


@each_overlay
def test_every_volume_has_its_source_and_its_mounts(name):
    found = overlay(name)
    pod = pod_of(found["Deployment"])
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    containers = [*pod["containers"], *pod["initContainers"]]
    mounted = {mount["name"] for one in containers for mount in one["volumeMounts"]}
    assert mounted == volumes.keys()
    claim = volumes["models"]["persistentVolumeClaim"]["claimName"]
    assert claim == found["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["store"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    fill = pods()["fill"]["volumes"]
    assert [one["persistentVolumeClaim"]["claimName"] for one in fill] == [claim]


@each_overlay
def test_the_app_cannot_write_what_it_reads(name):
    mounts = apps()[name]["volumeMounts"]
    assert all(mount["readOnly"] for mount in mounts)
    assert all("subPath" not in mount for mount in mounts)  # such files do not follow a ConfigMap
    environ = environment(apps()[name])
    places = tuple(mount["mountPath"] for mount in mounts)
    read = [environ["PREDICTOR_STORE"], environ["PREDICTOR_TOKENS_FILE"]]
    assert all(path.startswith(places) for path in read)


def test_the_store_file_is_one_that_the_app_reads(tmp_path):
    text = overlay("cpu")["ConfigMap"]["data"]["store.toml"]
    (tmp_path / "store.toml").write_text(text)
    (tmp_path / "flowers" / "1").mkdir(parents=True)
    assert [*file.read(tmp_path).entries] == [("flowers", 1)]


@each_overlay
def test_an_image_says_which_build_it_is(name):
    assert apps()[name]["image"].endswith(f"/photo-predictor:{name}")


def test_only_the_cuda_overlay_asks_for_a_gpu():
    asking = {name for name, app in apps().items() if "nvidia" in json.dumps(app["resources"])}
    assert asking == {"cuda"}
