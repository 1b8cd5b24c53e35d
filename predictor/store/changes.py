"""A change of the store that a client of a running server asks for."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from predictor.errors import LoadFailed, NotReady, StoreError
from predictor.store import file
from predictor.store.store import Store
from predictor.store.wanted import Route, Wanted

Edit = Callable[[Path], Wanted]  # of a store's folder
READ_AGAIN_S = 1.0  # somebody else may edit the store while a change waits


def make(store: Store, edit: Edit | None, name: str, needed: Collection[int], wait: bool) -> None:
    """Edit a model of a store. If ``wait``, return when each process serves what is wanted of it.

    If a version that is ``needed`` cannot be loaded, undo the edit, but not without ``wait``.
    Without an ``edit``, only wait.

    Raises:
        StoreError: the edit is not valid or not written, or a version cannot be loaded.
        NotReady: a process has not followed within the request timeout. The edit stays.
    """
    folder, timeout_s = Path(store.settings.store), store.settings.request_timeout_s
    if edit is not None:
        with file.locked(folder):  # or another edit might come between
            before, _, after = file.current(folder), edit(folder), file.current(folder)
    deadline = monotonic() + timeout_s
    store.follow()
    # The newest state contains this change. A process may skip the states before.
    while wait and (late := _late(store, name, min(READ_AGAIN_S, timeout_s))):
        if monotonic() > deadline:
            raise NotReady(
                f"The store is changed, but after {timeout_s:g} s these processes have not"
                f" followed: {', '.join(map(str, late))}. They go on loading."
            )
    failures = {k: v for one in store.followers.reports() for k, v in one.failures.items()}
    for version in needed if wait else ():
        if (name, version) not in failures:
            continue
        undone = "The store is not changed."
        if edit is not None:
            undone = undo(folder, name, before, after)
            store.follow()
        reason = failures[name, version]
        raise LoadFailed(f"{name}/{version} cannot be loaded. {undone} {reason}")


def undo(folder: Path, name: str, before: file.Text, after: file.Text) -> str:
    """Undo an edit of a model. Other edits since then stay.

    Returns:
        A sentence that says whether the edit is undone: not if the model has been edited again.
    """
    import tomlkit  # here: servers only read the file

    old, made = tomlkit.parse(before.text), tomlkit.parse(after.text)

    def change(store: Any, _routes: Mapping[str, Route]) -> None:
        if store["models"].get(name) != made["models"].get(name):
            raise StoreError(f"{name} has been edited again.")
        if name in old["models"]:
            store["models"][name] = old["models"][name]
            return
        del store["models"][name]
        if store.get("default") == name:
            del store["default"]

    try:
        with file.locked(folder):
            if file.current(folder) == after:  # exactly
                file.replace(before)
            else:
                file.edit(folder, change)
    except StoreError as error:
        return f"The change is not undone: {error}"
    return "The change is undone."


def _late(store: Store, name: str, timeout_s: float) -> list[int]:
    revision = file.read(Path(store.settings.store)).revision
    return store.followers.wait_followed(revision, name, timeout_s)
