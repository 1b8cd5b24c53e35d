"""The grammar of PREDICTOR_MODEL and ``--model``, and of ``source`` in ``model.toml``.

The first row that fits decides:

==================================  ===========================================================
``timm:NAME``, ``torchvision:NAME``  a source's word (the keys of ``WORDS``) and a model's name
``net.py:build``                    a function or class in a file
``package.module:Net``              a function or class in an installed package
an existing path                    a file whose content decides, or a folder with ``model.toml``
``resnet50``, ``resnet50@NAME``     a model of torchvision, and which of its published weights
==================================  ===========================================================
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from predictor.errors import ModelError

# Endings of the file ``model.…`` that a folder may have instead of a reference in ``model.toml``.
ENDINGS = (".onnx", ".pt", ".pt2", ".pth", ".safetensors")
# A source's word → its module in ``predictor.models.sources``.
WORDS = {"timm": "timm", "torchvision": "torchvision"}
ACCEPTED = "a path, timm:NAME, file.py:name, package.module:name, resnet50, and resnet50@WEIGHTS"
CODE = re.compile(r"(?P<place>.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


class Reference(NamedTuple):
    """Where a model is."""

    source: str  # a module of ``predictor.models.sources``
    target: str  # what its function ``find`` looks for

    def __str__(self) -> str:
        """Return the reference in the grammar of PREDICTOR_MODEL."""
        word = {module: word for word, module in WORDS.items()}.get(self.source)
        return f"{word}:{self.target}" if word else self.target


def parse(text: str, folder: Path = Path()) -> Reference:
    """Return what the text names. Paths are relative to ``folder``.

    Raises:
        ModelError: it is a path, and there is no such file or folder.
    """
    word, _, rest = text.partition(":")
    if word in WORDS and rest:
        return Reference(WORDS[word], rest)
    if match := CODE.fullmatch(text):
        place = match["place"]
        at = str(folder / place) if place.endswith(".py") else place
        return Reference("code", f"{at}:{match['name']}")
    path = folder / Path(text).expanduser()
    if path.exists():
        return Reference("file", str(path))
    if not re.fullmatch(r"[\w-]+(@\w+)?", text):
        raise ModelError(f"There is no file, folder or model {text!r}. Accepted are {ACCEPTED}.")
    return Reference("torchvision", text)


def model_in(path: Path) -> Path:
    """Return the file of a model's folder that is called ``model.onnx`` or similarly.

    Return ``path`` itself if it is a file, or a folder that another program describes, or if it has
    no such file or several.
    """
    found = [one for one in path.glob("model.*") if one.suffix in ENDINGS]
    return found[0] if len(found) == 1 and not (path / "config.json").exists() else path


def file_of(reference: Reference) -> Path | None:
    """Return the file or folder that a reference names, or None."""
    if reference.source == "file":
        return Path(reference.target)
    place = reference.target.rpartition(":")[0]
    return Path(place) if reference.source == "code" and place.endswith(".py") else None
