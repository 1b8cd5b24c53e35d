import os
import runpy
from types import SimpleNamespace

import pytest
from gunicorn.config import KNOWN_SETTINGS

from paths import ROOT
from predictor import settings
from predictor.server import hooks, start


@pytest.fixture
def conf(monkeypatch):
    """Read the file as gunicorn does, in an environment; returns its names."""

    def read(gpus=(), **environ):
        monkeypatch.setattr(settings, "_handed_on", None)
        for name in ("HOST", "PORT", "WEB_CONCURRENCY", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("glob.glob", lambda _: list(gpus))
        return SimpleNamespace(**runpy.run_path(str(ROOT / "gunicorn.conf.py")))

    monkeypatch.setattr(hooks, "state", hooks.State())
    return read


def test_on_a_cpu_there_is_one_process(conf):
    assert conf().workers == 1


@pytest.mark.parametrize(
    ("environ", "workers"),
    [
        ({}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,2"}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 1),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 1),
        ({"PREDICTOR_DEVICE": "cpu"}, 1),
        ({"WEB_CONCURRENCY": "8"}, 8),
    ],
)
def test_there_is_one_process_per_gpu(conf, environ, workers):
    assert conf(gpus=[f"/dev/nvidia{i}" for i in range(4)], **environ).workers == workers


def test_probes_find_a_thread_when_all_slots_are_held(conf):
    assert conf(PREDICTOR_MAX_IN_FLIGHT="10", PREDICTOR_MAX_EXPLANATIONS="7").threads > 17


def test_admitted_requests_are_answered_before_a_worker_ends(conf):
    assert conf(PREDICTOR_REQUEST_TIMEOUT_S="90.5").graceful_timeout > 90.5


def test_idle_connections_outlive_those_of_usual_load_balancers(conf):
    assert conf().keepalive > 60


def test_the_app_is_not_loaded_before_the_fork(conf):
    assert conf().preload_app is False


@pytest.mark.parametrize(
    ("environ", "bind"),
    [
        ({}, "127.0.0.1:5000"),
        ({"HOST": "0.0.0.0", "PORT": "80"}, "0.0.0.0:80"),
        ({"HOST": "::1"}, "[::1]:5000"),
    ],
)
def test_host_and_port_become_the_address(conf, environ, bind):
    assert conf(**environ).bind == [bind]


def test_an_invalid_setting_stops_the_start_with_a_sentence(conf):
    with pytest.raises(SystemExit, match=r"^The server cannot start. PREDICTOR_MAX_QUEUE='many'"):
        conf(PREDICTOR_MAX_QUEUE="many")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "two"),
    ],
)
def test_an_invalid_number_stops_the_start_with_a_sentence(conf, name, value):
    with pytest.raises(SystemExit, match=f"{name}='{value}' is not a whole number between"):
        conf(**{name: value})


@pytest.mark.parametrize(("writable", "folder"), [(True, "/dev/shm"), (False, None)])
def test_the_heartbeat_is_in_memory_if_possible(conf, monkeypatch, writable, folder):
    monkeypatch.setattr(os, "access", lambda path, _mode: path == "/dev/shm" and writable)
    assert conf().worker_tmp_dir == folder


def test_gunicorn_finds_every_hook(conf):
    names = {setting.name for setting in KNOWN_SETTINGS}
    found = conf()
    for module in (hooks, start):
        ours = {name for name, value in vars(module).items() if name in names and callable(value)}
        assert {name for name in ours if not hasattr(found, name)} == set()
    assert found.post_fork is hooks.post_fork


def test_reading_the_file_again_keeps_the_state(conf):
    state = conf().state
    assert conf().state is state
