"""The command line with a toy model."""

import pytest

from predictor.cli import main, photos
from predictor.engine.classifier import Classifier
from toy import toy_model


@pytest.fixture
def predict(monkeypatch, capsys):
    """Run the command with a toy model; return its exit status, its output and its errors."""

    def run(*arguments, load=lambda *_: toy_model()):
        monkeypatch.setattr(photos, "Classifier", lambda settings: Classifier(settings, load))
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run
