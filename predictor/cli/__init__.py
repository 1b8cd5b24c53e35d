"""The command ``predictor``: one module per command. No other package imports them."""

import argparse
import sys
from importlib import import_module
from typing import Any

from predictor import __version__
from predictor.cli import model_options
from predictor.export import FORMATS
from predictor.export.options import arguments as export_options


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
    if options.command in TAKE_FURTHER:
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
    group = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, (help, texts, options) in COMMANDS.items():
        command = group.add_parser(name, help=help, allow_abbrev=name not in TAKE_FURTHER, **texts)
        for option, values in options.items():
            command.add_argument(option, **values)
        if name not in ("convert", "store"):
            model_options.add(command, serves=name == "serve")
    return parser


# Commands that read arguments themselves.
TAKE_FURTHER = ("serve", "store")
EXIT_STATUS = (
    "Exit status: 0 all photos are done, 1 some cannot be read, 2 the command cannot run, 130"
    " interrupted, 141 the reader of the output has ended."
)
# Each command with its line in --help, the texts of its own --help, and its own options.
COMMANDS: dict[str, tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = {
    "classify": ("classify photos and folders of photos", {
        "description": "Print the best classes of each photo. `predictor photo.jpg` does the same.",
        "epilog": f"{EXIT_STATUS} If the weights of the default model cannot be downloaded, a small"
        " model replaces it; name a model to choose one.",
    }, {
        "paths": {"nargs": "*", "metavar": "PATH", "help": "photo or folder; -: from stdin"},
        "--files-from": {"metavar": "FILE", "help": "more paths, one per line; - is stdin"},
        "--top-k": {
            "type": int, "metavar": "N",
            "help": "classes per photo (default: 1; of several at once, the likely ones)",
        },
        "--format": {
            "choices": ("table", "csv", "jsonl"),
            "help": "default: what the name of --output ends in, or table",
        },
        "--output": {"metavar": "FILE", "help": "write the results to FILE instead of stdout"},
        "--resume": {
            "action": "store_true",
            "help": "continue FILE after a broken run: skip the photos that it has (csv and jsonl)",
        },
    }),
    "convert": ("turn a pickled model, or an archive for TorchServe, into a folder to serve", {
        "description": "Write a folder with the weights and a model.toml, and compare its answers."
        " The file is EXECUTED: it can run any program. Convert only files that you trust.",
    }, {
        "path": {"metavar": "FILE", "help": "model.pth, or model.mar or its folder"},
        "--output": {"metavar": "FOLDER", "help": "default: FILE without its ending"},
        "--program": {
            "metavar": "train.py", "help": "the program that wrote FILE, if it has the class",
        },
    }),
    "evaluate": ("measure how often the model is right", {
        "description": "Classify photos whose class is known, and say how often the model is right."
        " FOLDER has one sub-folder per class, called by the class's name, id or index. FILE.csv"
        " has the columns path and class.",
        "epilog": EXIT_STATUS,
    }, {
        "source": {"metavar": "FOLDER|FILE.csv", "help": "photos and their classes"},
        "--csv": {"metavar": "FILE", "help": "write a row for each photo to FILE"},
        "--html": {"metavar": "FILE", "help": "write a report with pictures of wrong answers"},
    }),
    "export": ("write the served model for another runtime, and prove that it answers alike", {
        "description": "Write a folder with the model, its labels and its preprocessing; run it in"
        " the runtime that it is for, and compare its answers with the server's. Formats: "
        + "; ".join(f"{name}: {text}" for name, text in FORMATS.items()) + ".",
        "epilog": "Exit status: 0 all answers are alike, 1 they differ, 2 the command cannot run, 3"
        " int8 loses more than 1 % top-1.",
    }, {
        "format": {"nargs": "?", "choices": list(FORMATS), "metavar": "FORMAT"},
        "--all": {"action": "store_true", "help": "every format that can carry the model"},
        "--out": {"metavar": "DIR", "help": "new folder (default: the model's name and FORMAT)"},
        "--check": {
            "nargs": "+", "metavar": "PHOTOS",
            "help": "photos, or folders of photos, to compare (default: three sample photos)",
        },
        "--no-check": {"action": "store_true", "help": "write without the proof"},
        **export_options(),
    }),
    "inspect": ("show the model that would be served", {
        "description": "Print what would be served, where each value comes from, and what the model"
        " answers for a photo.",
        "epilog": EXIT_STATUS,
    }, {
        "photo": {"nargs": "?", "metavar": "PHOTO", "help": "default: a photo of an espresso"},
        "--picture": {"metavar": "FILE.png", "help": "write the picture that the model sees"},
        "--json": {"action": "store_true", "help": "print only the model's description as JSON"},
    }),
    "serve": ("serve POST /predict and a page", {
        "usage": "predictor serve [-h] [--model MODEL] [--weights WEIGHTS] [--labels LABELS]"
        " [--store STORE] [GUNICORN OPTION ...]",
        "description": "Serve POST /predict and a page with gunicorn, on http://127.0.0.1:5000.",
        "epilog": "The environment variables HOST and PORT change the address. Further options are"
        " passed to gunicorn: predictor serve --certfile cert.pem --keyfile key.pem",
    }, {}),
    "store": ("keep models by name and version, and choose which are served", {
        "add_help": False,  # predictor.cli.store has the actions
    }, {}),
}  # fmt: skip
