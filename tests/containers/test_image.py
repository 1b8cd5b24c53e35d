"""The image ``onnx``, run as by an orchestrator with strict rules: ``make containers``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import closing

import psutil
import pytest

import container
from container import Container
from onnx_files import CLASSES, write
from paths import ROOT
from photographs import photographs
from pictures import encode
from predictor import __version__
from predictor.models.loading import load_model
from predictor.settings import Settings

MEGABYTE = 1_000_000  # the unit of podman and docker
TOML = "[input]\nresize = 72\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
COFFEE = 6  # position of the photograph
STATUS = 'print(open("/proc/1/status").read())'
UNIT = (ROOT / "deploy" / "systemd" / "predictor.service").read_text()

SKIP = container.reason_to_skip()
pytestmark = [
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # the first test waits until the image is built
    pytest.mark.skipif(SKIP != "", reason=SKIP),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return container.build("onnx", tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model's folder that user 10001 can read."""
    folder = tmp_path_factory.mktemp("models")
    folder.chmod(0o755)
    write(folder / "net.onnx")
    (folder / "labels.txt").write_text("\n".join(f"thing {index}" for index in range(CLASSES)))
    (folder / "model.toml").write_text(
        f'name = "flowers"\nweights = "net.onnx"\nlabels = "labels.txt"\n{TOML}'
    )
    return folder


@pytest.fixture(scope="module")
def photo():
    return encode(photographs()[COFFEE])


@pytest.fixture(scope="module")
def best(models):
    """The photo's best label, by the same file in this process."""
    model = load_model(Settings(model=str(models)), 1)
    pixels = model.scorer.preprocessing(photographs()[COFFEE])
    return f"thing {model.scorer.logits([pixels], 1)[0].argmax()}"


@pytest.fixture(scope="module")
def running(image, models):
    """A container that was started as SageMaker does it, with ``serve``."""
    with closing(Container(image, models, command=["serve"])) as started:
        started.seconds_to_first_200()
        yield started


def test_image_is_at_most_350_megabytes(image, capsys):
    (found,) = json.loads(container.podman("image", "inspect", image))
    with capsys.disabled():
        print(f"\nimage onnx: {found['Size'] / MEGABYTE:.0f} MB")
    assert found["Size"] <= 350 * MEGABYTE


def test_image_has_user_health_check_and_labels(image):
    (found,) = json.loads(container.podman("image", "inspect", image))
    config = found["Config"]
    assert (config["User"], config["StopSignal"]) == ("10001:10001", "SIGTERM")
    assert (config["Entrypoint"], config["Cmd"]) == (["predictor"], ["serve"])
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert found["Healthcheck"]["Test"][0] == "CMD"
    assert config["Labels"]["org.opencontainers.image.version"] == __version__


def test_container_has_no_torch(running):
    found = "import importlib.util; print(importlib.util.find_spec('torch'))"
    assert running.python(found) == "None\n"


def test_server_has_no_privileges(running):
    status = dict(line.split(":\t", 1) for line in running.python(STATUS).strip().splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")


def test_photo_gets_the_class_of_the_file(running, photo, best):
    status, text = running.ask("POST", "/predict", photo, "image/png")
    assert (status, json.loads(text)["class_name"]) == (200, best)


def test_container_meets_sagemakers_contract(running, photo, best):
    assert running.ask("GET", "/ping")[0] == 200
    status, text = running.ask("POST", "/invocations", photo, "image/png")
    answer = json.loads(text)
    assert (status, max(answer, key=answer.get)) == (200, best)


def test_health_check_passes(running):
    container.podman("healthcheck", "run", running.id)


def test_server_writes_to_no_folder_of_the_image(running, photo):
    running.ask("POST", "/predict", photo, "image/png")
    added = re.findall(r"^[AC] (\S+)", container.podman("diff", running.id), re.MULTILINE)
    mounted = {"/etc", "/etc/mtab", "/etc/resolv.conf", "/models", "/proc", "/run", "/sys"}
    assert {path for path in added if not path.startswith("/run/")} <= mounted


def test_sigterm_ends_the_container_with_status_0(image, models, photo, capsys):
    with closing(Container(image, models)) as started:
        seconds = started.seconds_to_first_200()
        assert started.ask("POST", "/predict", photo, "image/png")[0] == 200
        master = psutil.Process(started.inspect()["State"]["Pid"])
        processes = [master, *master.children(recursive=True)]
        used = sum(process.memory_full_info().pss for process in processes) / MEGABYTE
        times = [process.cpu_times() for process in processes]
        cpu = sum(time.user + time.system for time in times)
        with capsys.disabled():
            print(f"\nstart to the first 200: {seconds:.2f} s; until one photo {cpu:.2f} s of CPU")
            print(f"memory: {used:.0f} MB")
        assert started.stop() == 0, started.log


def test_container_without_a_model_says_what_is_missing(image, tmp_path):
    tmp_path.chmod(0o755)
    with closing(Container(image, tmp_path)) as started:
        container.podman("wait", started.id)
        assert started.inspect()["State"]["ExitCode"] not in (0, 137)
        assert "/models" in started.log
        assert "Traceback" not in started.log


def calls_of(name):
    """A system call, or all calls of a group such as ``@system-service``."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", name]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set().union(*map(calls_of, re.findall(r"^    (@?[a-z0-9_-]+)$", listed, re.MULTILINE)))


def allowed_calls():
    """The calls that the unit for systemd allows, as a profile for podman."""
    allowed = set()
    for words in re.findall(r"^SystemCallFilter=(.*)", UNIT, re.MULTILINE):
        calls = calls_of(words.removeprefix("~"))
        allowed = allowed - calls if words.startswith("~") else allowed | calls
    rule = {"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [rule]}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_system_calls_of_the_unit_suffice(image, models, photo, tmp_path):
    profile = tmp_path / "calls.json"
    profile.write_text(json.dumps(allowed_calls()))
    with closing(Container(image, models, f"--security-opt=seccomp={profile}")) as started:
        started.seconds_to_first_200()
        assert started.ask("POST", "/predict", photo, "image/png")[0] == 200
        assert re.search(r"predictor_ready\{.*\} 1", started.ask("GET", "/metrics")[1])
        assert "No folder is writable" not in started.log
        assert started.stop() == 0, started.log
