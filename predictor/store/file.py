"""``store.toml``: which models and versions of a store are served.

Servers only read the file. An edit changes the text, checks the result, and replaces the file at
once; a second edit waits for the first.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from predictor.errors import ReadOnlyStore, StoreError
from predictor.store.layout import signature, versions
from predictor.store.wanted import Entry, Route, Wanted

FILE = "store.toml"
MAX_WEIGHT = 1_000_000
RANGE = f"above 0 and up to {MAX_WEIGHT:,}"  # of weights
LOCK_TIMEOUT_S = 10.0  # an edit takes milliseconds
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
HEADER = re.compile(r"""\s*\[\s*(?:models\s*\.\s*)?["']?([^"'\]]+?)["']?\s*\]""")

Change = Callable[[Any, Mapping[str, Route]], None]  # of the document that has these routes


def read(folder: Path) -> Wanted:
    """Return what a store wants served.

    Raises:
        StoreError: the file is missing, or something in it is not valid.
    """
    if (text := _text(folder / FILE)) is None:
        raise StoreError(
            f"{folder / FILE} does not exist. It says what is served; `predictor store serve NAME"
            f" --store {folder}` writes it."
        )
    return _wanted(text, versions(folder))


@dataclass(frozen=True, slots=True)
class Text:
    """The text of the file, with its path for messages."""

    path: Path
    text: str

    def expect(self, valid: bool, model: str, key: str, found: Any, accepted: str) -> None:
        """Raise StoreError if a key of a model's table, or of no model, is not valid."""
        if not valid:
            name = ".".join(filter(None, ("models" if model else "", model, key)))
            raise StoreError(
                f"{self.path}{self._line(model, key)}: {name} is {found!r}; it must be {accepted}."
            )

    def expect_keys(self, model: str, table: Any, known: tuple[str, ...]) -> None:
        """Raise StoreError if something is not a table, or has other keys."""
        accepted = f"a table with the keys {', '.join(known)}"
        self.expect(isinstance(table, dict), model, "", table, accepted)
        for key in table.keys() - set(known):
            self.expect(False, model, key, table[key], f"removed: the keys are {', '.join(known)}")

    def _line(self, model: str, key: str) -> str:
        """Return ``, line 3``, or nothing if the key is not on a line of its own in its table."""
        inside = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if header := HEADER.match(line):
                inside = header[1]
            found = re.match(rf"""\s*["']?{re.escape(key)}["']?\s*=""", line) if key else header
            if inside == model and found:
                return f", line {number}"
        return ""


def current(folder: Path) -> Text:
    """Return the text of the file, or that of a store that serves nothing."""
    return _text(folder / FILE) or Text(folder / FILE, "[models]\n")


def _text(path: Path) -> Text | None:
    try:
        return Text(path, path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StoreError(f"{path} cannot be read: {reason}.") from error


def _wanted(text: Text, there: Mapping[str, Mapping[int, Path]]) -> Wanted:
    try:
        content = tomllib.loads(text.text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{text.path} is not valid TOML: {error}.") from error
    text.expect_keys("", content, ("default", "models"))
    # A file that was cut off must not look like a store that serves nothing.
    models: Any = content.get("models")
    text.expect(isinstance(models, dict), "", "models", models, "a table of models")
    routes = {name: _route(text, name, models[name], there.get(name, {})) for name in models}
    default = content.get("default", next(iter(models)) if len(models) == 1 else None)
    served = f"a model that is served: {listed(models)}"
    text.expect(default is None or default in [*models], "", "default", default, served)
    entries = {
        (name, version): Entry(name, version, path := there[name][version], signature(path))
        for name, route in routes.items()
        for version in route.versions
    }
    return Wanted(entries, routes, default)


def _route(text: Text, name: str, table: Any, there: Mapping[int, Path]) -> Route:
    text.expect_keys(name, table, ("versions", "default", "split"))
    found = versions = table.get("versions", "newest")
    if found in ("newest", "all"):
        versions = sorted(there)[-1 if found == "newest" else 0 :]
    valid = isinstance(versions, list) and versions and all(_is_in(there, one) for one in versions)
    folders = f"folders of {text.path.parent / name}, which has {listed(there)}"
    text.expect(bool(valid), name, "versions", found, f'"newest", "all", or a list of {folders}')
    default, split = table.get("default", max(versions)), table.get("split", {})
    served = f"versions that are served: {listed(versions)}"
    text.expect(_is_in(versions, default), name, "default", default, f"one of the {served}")
    weights = f"weights {RANGE}, like {{ 1 = 90, 2 = 10 }}, of the {served}"
    text.expect(_is_split(split, versions), name, "split", split, weights)
    weighted = {int(version): float(weight) for version, weight in sorted(split.items())}
    return Route(tuple(sorted({*versions})), default, weighted)


def _is_in(versions: Iterable[int], value: Any) -> bool:
    return type(value) is int and value in versions


def _is_split(value: Any, versions: Iterable[int]) -> bool:
    return isinstance(value, dict) and all(
        key in map(str, versions) and is_weight(weight) for key, weight in value.items()
    )


def is_weight(value: Any) -> bool:
    """Return whether this is a number that a version may have in a split."""
    return type(value) in (int, float) and 0 < value <= MAX_WEIGHT


def listed(items: Iterable[Any]) -> str:
    """Return the items for a message."""
    return ", ".join(map(str, items)) or "none"


def serve(folder: Path, name: str, which: Iterable[int] | Literal["newest", "all"]) -> Wanted:
    """Serve further versions of a model. A word replaces the versions that are served.

    Raises:
        StoreError: as for all edits, the result is not valid or not written. Nothing changes.
    """

    def change(store: Any, routes: Mapping[str, Route]) -> None:
        now = routes[name].versions if name in routes else ()
        table = store["models"].setdefault(name, {})
        table["versions"] = which if isinstance(which, str) else sorted({*now, *which})
        # The second model would end the default. Set last: tomlkit may put a new table before it.
        if "default" not in store and len(routes) < 2:
            store["default"] = next(iter(routes), name)

    return edit(folder, change)


def unserve(folder: Path, name: str, version: int | None = None) -> Wanted:
    """Stop serving a version of a model. None, or its last version: stop serving the model.

    The version loses its part of the split, and is the default no more.
    """

    def change(store: Any, routes: Mapping[str, Route]) -> None:
        now = _route_of(routes, name).versions
        if version not in (None, *now):
            raise StoreError(f"Version {version} of {name} is not served; {listed(now)} are.")
        left = [one for one in now if version is not None and one != version]
        if left:
            table = store["models"][name]
            table["versions"] = left
            table.get("split", {}).pop(str(version), None)
            if table.get("default") == version:
                del table["default"]
            return
        del store["models"][name]
        if store.get("default") == name:
            del store["default"]

    return edit(folder, change)


def set_default(folder: Path, name: str, version: int | None = None) -> Wanted:
    """Set the default version of a model, or without a version the default model."""

    def change(store: Any, routes: Mapping[str, Route]) -> None:
        _route_of(routes, name)
        if version is None:
            store["default"] = name
        else:
            store["models"][name]["default"] = version

    return edit(folder, change)


def set_split(folder: Path, name: str, split: Mapping[int, float]) -> Wanted:
    """Set the weights of a model's versions. An empty split removes it."""

    def change(store: Any, routes: Mapping[str, Route]) -> None:
        _route_of(routes, name)
        store["models"][name].pop("split", None)
        if split:
            from tomlkit import inline_table  # here: servers only read the file

            store["models"][name]["split"] = inline_table()
            store["models"][name]["split"].update({str(v): split[v] for v in sorted(split)})

    return edit(folder, change)


def _route_of(routes: Mapping[str, Route], name: str) -> Route:
    if name not in routes:
        raise StoreError(f"The model {name} is not served; {listed(routes)} are.")
    return routes[name]


def edit(folder: Path, change: Change) -> Wanted:
    """Change the text of the file, check the result, and replace the file."""
    import tomlkit  # here: servers only read the file

    with locked(folder):
        text, there = current(folder), versions(folder)
        routes, document = _wanted(text, there).routes, tomlkit.parse(text.text)
        change(document, routes)
        if not document["models"]:  # without its last table, it would not be written
            document["models"] = tomlkit.table()
        edited = Text(text.path, tomlkit.dumps(document))
        try:
            wanted = _wanted(edited, there)
        except StoreError as error:
            raise StoreError(f"The store is not changed. The change would make {error}") from None
        replace(edited)
    return wanted


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one administrator at a time change a store. Servers do not need the lock.

    Raises:
        StoreError: another administrator takes too long, or an OSError was raised inside.
    """
    from filelock import Timeout  # here: servers only read the file

    path = Path(os.path.realpath(folder / FILE))  # resolve() fails for a link to itself
    try:
        mode = path.parent.stat().st_mode & 0o666  # who may write the store may lock it
        with _lock(path.with_name(f".{FILE}.lock"), mode):
            yield
    except Timeout:
        raise StoreError(f"Another command is still changing {folder}. Retry later.") from None
    except OSError as error:
        kind = ReadOnlyStore if error.errno in READ_ONLY else StoreError
        raise kind(f"The model store {folder} cannot be changed: {error.strerror}.") from error


@cache  # a thread may take the same lock again
def _lock(path: Path, mode: int) -> AbstractContextManager[Any]:
    from filelock import FileLock

    return FileLock(path, timeout=LOCK_TIMEOUT_S, mode=mode)


def replace(text: Text) -> None:
    """Replace the file at once: other processes read the old text or the new one."""
    path = text.path.resolve()  # a link stays, and its target is replaced
    part = path.with_name(f".{FILE}.part")
    part.unlink(missing_ok=True)  # a killed command may have left it
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text.text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
