"""A change of the store that fails is undone, and only that change."""

import threading
from contextlib import ExitStack

import pytest

from predictor.errors import ModelError
from predictor.store import file
from toy import toy_model
from web.managed import TEXT, managed, write_store


@pytest.fixture
def folder(tmp_path):
    return write_store(tmp_path / "store")


class Failing:
    """A registration of flowers/2, which cannot be loaded, in another thread."""

    def __init__(self, folder):
        self.loading, self.let, self.answers = threading.Event(), threading.Event(), []
        self.client = managed(folder, self.load)

    def load(self, entry):
        if (entry.name, entry.version) == ("flowers", 2):
            self.loading.set()
            assert self.let.wait(30)
            raise ModelError("The file is damaged.")
        return toy_model()

    def __enter__(self):
        client = self.client.__enter__()
        self.thread = threading.Thread(
            target=lambda: self.answers.append(client.post("/models?url=flowers/2"))
        )
        self.thread.start()
        return self

    def end(self):
        self.let.set()
        self.thread.join(30)
        return self.answers[0].json["message"]

    def __exit__(self, *error):
        self.client.__exit__(*error)


def test_undo_leaves_what_others_have_edited_meanwhile(folder):
    with Failing(folder) as failing:
        assert failing.loading.wait(30)
        file.serve(folder, "dogs", [1])
        assert "The change is undone. The file is damaged." in failing.end()
        assert failing.answers[0].status_code == 500
    wanted = file.read(folder)
    assert (wanted.routes["flowers"].versions, [*wanted.routes]) == ((1,), ["flowers", "dogs"])
    assert "# of the shop" in (folder / "store.toml").read_text()


def test_undo_leaves_what_another_wrote_while_the_change_waited(folder, monkeypatch):
    waits, locked = threading.Event(), file.locked

    def wait(folder):
        waits.set()
        return locked(folder)

    with ExitStack() as stack:
        stack.enter_context(locked(folder))
        monkeypatch.setattr(file, "locked", wait)
        with Failing(folder) as failing:
            assert waits.wait(30)
            (folder / "store.toml").write_text(f'default = "flowers"\n{TEXT}[models.dogs]\n')
            stack.close()
            failing.end()
    assert [*file.read(folder).routes] == ["flowers", "dogs"]


def test_a_model_that_was_edited_again_is_not_undone(folder):
    with Failing(folder) as failing:
        assert failing.loading.wait(30)
        file.set_split(folder, "flowers", {1: 1})
        assert "The change is not undone: flowers has been edited again." in failing.end()
    assert file.read(folder).routes["flowers"].versions == (1, 2)


def test_failed_change_leaves_the_file_exactly_as_before(folder):
    with managed(folder) as client:
        assert client.post("/models?url=flowers/3").status_code == 500
    assert (folder / "store.toml").read_text() == TEXT
