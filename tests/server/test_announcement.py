import io
import logging
import os
import sys
import threading

import pytest

from predictor import logs
from predictor.engine.classifier import Classifier
from predictor.errors import WeightsError
from predictor.server.console import announce, summary, url_of
from predictor.settings import Settings
from predictor.store.single import single
from toy import ToyInfo, toy_model
from waiting import wait_until

TRY = "curl -F file=@photo.jpg http://127.0.0.1:5000/predict"


class Info(ToyInfo):
    precision, threads, parameters = "float32", 2, 1234


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:5000"),
        ("localhost", "http://localhost:5000"),
        ("0.0.0.0", "http://127.0.0.1:5000"),
        ("::1", "http://[::1]:5000"),
        ("::", "http://[::1]:5000"),
    ],
)
def test_url_of_a_host_is_reachable_from_this_machine(host, url):
    assert url_of(host, 5000) == url


def test_summary_says_what_is_served_and_how_to_try_it():
    class Notable(Info):
        notice = "A stands in for B."

    model = toy_model()
    text = summary(type(model)(model.scorer, Notable(), model.card), "http://127.0.0.1:5000")
    parts = [
        "NOTE",
        "A stands in for B.",
        "toy, 1,234 parameters, 3 classes",
        "toy.pth",
        "labels     numbers",
        "input      8 × 8 RGB, shorter side resized to 9",
        "output     softmax",
        "cpu, float32, 2 threads\n",
        TRY,
    ]
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize("error", [WeightsError("The file is empty."), ValueError("is empty")])
def test_a_model_that_cannot_be_loaded_ends_the_process(monkeypatch, caplog, error):
    def load(*_):
        raise error

    ended = []

    def leave(status):
        ended.append(status)
        raise RuntimeError("The real os._exit does not return, either.")

    monkeypatch.setattr(os, "_exit", leave)
    store = single(Settings(), Classifier(Settings(), load))
    announce(store, "http://127.0.0.1:5000")
    store.start()
    wait_until(lambda: ended)
    assert ended == [4]  # gunicorn's master stops on this status
    assert "is empty" in caplog.text


@pytest.fixture
def announced(monkeypatch):
    """Load a toy model; return what is logged and what is printed on standard output."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)

    def run(log_format, stdout=None, **access):
        log, printed = io.StringIO(), stdout or io.StringIO()
        monkeypatch.setattr(sys, "stdout", printed)
        logs.configure(log_format, [logging.StreamHandler(log)])
        model = toy_model()
        loaded = type(model)(model.scorer, Info(), model.card)
        settings = Settings(log_format=log_format, **access)
        store = single(settings, Classifier(settings, load=lambda *_: loaded))
        announce(store, "http://127.0.0.1:5000")
        announced = threading.Event()  # the future's result is there before its callbacks ran
        store.loading.add_done_callback(lambda _: announced.set())
        store.start()
        assert announced.wait(timeout=60)
        store.close()
        return log.getvalue(), printed

    yield run
    logging.captureWarnings(False)


def test_a_text_log_has_the_summary(announced):
    log, printed = announced("text")
    assert TRY in log
    assert printed.getvalue() == ""


def test_summary_shows_the_header_where_a_token_is_required(announced):
    log, _ = announced("text", tokens=("a-token-of-the-tests",))
    assert 'curl -H "Authorization: Bearer $TOKEN" -F file=@photo.jpg http' in log
    assert "a-token-of-the-tests" not in log


def test_beside_json_by_default_the_summary_is_on_stdout(announced):
    log, printed = announced("auto")
    assert TRY not in log
    assert TRY in printed.getvalue()


def test_beside_json_by_choice_there_is_no_summary(announced):
    log, printed = announced("json")
    assert '"message": "Ready at http://127.0.0.1:5000"' in log
    assert printed.getvalue() == ""


def test_a_closed_stdout_is_not_an_error(announced):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    assert "exception" not in announced("auto", Closed())[0]
