"""The folders of a store, ``<store>/<name>/<version>/``, as Triton names them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from predictor.errors import StoreError
from predictor.models import description
from predictor.setting_parsers import NAME_PATTERN
from predictor.settings import Settings
from predictor.store.wanted import NUMBER, Entry

VERSION = re.compile(NUMBER)


def versions(store: Path) -> dict[str, dict[int, Path]]:
    """Return the folders of a store by name and version, both ascending.

    Other folders and files do not count, so that a hidden folder may be incomplete.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        models = {path.name: _folders(path, VERSION) for path in _folders(store, NAME_PATTERN)}
    except OSError as error:
        raise StoreError(f"The model store {store} cannot be read: {error.strerror}.") from error
    return {
        name: dict(sorted((int(path.name), path) for path in models[name]))
        for name in sorted(models)
    }


def _folders(place: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [path for path in place.iterdir() if pattern.fullmatch(path.name) and path.is_dir()]


def signature(folder: Path) -> str:
    """Return a short text that changes when a file is written, replaced, added or removed.

    It is made from the inode, size, time and permissions of each file. Links to files are followed:
    Kubernetes replaces a ConfigMap by changing a link. Hidden files, such as those of editors, and
    Python's caches do not count.
    """
    found = sorted(_state(path) for path in files(folder))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of a model's folder that count for its signature."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        yield from (Path(place, name) for name in names if name[0] != ".")


def _state(path: Path) -> tuple[str, int, int, int, int]:
    try:
        state = path.stat()
    except OSError:  # removed at this moment, or a link to nothing
        return str(path), 0, 0, 0, 0
    return str(path), state.st_ino, state.st_size, state.st_mtime_ns, state.st_mode


def settings_of(entry: Entry, settings: Settings) -> Settings:
    """Return the settings that load an entry's model; all others are those of ``settings``.

    Raises:
        StartError: there is no folder, or its ``model.toml`` cannot be read or has another name or
            version.
    """
    if entry.folder is None:
        return settings
    if not entry.folder.is_dir():
        raise StoreError(f"{entry.name}/{entry.version}: there is no folder {entry.folder}.")
    check(entry.folder, entry.name, entry.version)
    return replace(settings, model=str(entry.folder), served_name=entry.name)


def check(folder: Path, name: str, version: int) -> None:
    """Raise StartError if ``model.toml`` in the folder has another name or version."""
    file = folder / description.FILE
    said = description.read(file) if file.is_file() else {}
    for key, expected in (("name", name), ("version", str(version))):
        if description.value_of(said, key) not in (None, expected):
            raise StoreError(
                f"{said[key].origin} is {said[key].value!r}, but this is {name}/{version} in the"
                f" store. Remove the key, or write {expected!r}."
            )
