"""The fakes, as programs and as modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

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


def is_running(process: Path) -> bool:
    """Whether the process whose id is in the file is there; a zombie is not."""
    try:
        status = Path(f"/proc/{process.read_text()}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
