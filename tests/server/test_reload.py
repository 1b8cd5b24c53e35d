import os
import subprocess
import sys

from predictor.server.reload import Handover, lives


def run_in_a_fork(action):
    """What another process does with the memory, seen from this one; its id."""
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_the_first_in_a_seat_has_no_predecessor_and_may_leave_when_told():
    handover = Handover()
    assert not lives(handover.expect(0))
    handover.arrive(0)
    assert not handover.is_succeeded(0)
    handover.be_ready(0)
    assert not handover.is_succeeded(0)


def test_it_stays_from_before_the_fork_until_its_successor_can_answer():
    handover = Handover()
    handover.arrive(3)
    handover.be_ready(3)
    assert handover.expect(3) == os.getpid()
    assert handover.is_succeeded(3)
    successor = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    handover._write(3, successor.pid, False)
    assert handover.is_succeeded(3)
    handover._write(3, successor.pid, True)
    assert not handover.is_succeeded(3)
    successor.communicate()


def test_it_does_not_wait_for_a_successor_that_died():
    handover = Handover()
    handover.arrive(0)
    died = run_in_a_fork(lambda: handover.arrive(0))
    assert handover.expect(0) == died  # the memory is the same in both
    handover._write(0, died, False)
    assert not handover.is_succeeded(0)
    assert handover.failed(0)
    handover._write(0, died, True)
    assert not handover.failed(0)  # it could answer, and has gone since


def test_who_was_succeeded_can_no_longer_be_ready():
    handover = Handover()
    handover.arrive(0)
    handover.expect(0)
    handover.be_ready(0)
    assert handover.is_succeeded(0)


def test_seats_do_not_touch_each_other():
    handover = Handover()
    for seat in range(1000):
        handover.arrive(seat)
    handover.expect(500)
    assert [seat for seat in range(1000) if handover.is_succeeded(seat)] == [500]


def test_a_process_that_has_ended_and_was_not_asked_for_does_not_live():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not lives(ended.pid)
    ended.wait()
    assert lives(os.getpid())
