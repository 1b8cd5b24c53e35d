"""``--model``, ``--weights`` and ``--labels`` of every command."""

import os
import signal
import sys
from contextlib import closing

import pytest

from pictures import picture
from predictor.cli import COMMANDS, development, main
from predictor.server import production
from running_server import Server
from toy import toy_model
from waiting import wait_until

OPTIONS = ["--model", "resnet18", "--weights", "a.pth", "--labels=a.txt"]
EXPECTED = {
    "PREDICTOR_MODEL": "resnet18", "PREDICTOR_WEIGHTS": "a.pth", "PREDICTOR_LABELS": "a.txt"
}  # fmt: skip


def chosen():
    return {name: os.environ.get(name) for name in EXPECTED}


@pytest.fixture
def ran(monkeypatch):
    """Replace what each command runs; return the environment and arguments that it would see."""
    seen = []
    for name in COMMANDS:
        seeing = lambda options: seen.append((chosen(), options)) or 0  # noqa: E731
        monkeypatch.setattr(f"predictor.cli.{name}.run", seeing)
    return seen


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"convert", "store"}))
def test_every_command_has_the_options(ran, command):
    argument = {"evaluate": ["photos"]}.get(command, [])
    assert main([command, *argument, *OPTIONS]) == 0
    assert ran[0][0] == EXPECTED


def test_options_are_not_passed_to_gunicorn(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["predictor"])
    seen = []
    monkeypatch.setattr(production.wsgiapp, "run", lambda prog: seen.append(chosen()))
    main(["serve", "--workers", "2", *OPTIONS, "-b", ":80"])
    assert sys.argv[3:] == ["--workers", "2", "-b", ":80", "wsgi:app"]
    assert seen == [EXPECTED]


def test_only_commands_that_serve_take_a_store(ran, monkeypatch, tmp_path):
    (tmp_path / "store.toml").write_text("")
    option = ["--store", str(tmp_path)]
    monkeypatch.setattr(development, "serve", lambda *_: None)
    for run, arguments in ((main, ["serve", *option]), (development.main, option)):
        run(arguments)
        assert os.environ.pop("PREDICTOR_STORE") == str(tmp_path)
    with pytest.raises(SystemExit):
        main(["inspect", *option])


def test_option_replaces_the_variable_and_others_stay(ran, monkeypatch):
    monkeypatch.setenv("PREDICTOR_MODEL", "vgg16")
    monkeypatch.setenv("PREDICTOR_LABELS", "b.txt")
    main(["--model", "resnet18", "photo.jpg"])
    expected = {"PREDICTOR_MODEL": "resnet18", "PREDICTOR_WEIGHTS": None}
    assert ran[0][0] == expected | {"PREDICTOR_LABELS": "b.txt"}


def test_development_server_gets_the_options(monkeypatch):
    served = []
    monkeypatch.setattr(development, "serve", lambda app, *_: served.append(app))
    development.main(OPTIONS)
    settings = served[0].extensions["predictor"].settings
    assert (settings.model, settings.weights, settings.labels) == ("resnet18", "a.pth", "a.txt")


@pytest.mark.parametrize(
    ("options", "fallback"), [([], "efficientnet_lite0"), (["--model", "resnet18"], "none")]
)
def test_a_named_model_has_no_replacement(predict, tmp_path, options, fallback):
    (tmp_path / "a.png").write_bytes(picture("red"))
    seen = []
    load = lambda settings, _: seen.append(settings) or toy_model()  # noqa: E731
    predict(tmp_path / "a.png", *options, load=load)
    assert seen[0].fallback_model == fallback


@pytest.mark.slow
def test_served_model_is_that_of_the_option_also_after_a_reload(net):
    command = [sys.executable, "-m", "predictor", "serve", "--model", str(net), "--workers=1"]
    with closing(Server(command=command, model="resnet18").wait_until_ready()) as server:
        assert server.get("/readyz").json()["model"]["name"] == "net"
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.loaded == 2)
        assert server.log.count("model      net") == 2
