import threading

import pytest

from predictor.share.tunnel import within
from waiting import wait_until


def test_a_result_is_passed_on():
    assert within(10, lambda: "here") == "here"


def test_an_error_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 / 0)


def test_even_a_panic_reaches_the_caller_as_an_ordinary_error():
    class PanicException(BaseException):
        pass

    def panic():
        raise PanicException("of the SDK's Rust")

    with pytest.raises(RuntimeError, match="of the SDK's Rust"):
        within(10, panic)


def test_what_comes_when_nobody_waits_any_more_is_undone():
    come, undone = threading.Event(), []

    def call():
        come.wait(10)
        return "late"

    with pytest.raises(TimeoutError):
        within(0.01, call, undone.append)
    assert undone == []
    come.set()
    wait_until(lambda: undone == ["late"])


def test_an_error_that_nobody_waits_for_is_silent(capsys):
    come, ended = threading.Event(), []

    def call():
        come.wait(10)
        ended.append(threading.current_thread())
        raise ValueError("late")

    with pytest.raises(TimeoutError):
        within(0.01, call)
    come.set()
    wait_until(lambda: ended)[0].join(10)
    assert capsys.readouterr() == ("", "")


def test_where_no_thread_can_be_started_it_is_done_in_this_one(monkeypatch):
    """Since Python 3.12, at the end of the interpreter."""

    def refuse(_thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert within(10, threading.get_ident) == threading.get_ident()
