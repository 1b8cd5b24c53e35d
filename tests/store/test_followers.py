"""Which revision each process serves."""

import os
import subprocess
import sys
import threading

import pytest

from predictor.processes import identity
from predictor.store.followers import Followers, Report

FAILURES = {("flowers", 2): "The file is truncated.", ("birds", 1): "Zeile\n\x00ü"}
OTHER = """
import sys
from pathlib import Path
from predictor.store.followers import Followers
followers = Followers(Path(sys.argv[1]))
for line in sys.stdin:
    followers.report(line.strip(), {})
    print("reported", flush=True)
"""


@pytest.fixture
def other(tmp_path):
    """A second process; calling it makes it report a revision."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip

    def report(revision):
        print(revision, file=process.stdin, flush=True)
        assert process.stdout.readline() == "reported\n"
        return process

    yield report
    process.kill()
    process.communicate()


@pytest.mark.parametrize("shared", [True, False])
def test_the_last_report_counts(tmp_path, shared):
    followers = Followers(tmp_path if shared else None)
    assert followers.reports() == []
    followers.report("a", FAILURES, ["x"])
    assert followers.reports() == [Report(os.getpid(), "a", FAILURES, ["x"])]
    assert followers.waiting_for("b", "m") == [os.getpid()]
    followers.report("b", {}, ["n"])
    assert followers.waiting_for("b", "n") == [os.getpid()]
    assert followers.waiting_for("b", "m") == []
    assert len(os.listdir(tmp_path)) == shared


def test_a_process_that_has_not_followed_is_named(tmp_path, other):
    followers = Followers(tmp_path)
    followers.report("b", {})
    pid = other("a").pid
    assert followers.wait_followed("b", "m", 0.01) == [pid]
    follows = threading.Thread(target=other, args=["b"])
    follows.start()
    assert followers.wait_followed("b", "m", 60) == []
    follows.join()


def test_the_report_of_an_ended_process_is_ignored_and_deleted(tmp_path, other):
    followers = Followers(tmp_path)
    process = other("a")
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert followers.reports() == []
    assert os.listdir(tmp_path) == []


def test_a_later_process_with_the_same_id_is_another(tmp_path):
    """The file of an ended process has this process's id, and another start time."""
    followers = Followers(tmp_path)
    followers.report("a", {})
    (file,) = tmp_path.iterdir()
    file.rename(tmp_path / f"{os.getpid()}-1.json")
    assert followers.reports() == []


def test_a_report_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    followers = Followers(tmp_path)
    followers.report("a", {})
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *_: raised(OSError(28, "No space left")))
        with pytest.raises(OSError, match="No space"):
            followers.report("b", {})
    assert [report.revision for report in followers.reports()] == ["a"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def raised(error):
    raise error


def test_a_process_has_one_identity_while_it_runs():
    assert identity(os.getpid()) == identity(os.getpid())
    assert identity(os.getpid()).startswith(f"{os.getpid()}-")
    assert identity(os.getppid()) != identity(os.getpid())
    assert identity(0) is None
