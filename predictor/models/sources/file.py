"""A file or a folder: its content decides what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from predictor.errors import ModelError
from predictor.models.description import Said
from predictor.models.sources import Found, Request


def find(request: Request) -> Found:
    """Find the model in a file or folder.

    Raises:
        ModelError: it holds no model, or only weights of a network that nobody names.
    """
    path = Path(request.target)
    if path.suffix == ".onnx":
        from predictor.models.sources import onnx

        return onnx.find(request)
    from predictor.models.sources import torchvision

    published = torchvision.published_by_torchvision(path.name)
    if published is None:
        raise ModelError(
            f"{path} holds only weights. Set PREDICTOR_MODEL to their network, such as resnet18 or"
            f" net.py:build, and PREDICTOR_WEIGHTS={path}."
        )
    said = request.said | {"weights": Said(str(path), "PREDICTOR_MODEL")}
    return torchvision.find(replace(request, target=published, said=said))
