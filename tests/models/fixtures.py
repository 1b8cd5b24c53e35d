import sys

import pytest
import torch


@pytest.fixture(params=[True, False], ids=["zip", "old"])
def torch_save(request, tmp_path):
    """Saves something in one of torch.save's formats; returns the file's path."""

    def save(content, **options):
        zipped = request.param
        torch.save(content, tmp_path / "n.pth", _use_new_zipfile_serialization=zipped, **options)
        return tmp_path / "n.pth"

    return save


@pytest.fixture
def forget_modules(tmp_path, monkeypatch):
    """Forgets the modules that a test has imported from its folder, and where they were found."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
