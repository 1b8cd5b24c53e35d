"""``predictor store``: keep models by name and version, and say which of them are served."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from predictor.cli.compare import compare
from predictor.cli.photos import exit_status, fail
from predictor.cli.store_add import add, remove
from predictor.errors import StoreError
from predictor.settings import unquoted
from predictor.store import file, layout
from predictor.store.wanted import Wanted


def run(options: argparse.Namespace) -> int:
    """Run the action that the further arguments name. Return the exit status."""
    chosen = _parser().parse_args(options.further)
    given = unquoted(chosen.store or os.environ.get("PREDICTOR_STORE", ""))
    if given in ("", "none"):
        return fail("Name the store: --store FOLDER, or set PREDICTOR_STORE.")
    store = Path(given).expanduser()
    return exit_status(lambda: chosen.action(store, chosen) or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predictor store",
        description="Keep models by name and version, and say which of them are served. Running"
        " servers follow. See docs/store.md.",
    )
    group = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, (action, help, arguments) in ACTIONS.items():
        command = group.add_parser(name, help=help, description=f"{help.capitalize()}.")
        command.set_defaults(action=action)
        command.add_argument("--store", metavar="FOLDER", help="default: PREDICTOR_STORE")
        for argument, values in arguments.items():
            command.add_argument(argument, **values)
    return parser


def _share(text: str) -> tuple[int, float]:
    version, _, weight = text.partition("=")
    try:
        return int(version), int(weight) if weight.isdecimal() else float(weight)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not VERSION=WEIGHT, like 1=90") from None


def _list(store: Path, _: argparse.Namespace) -> None:
    there = layout.versions(store)
    wanted = file.read(store) if (store / file.FILE).exists() else Wanted({}, {}, None)
    print(f"{'MODEL':24}  VERSION")
    for name, folders in there.items():
        for version in folders:
            print(f"{name:24}  {version:<7}  {_state(wanted, name, version)}")


def _state(wanted: Wanted, name: str, version: int) -> str:
    if (name, version) not in wanted.entries:
        return "not served"
    route, words = wanted.routes[name], ["served"]
    if version in route.split:
        words.append(f"{route.split[version] / sum(route.split.values()):.1%} of requests")
    if version == route.default:
        words.append("default version")
        words += ["of the default model"] * (name == wanted.default)
    return ", ".join(words)


def _add(store: Path, options: argparse.Namespace) -> None:
    folder = add(store, options.name, Path(options.path).expanduser(), options.version)
    print(f"{folder} is added. Serve it: predictor store serve {options.name} {folder.name}")


def _serve(store: Path, options: argparse.Namespace) -> None:
    if options.versions and options.all:
        raise StoreError("--all serves all versions. Name versions or give --all, not both.")
    which: Any = options.versions or ("all" if options.all else "newest")
    file.serve(store, options.name, which)


def _unserve(store: Path, options: argparse.Namespace) -> None:
    had = file.read(store).default
    now = file.unserve(store, options.name, options.version).default
    if had is not None and now is None:
        print(f"{had} was the default model. Requests must name a model now.", file=sys.stderr)


def _default(store: Path, options: argparse.Namespace) -> None:
    file.set_default(store, options.name, options.version)


def _split(store: Path, options: argparse.Namespace) -> None:
    if len(shares := dict(options.shares)) < len(options.shares):
        raise StoreError("A version is named twice. Give each version one weight.")
    file.set_split(store, options.name, shares)


def _remove(store: Path, options: argparse.Namespace) -> None:
    remove(store, options.name, options.version)


NAME: dict[str, Any] = {"name": {"metavar": "NAME", "help": "the model's name"}}
VERSION: dict[str, Any] = {"type": int, "metavar": "VERSION"}
ACTIONS: dict[str, tuple[Any, str, dict[str, dict[str, Any]]]] = {
    "list": (_list, "print the models and versions, and which are served", {}),
    "add": (_add, "copy a model into the store as its next version; it is not served yet", NAME | {
        "path": {"metavar": "FILE|FOLDER", "help": "a model; see docs/your-model.md"},
        "--version": VERSION | {"help": "default: 1 more than the newest version"},
    }),
    "serve": (_serve, "serve versions of a model, beside those that are served", NAME | {
        "versions": VERSION | {"nargs": "*", "help": "default: only and always the newest"},
        "--all": {"action": "store_true", "help": "all versions, also those added later"},
    }),
    "unserve": (_unserve, "stop serving a version, or the model", NAME | {
        "version": VERSION | {"nargs": "?", "help": "default: all"},
    }),
    "default": (_default, "set the version of requests that name none, or the model", NAME | {
        "version": VERSION | {"nargs": "?", "help": "without: NAME becomes the default model"},
    }),
    "split": (_split, "divide the requests that name no version between versions", NAME | {
        "shares": {
            "type": _share, "nargs": "*", "metavar": "VERSION=WEIGHT", "help": "none: no split",
        },
    }),
    "remove": (_remove, "delete the folder of a version that is not served", NAME | {
        "version": VERSION,
    }),
    "compare": (compare, "compare what two versions answer to the same photos, and their speed", {
        "first": {"metavar": "NAME/VERSION", "help": "served or not"},
        "second": {"metavar": "NAME/VERSION", "help": "of this or another model"},
        "--photos": {"required": True, "metavar": "FOLDER", "help": "as for predictor evaluate"},
        "--html": {"metavar": "FILE", "help": "write a report with pictures"},
    }),
}  # fmt: skip
