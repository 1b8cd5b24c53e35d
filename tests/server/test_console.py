import io
import logging
import sys

import pytest

from conftest import ToyInfo, toy_model
from predictor import logs
from predictor.engine.classifier import Classifier
from predictor.server.console import announce
from predictor.settings import Settings

TRY = "curl -F file=@photo.jpg http://127.0.0.1:5000/predict"


class Info(ToyInfo):
    precision, threads, parameters = "float32", 1, 1234


@pytest.fixture
def announced(monkeypatch):
    """Load a toy model; return what is logged and what is printed on standard output."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)

    def run(log_format, stdout=None):
        log, printed = io.StringIO(), stdout or io.StringIO()
        monkeypatch.setattr(sys, "stdout", printed)
        logs.configure(log_format, [logging.StreamHandler(log)])
        model = toy_model()
        loaded = type(model)(model.scorer, Info(), model.labels)
        classifier = Classifier(Settings(log_format=log_format), load=lambda *_: loaded)
        announce(classifier, "http://127.0.0.1:5000")
        classifier.start()
        classifier.loading.result(timeout=10)
        classifier.close()
        return log.getvalue(), printed

    yield run
    logging.captureWarnings(False)


def test_in_text_the_block_is_in_the_log_alone(announced):
    log, printed = announced("text")
    assert TRY in log
    assert printed.getvalue() == ""


def test_where_json_is_the_default_the_block_is_on_stdout(announced):
    log, printed = announced("auto")
    assert TRY not in log
    assert TRY in printed.getvalue()


def test_where_json_is_chosen_there_is_no_block(announced):
    log, printed = announced("json")
    assert '"message": "Ready at http://127.0.0.1:5000"' in log
    assert printed.getvalue() == ""


def test_closed_stdout_is_not_an_error(announced):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    assert "exception" not in announced("auto", Closed())[0]
