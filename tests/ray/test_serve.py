"""The app on two Ray nodes, in a network namespace of its own (``make ray``)."""

import re
from importlib.util import find_spec

import pytest
import requests
import yaml
from PIL import Image
from skimage import data

from onnx_files import write
from paths import ROOT
from pictures import encode
from predictor.settings import Settings
from predictor.store import file
from predictor.store.folder import store_for
from predictor.web import create_app
from tools import ray_cluster
from tools.ray_cluster import HOST, PORT, clients, post, replicas, serve_app, wait_for
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not find_spec("a2wsgi"), reason="Ray is not installed: run `make ray`."),
    pytest.mark.skipif(
        ray_cluster.why_not_here() is not None, reason=str(ray_cluster.why_not_here())
    ),
    pytest.mark.filterwarnings("ignore"),  # of Ray
]
URL = f"http://{HOST}:{PORT}"
DESCRIBED = {"PREDICTOR_RESIZE": "64", "PREDICTOR_MEAN": "0", "PREDICTOR_STD": "1"}
PHOTO = encode(Image.fromarray(data.chelsea()), "JPEG")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    net = str(write(tmp_path_factory.mktemp("net") / "net.onnx"))
    with pytest.MonkeyPatch.context() as patch:
        for name, text in {"PREDICTOR_MODEL": net, **DESCRIBED}.items():
            patch.setenv(name, text)
        yield Settings.from_env()


@pytest.fixture(scope="module")
def nodes(settings):
    with ray_cluster.cluster([None, None]) as nodes:
        serve_app(num_replicas=2)
        yield nodes


@pytest.fixture(scope="module")
def single(settings):
    store = store_for(settings)
    store.start()
    store.loading.result(timeout=60)
    yield create_app(settings, store).test_client()
    store.close()


@pytest.mark.parametrize(
    "path", ["/predict", "/predict?top_k=5", "/predictions/net", "/v1/models/net", "/v2", "/x"]
)
def test_answers_are_those_of_the_single_server(nodes, single, path):
    expected = single.post(path, data=PHOTO)
    found = requests.post(f"{URL}{path}", data=PHOTO, timeout=60)
    without_id = [
        re.sub(r'"request_id": "[^"]*"', "", text) for text in (found.text, expected.text)
    ]
    assert (found.status_code, without_id[0]) == (expected.status_code, without_id[1])


def test_a_chunked_body_is_read(nodes):
    assert requests.post(f"{URL}/predict", data=iter([PHOTO[:999], PHOTO[999:]])).ok


def test_an_answer_has_one_request_id(nodes):
    found = requests.post(f"{URL}/predict", data=PHOTO, headers={"X-Request-ID": "my-own-id"})
    assert found.headers["X-Request-ID"] == "my-own-id"


def test_a_replica_computes_with_its_share_of_the_processors(nodes):
    assert requests.get(f"{URL}/readyz", timeout=60).json()["model"]["threads"] == 1


def scrape():
    text = requests.get(f"{URL}/metrics", timeout=60).text
    series = r'^(predictor_requests_total\{.*route="/predict".*\}) (\d+)'
    return {name: int(float(value)) for name, value in re.findall(series, text, re.MULTILINE)}


def counted_replicas():
    return {re.search('replica="(.*?)"', name)[1] for name in scrape()}


def test_each_scrape_has_the_counts_of_all_replicas(nodes):
    before = sum(scrape().values())
    with clients(8, [post(PHOTO)]) as losses:
        wait_until(lambda: len(counted_replicas()) == 2)  # the proxy may know only one at first
    after = [scrape() for _ in range(4)]
    assert [sum(series.values()) for series in after] == [before + losses.asked] * 4


def test_a_killed_replica_loses_only_the_requests_that_it_has(nodes):
    """Of 500 at most as many as there are clients; usually half of these wait for each replica."""
    with clients(8, [post(PHOTO)]) as losses:
        wait_for(losses, 100)
        killed = replicas()[0]
        killed.kill()
        wait_for(losses, 400)
    print(f"SIGKILL of a replica: {losses}")
    assert losses.asked >= 500
    assert losses.lost <= 8
    assert losses.lost_twice == 0
    wait_until(lambda: len(replicas()) == 2 and killed.pid not in {p.pid for p in replicas()})


def test_a_rolling_update_loses_no_request(nodes):
    before = {process.pid for process in replicas()}
    with clients(8, [post(PHOTO)]) as losses:
        wait_for(losses, 50)
        serve_app(num_replicas=2)
        wait_until(lambda: before.isdisjoint(process.pid for process in replicas()), 120)
        wait_for(losses, 50)
    print(f"rolling update: {losses}")
    assert losses.lost == 0


def test_replicas_follow_a_store_on_shared_storage(nodes, tmp_path):
    for version in (1, 2):
        folder = tmp_path / "net" / str(version)
        folder.mkdir(parents=True)
        write(folder / "model.onnx")
        (folder / "model.toml").write_text("[input]\nresize = 64\nmean = 0\nstd = 1\n")
    file.serve(tmp_path, "net", [1])
    model = dict.fromkeys(["PREDICTOR_MODEL", *DESCRIBED], "")
    serve_app({"PREDICTOR_STORE": str(tmp_path), **model}, num_replicas=2)
    with clients(8, [post(PHOTO)]) as losses:
        wait_for(losses, 20)
        file.serve(tmp_path, "net", [2])
        file.set_default(tmp_path, "net", 2)
        wait_until(lambda: {answering_version() for _ in range(10)} == {"2"})
    assert losses.lost == 0


def answering_version():
    return requests.post(f"{URL}/predict", data=PHOTO, timeout=60).headers["X-Model-Version"]


def test_the_configuration_fits_the_deployment(settings):
    from ray.serve.schema import ServeDeploySchema

    from deploy.ray import serve

    (app,) = ServeDeploySchema(
        **yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    ).applications
    assert app.import_path == "deploy.ray.serve:app"
    assert [deployment.name for deployment in app.deployments] == [serve.Predictor.name]
    assert serve.Predictor.max_ongoing_requests > settings.max_in_flight
    Settings.from_env(app.runtime_env["env_vars"])
