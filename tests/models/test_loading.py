import subprocess
import sys

import pytest

from predictor.errors import LabelsError, ModelError
from predictor.models import description
from predictor.models.loading import load_model
from predictor.settings import Settings

TORCHVISION = "predictor.models.sources.torchvision"


def test_a_torch_import_error_names_the_installed_versions(monkeypatch):
    monkeypatch.setitem(
        sys.modules, "predictor.models.sources.torchvision", None
    )  # importing it fails
    with pytest.raises(ModelError, match=r"torch 2\..* and torchvision 0\..*docs/"):
        load_model(Settings(), 1)


IMPORT = """
import gc
from pathlib import Path
from predictor.models.loading import load_model
from predictor.settings import Settings
load_model(Settings(model="efficientnet_lite0", shared_folder={folder}), 1)
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "frozen"), [("Path()", True), ("None", False)])
def test_only_a_server_lets_the_garbage_collector_never_look_at_torch_again(folder, frozen):
    """A program may have objects of its own, which it would then keep for ever."""
    command = [sys.executable, "-c", IMPORT.format(folder=folder)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed == f"True {frozen}\n"


def test_paths_to_the_same_file_agree(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    inside = description.describe({"weights": str(tmp_path / "net.pth")}, "model.toml")
    given = description.from_settings(Settings(weights="net.pth"))
    assert description.agree(inside, given)["weights"].value == "net.pth"
    with pytest.raises(ModelError, match="PREDICTOR_WEIGHTS is 'other.pth', but model.toml"):
        description.agree(description.from_settings(Settings(weights="other.pth")), inside)


def test_labels_are_checked_before_torch_is_imported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, TORCHVISION, None)
    with pytest.raises(LabelsError):
        load_model(Settings(labels=str(tmp_path / "missing.txt")), 1)


def test_a_path_that_this_user_may_not_use_is_named(monkeypatch, tmp_path):
    path = tmp_path / "closed" / "net.onnx"

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.stat", refuse)  # as of a folder that another user has closed
    with pytest.raises(ModelError, match="net.onnx may not be used by the user who runs this proc"):
        load_model(Settings(model=str(path)), 1)
