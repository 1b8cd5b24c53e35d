"""The fakes, as programs and as modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyngrok import conf, ngrok

FAKES = Path(__file__).parent / "fakes"


def install(name: str, folder: Path, program: str | None = None) -> Path:
    """Make a fake a program of this name."""
    source = (FAKES / name).read_text()
    path = folder / (program or name.removesuffix(".py"))
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def use_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``ngrok`` and ``google.colab`` be the fakes."""
    colab = "google.colab"
    for name in ("ngrok", "google", colab, f"{colab}.userdata", f"{colab}.output"):
        monkeypatch.setitem(sys.modules, name, None)  # remembered, and undone with the test
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setattr("IPython.get_ipython", object)  # a notebook's own process has one


@contextmanager
def pyngrok_with(program: Path) -> Iterator[None]:
    """Have pyngrok use this agent, and a configuration beside it; the agent is ended."""
    before = conf.get_default()
    config_path = str(program.with_name("ngrok.yml"))
    conf.set_default(conf.PyngrokConfig(ngrok_path=str(program), config_path=config_path))
    yield
    ngrok.kill()
    conf.set_default(before)


def is_running(process: Path) -> bool:
    """Whether the process whose id is in the file is there; a zombie is not."""
    try:
        status = Path(f"/proc/{process.read_text()}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
