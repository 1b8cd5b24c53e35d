"""The app answers as the manifests say, if it has the variables and the files of a pod."""

import os
import re
import subprocess

import pytest
import requests

pytest.importorskip("kubernetes_validate", reason="`make manifests` installs what this needs")

from deployed import apps, environment, overlay, pod_of

from pictures import picture
from predictor.store import file
from running_server import Server
from store_server import add
from toy import LABELS
from waiting import wait_until

TOKEN, OTHER = "correct-horse-battery", "battery-horse-correct"


def swap(volume, number, name, text):
    """Put a file into a ConfigMap's or Secret's volume as the kubelet does: by changing a link."""
    (volume / f"..{number}").mkdir(parents=True)
    (volume / f"..{number}" / name).write_text(text)
    (volume / "..new").symlink_to(f"..{number}")
    (volume / "..new").replace(volume / "..data")
    if not (volume / name).is_symlink():
        (volume / name).symlink_to(f"..data/{name}")


@pytest.fixture
def pod(tmp_path):
    """The volumes of a pod, with two versions of a model, after its init container has run."""
    for version in (1, 2):
        add(tmp_path / "models", "flowers", version, str(version))
    swap(tmp_path / "config", 1, "store.toml", overlay("cpu")["ConfigMap"]["data"]["store.toml"])
    swap(tmp_path / "tokens", 1, "tokens", f"{TOKEN}\n")
    (init,) = pod_of(overlay("cpu")["Deployment"])["initContainers"]
    for _ in range(2):  # another pod finds the link in the volume
        subprocess.run([inside(tmp_path, word) for word in init["command"]], check=True)
    return tmp_path


def inside(pod, text):
    """Replace an absolute path by that in the folder of a pod."""
    return re.sub("^/", f"{pod}/", text)


@pytest.fixture
def server(pod):
    container = apps()["cpu"]
    environ = {name: inside(pod, value) for name, value in environment(container).items()}
    environ |= {"PORT": "0", "PREDICTOR_PORT": "tcp://10.0.0.1:80"}
    server = Server("--pythonpath", "tests", app="toy_store:app", environ=environ)
    yield server.wait_until_ready()
    server.close()


def ask(server, token=TOKEN):
    """The class that is answered, or the status."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.post(f"{server.url}/predict", picture(), headers=headers, timeout=60)
    names = [label.class_name for label in LABELS]
    return names.index(answer.json()["class_name"]) if answer.ok else answer.status_code


def test_a_pod_serves_the_store_and_follows_its_config_map_and_secret(server, pod):
    assert (ask(server), ask(server, OTHER)) == (2, 401)  # the newest version
    swap(pod / "config", 2, "store.toml", "[models.flowers]\nversions = [1]\n")
    wait_until(lambda: ask(server) == 1)
    swap(pod / "tokens", 2, "tokens", f"{OTHER}\n")
    wait_until(lambda: ask(server) == 401)
    assert ask(server, OTHER) == 1
    assert len(server.workers) == 1  # without a restart
    assert server.stop() == 0


def test_the_store_link_survives_a_volume_that_has_a_file_of_the_name(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "store.toml").write_text("[models.old]\n")
    swap(tmp_path / "config", 1, "store.toml", "[models]\n")
    (init,) = pod_of(overlay("cpu")["Deployment"])["initContainers"]
    subprocess.run([inside(tmp_path, word) for word in init["command"]], check=True)
    assert file.read(tmp_path / "models").routes == {}
    assert os.readlink(tmp_path / "models" / "store.toml") == f"{tmp_path}/config/store.toml"
