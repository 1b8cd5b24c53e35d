"""A network as code and a state_dict, for a process that has only the network's own package."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from predictor.export.subject import Logits, Subject
from predictor.models import reference
from predictor.models.description import value_of
from predictor.models.sources import torchvision

CODE, WEIGHTS = "exported_network.py", "model.pth"
TEXT = """\
from importlib import import_module

from torch import nn

from predictor.models.outputs import pick


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = import_module({module!r}).{call}

    def forward(self, images):
        return pick(self.network(images), {select!r}).reshape(len(images), -1)
"""


def write(subject: Subject, folder: Path, files: Path) -> dict[str, Path]:
    """Write the weights to ``folder``, and the code with an own network's file to ``files``.

    Return their paths, by the options of torch-model-archiver.
    """
    network = subject.network.network if isinstance(subject.network, Logits) else subject.network
    module, call = _builder(subject, network, files)
    select = subject.served.card.output.select
    (files / CODE).write_text(TEXT.format(module=module, call=call, select=select), "utf-8")
    state = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save(state, folder / WEIGHTS)
    return {"serialized-file": folder / WEIGHTS, "model-file": files / CODE}


def _builder(subject: Subject, network: nn.Module, files: Path) -> tuple[str, str]:
    """Return the module that builds the network, and the call. Copy an own network's file."""
    where = reference.parse(subject.served.card.source)
    arguments = value_of(subject.served.said, "arguments") or {}
    classes = {"num_classes": subject.served.info.outputs}
    if where.source == "code":
        place, _, name = where.target.rpartition(":")
        if not place.endswith(".py"):
            return place, f"{name}(**{arguments})"
        shutil.copy(place, files)
        return Path(place).stem, f"{name}(**{arguments})"
    if timm := getattr(network, "pretrained_cfg", None):
        return "timm", f"create_model({timm['architecture']!r}, **{classes | arguments})"
    published = torchvision.published_by_torchvision(Path(where.target).name)
    target = where.target if published is None else published
    if target == "efficientnet_lite0":
        name = "efficientnet-lite0"
        return "efficientnet_lite_pytorch", f"EfficientNet.from_name({name!r}, **{classes})"
    build: Any = torchvision.find_model(target).build  # a partial function
    name, extra = build.args
    return "torchvision.models", f"get_model({name!r}, **{classes | extra})"
