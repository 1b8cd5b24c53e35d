"""The store of the settings: of a folder with several models, or of the one model."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from predictor.engine.admission import Process
from predictor.engine.classifier import Classifier
from predictor.errors import StartError, StoreError
from predictor.models.description import as_keys
from predictor.models.loading import load_model
from predictor.models.scorer import LoadedModel
from predictor.settings import Settings, current_settings
from predictor.store import file, layout
from predictor.store.followers import Followers
from predictor.store.memory import require_room
from predictor.store.single import single
from predictor.store.store import Store
from predictor.store.wanted import Entry, Wanted, text_of, wanted_of

TURN_S = 30.0  # a load that takes longer, or hangs, does not stop all others

log = logging.getLogger(__name__)
turn = threading.Lock()  # the memory that a load needs is only known to be free when it ends


def store_for(settings: Settings) -> Store:
    """Return the store that the settings ask for."""
    return single(settings) if settings.store == "none" else _stored(settings, Path(settings.store))


@cache
def process_store() -> Store:
    """Return the store of ``wsgi:app``, which a worker may start before it imports the app."""
    return store_for(current_settings())


def default_model(settings: Settings) -> Settings:
    """Return the settings of the one model that answers where none is named.

    Raises:
        StoreError: the store cannot be read, or has no default model.
    """
    if settings.store == "none":
        return settings
    wanted = file.read(folder := Path(settings.store))
    if wanted.default is None:
        raise StoreError(f"{folder / file.FILE} has no default. Set it to one of its models.")
    entry = wanted.entries[wanted.default, wanted.routes[wanted.default].default]
    return replace(layout.settings_of(entry, settings), store="none")


def _stored(settings: Settings, folder: Path) -> Store:
    process = Process(settings)

    def make(entry: Entry) -> Classifier:
        return Classifier(layout.settings_of(entry, settings), partial(_load, entry), process)

    shared = settings.shared_folder
    reports = shared and shared / "followers"
    read = Reader(folder, shared and shared / "wanted.json")
    return Store(settings, process, read, make, partial(_paths, folder), Followers(reports))


class Reader:
    """Reads what a store wants, and keeps a copy for processes that start later.

    Such a process must not fail because the store has been damaged meanwhile: it begins with what
    the others serve, except versions whose folders are missing, which fail alone.
    """

    def __init__(self, folder: Path, kept: Path | None) -> None:
        """Read this folder's file, and keep the copy in this file. None: keep none."""
        self._folder, self._kept, self._begins = folder, kept, True

    def __call__(self) -> Wanted:
        """Return what is wanted; raise StoreError if that cannot be known."""
        begins, self._begins = self._begins, False
        try:
            wanted = file.read(self._folder)
        except StoreError as error:
            if not (begins and self._kept and self._kept.exists()):
                raise
            log.error("This process begins with what the others serve. %s", error)
            return wanted_of(self._kept.read_text("utf-8"), self._folder)
        if self._kept:
            part = self._kept.with_suffix(f".{os.getpid()}")
            with suppress(OSError):  # there is no room for the copy
                part.write_text(text_of(wanted), "utf-8")
                part.replace(self._kept)
        return wanted


def _load(entry: Entry, settings: Settings, cpus: int) -> LoadedModel:
    """Load a version if it fits into the memory. Its folders give its name and version.

    Loads take turns, unless one takes too long.
    """
    if not (is_turn := turn.acquire(timeout=TURN_S)):
        log.warning("%s is loaded although another load has not ended yet.", settings.model)
    try:
        require_room(layout.files(Path(settings.model)), settings.shared_weights)
        model, name = load_model(settings, cpus), entry.name
    except StartError as error:
        error.args = (as_keys(str(error)),)
        raise
    finally:
        if is_turn:
            turn.release()
    card = replace(model.card, name=name, version=str(entry.version))
    return replace(model, info=replace(model.info, name=name), card=card)


def _paths(folder: Path) -> Iterator[Path]:
    """Yield what changes when other versions should be served, or when a version changes."""
    yield folder / file.FILE
    with suppress(StoreError):  # the store logs it as it reads the file
        for name, versions in layout.versions(folder).items():
            yield folder / name
            for version in versions.values():
                yield from layout.files(version)
