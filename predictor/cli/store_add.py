"""Put a model into a store's folders, and delete one."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import tomlkit

from predictor.errors import ModelError, StartError, StoreError
from predictor.models import loading
from predictor.models.description import FILE, input_of
from predictor.models.reference import ENDINGS
from predictor.setting_parsers import parse_name
from predictor.settings import Settings
from predictor.store import file, layout


def add(store: Path, name: str, source: Path, version: int | None) -> Path:
    """Copy a model's file or folder into a store, and return the new version's folder.

    The copy is made and checked in a hidden folder, and then renamed. Its weights are not loaded.

    Raises:
        StartError: the model cannot be used, or the store cannot be changed. Nothing is added.
    """
    try:
        model = store / parse_name(name)
    except ValueError as error:
        raise StoreError(f"{name!r} is not a model's name: {error}") from None
    if not source.exists():
        raise StoreError(f"{source} does not exist.")
    try:
        model.mkdir(parents=True, exist_ok=True)
        with file.locked(store), tempfile.TemporaryDirectory(prefix=".adding-", dir=model) as made:
            folder = Path(made) / "model"
            _copy(source, folder)
            there = layout.versions(store)[name]
            version = version or max(there, default=0) + 1
            _check(folder, source, name, version)
            if version < 1 or version in there:
                raise StoreError(f"{model / str(version)} exists, or is not a number from 1.")
            return folder.rename(model / str(version))
    finally:
        with suppress(OSError):  # it has versions
            model.rmdir()


def _copy(source: Path, folder: Path) -> None:
    """Copy a model, and call its file ``model.onnx`` or similarly, as Triton does."""
    if source.is_dir():
        hidden = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(source, folder, ignore=hidden)
    else:
        folder.mkdir()
        for path in (source, source.with_name(FILE)):
            if path.is_file():
                shutil.copy(path, folder)
    toml = folder / FILE
    said = tomlkit.parse(toml.read_text("utf-8-sig")) if toml.is_file() else tomlkit.document()
    named = source.name if source.is_file() else str(said.get("weights") or said.get("source"))
    path = folder / named
    if path.suffix in ENDINGS and path.is_file() and path.parent == folder:
        path.rename(folder / f"model{path.suffix}")
        for key in ("weights", "source"):
            if said.get(key) == named:
                said[key] = f"model{path.suffix}"
    if said:
        toml.write_text(tomlkit.dumps(said), encoding="utf-8")


def _check(folder: Path, source: Path, name: str, version: int) -> None:
    """Raise StartError if the model's files cannot be read, or do not describe it completely."""
    try:
        layout.check(folder, name, version)
        asked, where = loading.ask(Settings(model=str(folder), device="cpu"), cpus=1)
        found = loading.find(asked, where)
        input_of(found.said | asked.said, asked.said, found.name)
    except StartError as error:
        place = source if source.is_dir() else source.parent
        hint = "" if source.is_dir() else f" If the model needs other files of {place}, add that."
        text = str(error).replace(str(folder), str(place))
        raise ModelError(f"{source} is not added. {text}{hint}") from error


def remove(store: Path, name: str, version: int) -> None:
    """Delete the folder of a version that is not served.

    Raises:
        StoreError: it is served or does not exist, or the store cannot be read or changed.
    """
    with file.locked(store):
        there = layout.versions(store).get(name, {})
        if version not in there:
            raise StoreError(f"There is no version {version} of {name} in {store}.")
        if (store / file.FILE).exists() and (name, version) in file.read(store).entries:
            raise StoreError(
                f"Version {version} of {name} is served. First run: predictor store unserve {name}"
                f" {version}"
            )
        if there[version].is_symlink():
            return there[version].unlink()
        deleted = there[version].with_name(f".removed-{version}-{os.getpid()}")
        shutil.rmtree(there[version].rename(deleted))  # no server sees half of it
