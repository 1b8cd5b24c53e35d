import threading

import pytest

from predictor.share.tunnel import within
from waiting import wait_until


def test_within_returns_the_result():
    assert within(10, lambda: "here") == "here"


def test_within_raises_the_calls_error():
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)


def test_within_turns_a_rust_panic_into_a_runtime_error():
    class PanicException(BaseException):
        pass

    def panic():
        raise PanicException("of the SDK's Rust")

    with pytest.raises(RuntimeError, match="of the SDK's Rust"):
        within(10, panic)


def test_a_result_after_the_timeout_is_undone():
    release, undone = threading.Event(), []

    def call():
        release.wait(10)
        return "late"

    with pytest.raises(TimeoutError):
        within(0.01, call, undone.append)
    assert undone == []
    release.set()
    wait_until(lambda: undone == ["late"])


def test_an_error_after_the_timeout_prints_nothing(capsys):
    release, ended = threading.Event(), []

    def call():
        release.wait(10)
        ended.append(threading.current_thread())
        raise ValueError("late")

    with pytest.raises(TimeoutError):
        within(0.01, call)
    release.set()
    wait_until(lambda: ended)[0].join(10)
    assert capsys.readouterr() == ("", "")


def test_within_works_if_no_thread_can_be_started(monkeypatch):
    """As while the interpreter ends, since Python 3.12."""

    def refuse(_thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert within(10, threading.get_ident) == threading.get_ident()
