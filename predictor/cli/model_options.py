"""The options ``--model``, ``--weights`` and ``--labels``, and those that serve: ``--store``."""

import argparse
import os

OPTIONS = {
    "model": "resnet18, timm:NAME, net.py:build, or a file or folder; see docs/your-model.md",
    "weights": "file of the model's weights",
    "labels": "file of the class names",
    "store": "folder with several models; see docs/store.md",
}


def add(parser: argparse.ArgumentParser, serves: bool = False) -> None:
    """Add the options to the parser of a command; ``--store`` only if it serves."""
    for name, text in OPTIONS.items():
        if name == "store" and not serves:
            continue
        help = f"{text} (default: PREDICTOR_{name.upper()})"
        parser.add_argument(f"--{name}", metavar=name.upper(), help=help)


def apply(options: argparse.Namespace) -> None:
    """Set the environment variable of each given option; the option replaces the variable.

    The processes that a server starts, now and at a reload, thus get the same values.
    """
    given = {f"PREDICTOR_{name.upper()}": getattr(options, name, None) for name in OPTIONS}
    os.environ.update({name: value for name, value in given.items() if value is not None})
