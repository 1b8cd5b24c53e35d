import shutil
from dataclasses import replace

import pytest

from export.own_net import Together
from export.wrong import settings, write
from predictor.errors import ExportError
from predictor.export import cpp
from predictor.export.options import Options
from predictor.export.subject import load
from predictor.images.preprocessing import Interpolation

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def test_project_is_written_beside_the_model(small, tmp_path):
    write("cpp", small, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"model.pt", *(path.name for path in cpp.PROJECT.iterdir())}
    assert "build/classify model.pt photo.jpg" in cpp.readme(small, Options())
    assert "build/classify model.pt2 photo.jpg" in cpp.readme(small, Options(compile=True))


def test_model_for_one_photo_at_a_time_is_refused(tmp_path):
    subject = load(settings(tmp_path, Together, "batchable = false\n"))
    with pytest.raises(ExportError, match="takes one photo at a time"):
        cpp.write(subject, tmp_path, Options())
    assert not (tmp_path / "model.pt").exists()


def test_interpolation_nearest_is_refused(small, tmp_path):
    input = replace(small.card.input, interpolation=Interpolation.NEAREST)
    subject = replace(small, card=replace(small.card, input=input))
    with pytest.raises(ExportError, match="no interpolation nearest"):
        cpp.write(subject, tmp_path, Options())


def test_without_cmake_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"cmake is not on the PATH.*apt-get install cmake g\+\+"):
        cpp.build_program(cpp.PROJECT, tmp_path / "build")


@pytest.mark.skipif(shutil.which("cmake") is None, reason="CMake configures the project")
def test_without_a_library_the_command_says_what_to_install(tmp_path):
    shutil.copytree(cpp.PROJECT, tmp_path / "project")
    (tmp_path / "project" / "CMakeLists.txt").write_text("find_package(Missing REQUIRED)")
    with pytest.raises(ExportError, match=r"(?s)libjpeg-dev.*Missing"):
        cpp.build_program(tmp_path / "project", tmp_path / "build")
