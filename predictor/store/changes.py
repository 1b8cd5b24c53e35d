"""A change of the store that a client of a running server asks for."""

from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic

from predictor.errors import LoadFailed, NotReady
from predictor.store import file
from predictor.store.plan import Key
from predictor.store.store import Store
from predictor.store.wanted import Wanted

Edit = Callable[[Path], Wanted]  # of a store's folder
READ_AGAIN_S = 1.0  # somebody else may edit the store while a change waits


def make(store: Store, edit: Edit | None, needed: Collection[Key], wait: bool) -> None:
    """Edit a store's folder. If ``wait``, return when each process serves what is wanted then.

    If a version that is ``needed`` cannot be loaded, undo the edit, but not without ``wait``. The
    edit is of the models that are needed; None: there is none, only the wait.

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
    while wait and (late := _late(store, folder, min(READ_AGAIN_S, timeout_s))):
        if monotonic() > deadline:
            raise NotReady(
                f"The store is changed, but after {timeout_s:g} s these processes have not"
                f" followed: {', '.join(map(str, late))}. They go on loading."
            )
    failures = {k: v for one in store.followers.reports() for k, v in one.failures.items()}
    for name, version in failures.keys() & {*needed} if wait else ():
        undone = "The store is not changed."
        if edit is not None:
            undone = file.undo(folder, name, before, after)
            store.follow()
        reason = failures[name, version]
        raise LoadFailed(f"{name}/{version} cannot be loaded. {undone} {reason}")


def _late(store: Store, folder: Path, timeout_s: float) -> list[int]:
    return store.followers.wait_followed(file.read(folder).revision, timeout_s)
