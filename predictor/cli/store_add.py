"""Put a model into a store's folders, and delete one."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import tomlkit

from predictor.errors import ModelError, StartError, StoreError
from predictor.models import loading
from predictor.models.description import FILE, as_keys, input_of
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
            renamed = _copy(source, folder)
            there = layout.versions(store)[name]
            version = max(there, default=0) + 1 if version is None else version
            _check(folder, source, renamed, name, version)
            if version in there or not layout.VERSION.fullmatch(str(version)):
                raise StoreError(
                    f"{model / str(version)} exists, or {version} is not a number from 1 with at"
                    " most 18 digits."
                )
            return folder.rename(model / str(version))
    finally:
        with suppress(OSError):  # it has versions
            model.rmdir()


def _copy(source: Path, folder: Path) -> tuple[Path, Path]:
    """Copy a model, and call its file ``model.onnx`` or similarly, as Triton does.

    Return the path of what has another name now, and the path that it is a copy of.
    """
    place = source if source.is_dir() else source.parent
    if source.is_dir():
        hidden = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(source, folder, ignore=hidden)
    else:
        folder.mkdir()
        for path in (source, place / FILE, Path(f"{source}.data")):
            if path.is_file():
                shutil.copy(path, folder)
    toml = folder / FILE
    said = tomlkit.parse(toml.read_text("utf-8-sig")) if toml.is_file() else tomlkit.document()
    named = source.name if source.is_file() else str(said.get("weights") or said.get("source"))
    labels = place / str(said.get("labels"))
    if source.is_file() and labels.is_file() and labels.parent == place:
        shutil.copy(labels, folder)
    path, renamed = folder / named, (folder, place)
    if path.suffix in ENDINGS and path.is_file() and path.parent == folder:
        renamed = path.rename(folder / f"model{path.suffix}"), place / named
        for key in ("weights", "source"):
            if said.get(key) == named:
                said[key] = f"model{path.suffix}"
    if said:
        toml.write_text(tomlkit.dumps(said), encoding="utf-8")
    return renamed


def _check(folder: Path, source: Path, renamed: tuple[Path, Path], name: str, version: int) -> None:
    """Raise StartError if the model's files cannot be read, or do not describe it completely."""
    try:
        layout.check(folder, name, version)
        asked, where = loading.ask(Settings(model=str(folder), device="cpu"), cpus=1)
        found = loading.find(asked, where)
        input_of(found.said | asked.said, asked.said, found.name)
    except StartError as error:
        place = source if source.is_dir() else source.parent
        now, before = map(str, renamed)
        text = as_keys(str(error)).replace(now, before).replace(str(folder), str(place))
        if source.is_file():
            text += (
                " With a file, only its .data, model.toml and the labels beside it are copied. If"
                f" the model needs other files, add the folder {place}."
            )
        raise ModelError(f"{source} is not added. {text}") from error


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
