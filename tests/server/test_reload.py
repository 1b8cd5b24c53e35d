import os
import subprocess
import sys

import pytest

from predictor import processes
from predictor.processes import is_running
from predictor.server.reload import ReloadBoard


@pytest.fixture
def other_process():
    """A process that runs until the end of the test."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate()


def ended_process(action=lambda: None):
    """The id of a forked process that did something and has ended."""
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_first_process_of_a_slot_has_no_predecessor():
    board = ReloadBoard()
    assert not is_running(board.reserve(0))


def test_process_without_a_replacement_may_end():
    board = ReloadBoard()
    board.claim(0)
    assert not board.is_replacement_loading(0)
    board.mark_ready(0)
    assert not board.is_replacement_loading(0)


def test_reserving_a_slot_returns_the_process_that_holds_it():
    board = ReloadBoard()
    board.claim(3)
    assert board.reserve(3) == os.getpid()


def test_old_process_stays_until_its_replacement_is_ready(monkeypatch, other_process):
    board = ReloadBoard()
    board.claim(3)
    board.mark_ready(3)
    board.reserve(3)
    assert board.is_replacement_loading(3)  # even before the fork

    def as_replacement(action):
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: other_process.pid)
            action(3)

    as_replacement(board.claim)
    assert board.is_replacement_loading(3)
    as_replacement(board.mark_ready)
    assert not board.is_replacement_loading(3)


def test_board_is_shared_with_forked_processes():
    board = ReloadBoard()
    other = ended_process(lambda: board.claim(0))
    assert board.reserve(0) == other


def test_replacement_that_ended_before_it_was_ready_has_failed():
    board = ReloadBoard()
    ended_process(lambda: board.claim(0))
    assert not board.is_replacement_loading(0)
    assert board.has_replacement_failed(0)


def test_replacement_that_ended_when_ready_has_not_failed():
    board = ReloadBoard()
    ended_process(lambda: (board.claim(0), board.mark_ready(0)))
    assert not board.is_replacement_loading(0)
    assert not board.has_replacement_failed(0)


def test_replaced_process_cannot_mark_itself_ready():
    board = ReloadBoard()
    board.claim(0)
    board.reserve(0)
    board.mark_ready(0)
    assert board.is_replacement_loading(0)


def test_a_process_that_can_answer_may_ask_for_a_replacement():
    board = ReloadBoard()
    board.claim(3)
    board.mark_worn(3)
    assert not board.is_worn(3)  # it is a replacement that is loading
    board.mark_ready(3)
    board.mark_worn(3)
    assert board.is_worn(3)
    assert board.is_any_ready()
    assert board.reserve(3) == os.getpid()
    board.mark_worn(3)
    assert not board.is_worn(3)


def test_process_that_is_replaced_can_answer(monkeypatch, other_process):
    board = ReloadBoard()
    board.claim(0)
    assert not board.is_any_ready()
    board.mark_ready(0)
    board.reserve(0)
    assert board.is_any_ready()  # this process
    monkeypatch.setattr(os, "getpid", lambda: other_process.pid)
    board.claim(0)
    assert board.is_any_ready()
    board.reserve(0)  # another replacement, before the first one is ready
    assert board.is_any_ready()
    gone = ended_process()
    monkeypatch.setattr(os, "getpid", lambda: gone)
    board.claim(0)
    board.mark_ready(0)
    assert not board.is_any_ready()


def test_slots_are_independent():
    board = ReloadBoard()
    for slot in range(1000):
        board.claim(slot)
    board.reserve(500)
    assert [slot for slot in range(1000) if board.is_replacement_loading(slot)] == [500]


def test_zombie_is_not_running():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not is_running(ended.pid)
    ended.wait()


def test_this_process_is_running():
    assert is_running(os.getpid())


def test_without_proc_a_process_that_takes_signals_is_running(monkeypatch, other_process):
    class NoProc:
        def __init__(self, path):
            assert str(path).startswith("/proc")

        def read_text(self):
            raise FileNotFoundError

        def exists(self):
            return False

    monkeypatch.setattr(processes, "Path", NoProc)
    assert is_running(other_process.pid)
    assert not is_running(ended_process())
