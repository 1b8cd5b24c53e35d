"""Files that are followed by polling."""

import logging
import os
import threading

import pytest

from predictor.errors import SettingsError
from predictor.store.watch import Watch
from waiting import wait_until


@pytest.fixture
def watched(tmp_path):
    """A watch, polled by hand, of a file in a folder; each change is in the list."""
    changes, watch = [], Watch()
    watch.add(lambda: [tmp_path / "folder", tmp_path / "file"], lambda: changes.append(1))
    watch.poll()
    assert changes == [1]  # what happened before the first poll must not be missed
    watch.poll()
    assert changes == [1]
    changes.clear()
    return watch, changes


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda p: (p / "file").write_text("x"), id="created"),
        pytest.param(lambda p: (p / "folder").mkdir(), id="folder created"),
        pytest.param(lambda p: (p / "file").symlink_to(p / "target"), id="link to a new target"),
    ],
)
def test_a_change_is_reported_once(tmp_path, watched, change):
    watch, changes = watched
    (tmp_path / "target").write_text("x")
    change(tmp_path)
    for _ in range(3):
        watch.poll()
    assert changes == [1]


def test_writing_replacing_and_deleting_are_changes(tmp_path, watched):
    watch, changes = watched
    file, new = tmp_path / "file", tmp_path / "new"
    new.write_text("two")
    for count, change in enumerate(
        [
            lambda: file.write_text("one"),
            lambda: file.write_text("longer"),
            lambda: os.utime(file, ns=(0, 1)),
            lambda: new.replace(file),
            file.unlink,
        ],
        1,
    ):
        change()
        watch.poll()
        assert len(changes) == count


def test_a_new_name_in_a_folder_is_a_change(tmp_path, watched):
    watch, changes = watched
    (tmp_path / "folder").mkdir()
    watch.poll()
    os.utime(tmp_path / "folder", ns=(0, 0))
    watch.poll()
    (tmp_path / "folder" / "1").mkdir()
    os.utime(tmp_path / "folder", ns=(0, 0))
    watch.poll()
    assert len(changes) == 3


def test_a_swapped_config_map_is_a_change(tmp_path):
    """Kubernetes swaps the link ``..data``; the file itself stays a link to the same path."""
    for folder, text in (("..2026_01", "one"), ("..2026_02", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tokens").write_text(text)
        os.utime(tmp_path / folder / "tokens", ns=(0, 0))
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    found, watch = [], Watch()
    file = tmp_path / "tokens"
    watch.add(lambda: [file], lambda: found.append(file.read_text()))
    watch.poll()
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    watch.poll()
    assert found == ["one", "two"]


@pytest.mark.parametrize(
    ("error", "traceback"), [(SettingsError("It is broken."), False), (KeyError("k"), True)]
)
def test_an_error_is_logged_once_and_tried_again(caplog, error, traceback):
    """Not only a change of the file can make it readable: there may have been too many files."""
    errors, others, watch = [error] * 3, [], Watch()
    watch.add(lambda: [], lambda: errors and raised(errors.pop()))
    watch.add(lambda: [], lambda: others.append(1))
    for _ in range(3):
        watch.poll()
    assert [record.getMessage() for record in caplog.records] == [str(error)]
    assert bool(caplog.records[0].exc_info) is traceback
    assert caplog.records[0].levelno == logging.ERROR
    assert others == [1]
    assert errors == []


def raised(error):
    raise error


def test_one_thread_follows_until_it_is_closed(tmp_path):
    changes, watch = [], Watch(poll_s=0.01)
    watch.add(lambda: [tmp_path / "file"], lambda: changes.append(threading.current_thread()))
    watch.start()
    assert changes == [threading.current_thread()]  # the first poll is done when start returns
    watch.start()
    (tmp_path / "file").touch()
    wait_until(lambda: len(changes) == 2)
    thread = changes[1]
    assert (thread.name, thread.daemon) == ("watch", True)
    watch.close()
    thread.join(60)
    watch.start()
    assert not thread.is_alive()


def test_a_forked_process_follows_with_a_thread_of_its_own(tmp_path):
    changes, watch = [], Watch(poll_s=0.01)
    watch.add(lambda: [tmp_path / "file"], lambda: changes.append(1))
    watch.start()
    if (pid := os.fork()) == 0:
        watch.start()
        (tmp_path / "file").touch()
        try:
            wait_until(lambda: len(changes) == 2, 20)
        finally:
            os._exit(len(changes))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 2
    watch.close()
