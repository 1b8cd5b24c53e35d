"""Fixtures for the tests of exports, here and in ``runtimes/``. They import torch when used."""

import shutil

import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small network to export; its photographs fall into at least ten classes."""
    from export.wrong import settings
    from predictor.export.subject import load

    return load(settings(tmp_path_factory.mktemp("small")))


@pytest.fixture(scope="session")
def program(small, tmp_path_factory):
    """The C++ program, built from a written export. It takes a model's path, so once is enough."""
    from export.wrong import write
    from predictor.export import cpp

    if shutil.which("cmake") is None:
        pytest.skip(f"needs: {cpp.INSTALL}")
    folder = tmp_path_factory.mktemp("cpp")
    write("cpp", small, folder / "out")
    return cpp.build_program(folder / "out", folder / "build")


@pytest.fixture
def built(program, monkeypatch):
    """The check of the format ``cpp`` takes the program that is built already."""
    monkeypatch.setattr("predictor.export.cpp.build_program", lambda *_: program)
