"""The command ``predictor``: one module per command. No other package imports them."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from predictor import __version__
from predictor.cli import model_options

EXIT_STATUS = (
    "Exit status: 0 all photos are {done}, 1 some cannot be read, 2 the command cannot run,"
    " 130 interrupted, 141 the reader of the output has ended."
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status. ``photo.jpg`` alone means ``classify photo.jpg``.

    Import a command only when it runs, so that ``--help`` does not load NumPy or torch.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    if arguments[0] not in (*COMMANDS, "-h", "--help", "--version"):
        arguments = ["classify", *arguments]
    options, further = parser.parse_known_args(arguments)
    if options.command == "serve":
        options.further = further
    elif further:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    model_options.apply(options)
    status: int = import_module(f"predictor.cli.{options.command}").run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predictor",
        description="Classify photos, on the command line or over HTTP.",
        epilog="PREDICTOR_MODEL and the other PREDICTOR_ variables configure all commands.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )
    for name, (help, add_options, texts) in COMMANDS.items():
        command = commands.add_parser(name, help=help, allow_abbrev=name != "serve", **texts)
        add_options(command)
        model_options.add(command)
    return parser


def _classify(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("paths", nargs="*", metavar="PATH", help="photo, folder, or - for a photo on stdin")
    add("--files-from", metavar="FILE", help="read more paths from FILE, one per line; - is stdin")
    add(
        "--top-k", type=int, metavar="N",
        help="classes per photo (default: 1, or all that are likely if several can be right)",
    )  # fmt: skip
    add(
        "--format", choices=("table", "csv", "jsonl"),
        help="default: what the name of --output ends in, or table",
    )  # fmt: skip
    add("--output", metavar="FILE", help="write the results to FILE instead of stdout")
    add(
        "--resume", action="store_true",
        help="continue FILE after a broken run: skip the photos that it has (csv and jsonl)",
    )  # fmt: skip


def _evaluate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("source", metavar="FOLDER|FILE.csv", help="photos and their classes")
    add("--csv", metavar="FILE", help="write a row for each photo to FILE")
    add("--html", metavar="FILE", help="write a report with the pictures that were wrong to FILE")


def _inspect(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("photo", nargs="?", metavar="PHOTO", help="default: a photo of an espresso")
    add(
        "--picture",
        metavar="FILE.png",
        help="write the picture that the model sees to FILE, as PNG",
    )
    add("--json", action="store_true", help="print the model's description as JSON only")


def _serve(_: argparse.ArgumentParser) -> None:
    """Further options are gunicorn's."""


# Each command with its line in --help, its own options, and the texts of its own --help.
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], dict[str, Any]]] = {
    "classify": ("classify photos and folders of photos", _classify, {
        "description": "Print the best classes of each photo. `predictor photo.jpg` does the same.",
        "epilog": f"{EXIT_STATUS.format(done='classified')} If the weights of the default model"
        " cannot be downloaded, a small model replaces it; set PREDICTOR_MODEL to choose the"
        " model.",
    }),
    "evaluate": ("measure how often the model is right", _evaluate, {
        "description": "Classify photos whose class is known, and say how often the model is right."
        " FOLDER has one sub-folder per class, called by the class's name, id or index. FILE.csv"
        " has a path and a class in each row.",
        "epilog": EXIT_STATUS.format(done="evaluated"),
    }),
    "inspect": ("show the model that would be served", _inspect, {
        "description": "Print what would be served, where each value comes from, and what the model"
        " says about one photo.",
        "epilog": EXIT_STATUS.format(done="read"),
    }),
    "serve": ("serve POST /predict and a page", _serve, {
        "usage": "predictor serve [-h] [--model MODEL] [--weights WEIGHTS] [--labels LABELS]"
        " [GUNICORN OPTION ...]",
        "description": "Serve POST /predict and a page with gunicorn, on http://127.0.0.1:5000.",
        "epilog": "The environment variables HOST and PORT change the address. Further options are"
        " passed to gunicorn: predictor serve --certfile cert.pem --keyfile key.pem",
    }),
}  # fmt: skip
