"""Fixtures for the tests of exports, here and in ``runtimes/``. They import torch when used."""

import pytest


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small network to export; its photographs fall into at least ten classes."""
    from export.wrong import settings
    from predictor.export.subject import load

    return load(settings(tmp_path_factory.mktemp("small")))
