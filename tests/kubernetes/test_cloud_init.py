"""The user data for EC2: cloud-init's own check accepts it, and its values agree with the app's."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kubernetes_validate", reason="`make manifests` installs what this needs")

from deployed import graceful_timeout

from paths import ROOT
from predictor.settings import Settings

FILE = ROOT / "deploy" / "ec2" / "cloud-init.yaml"
DATA = yaml.safe_load(FILE.read_text())
WRITTEN = {one["path"]: one["content"] for one in DATA["write_files"]}
UNIT = WRITTEN["/etc/systemd/system/predictor.service"].replace("\\\n", " ")
PACKAGE = Path(sys.prefix) / "cloud-init" / "usr" / "lib" / "python3" / "dist-packages"

needs_cloud_init = pytest.mark.skipif(
    not PACKAGE.exists(), reason="Debian's package cloud-init is not unpacked: `make manifests`"
)


def schema(file):
    """Run `cloud-init schema`. Installed, the package would run at each boot."""
    command = [sys.executable, "-m", "cloudinit.cmd.main", "schema", "--config-file", str(file)]
    environ = os.environ | {"PYTHONPATH": str(PACKAGE)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)


@needs_cloud_init
def test_cloud_init_accepts_the_user_data():
    checked = schema(FILE)
    assert (checked.returncode, checked.stdout) == (0, f"Valid cloud-config: {FILE}\n")


BROKEN = {
    "a value of the wrong type": ("packages:\n  - docker.io", "packages: docker.io\nbootcmd:"),
    "an unknown field of a file": ("- path: /root", "- pathname: /root"),
    "without the first line": ("#cloud-config\n", ""),
}


@needs_cloud_init
@pytest.mark.parametrize(("old", "new"), BROKEN.values(), ids=BROKEN)
def test_cloud_init_refuses_broken_user_data(tmp_path, old, new):
    assert old in FILE.read_text()
    (tmp_path / "data.yaml").write_text(FILE.read_text().replace(old, new))
    assert schema(tmp_path / "data.yaml").returncode == 1


def test_user_data_has_only_the_keys_that_are_meant():
    """cloud-init accepts unknown keys at the top, and ignores them."""
    known = {"packages", "package_update", "package_upgrade", "write_files", "runcmd"}
    assert DATA.keys() == known


def test_user_data_fits_into_what_ec2_accepts():
    assert len(FILE.read_bytes()) < 16 * 1024


def test_every_variable_of_the_machine_is_a_setting(tmp_path):
    (tmp_path / "tokens").write_text("correct-horse-battery\n")
    lines = WRITTEN["/etc/predictor/environment"].splitlines()
    environ = dict(line.split("=", 1) for line in lines)
    path = environ["PREDICTOR_TOKENS_FILE"]
    assert f":{path.rpartition('/')[0]}:ro" in UNIT
    Settings.from_env(environ | {"PREDICTOR_TOKENS_FILE": str(tmp_path / "tokens")})


def test_the_container_is_confined_and_published_at_its_port():
    (start,) = re.findall("^ExecStart=(.*)", UNIT, re.MULTILINE)
    published, port = re.search(r"--publish \d+:(\d+) --env PORT=(\d+)", start).groups()
    assert published == port
    for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges"):
        assert option in start
    assert start.endswith("${IMAGE} serve")


def test_the_machine_waits_for_the_requests_in_progress():
    stop, unit = (int(re.search(rf"{key}(\d+)", UNIT)[1]) for key in ("--time ", "StopSec="))
    assert graceful_timeout() < stop < unit


def test_the_numbers_of_machines_follow_from_the_measured_speed():
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "docs/deployment.md"))
    speeds = [
        float(re.search(rf"^\| This app, {precision}.*\| ([\d.]+) \|$", readme, re.MULTILINE)[1])
        for precision in ("bfloat16", "float32")
    ]
    assert all(f" {speed} " in " ".join(page.split()) for speed in speeds)
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) == 5
    for needed, *machines in rows:
        rate = 1.3 * int(needed.replace(",", ""))
        assert [math.ceil(rate / speed) for speed in speeds] == [int(one) for one in machines]
