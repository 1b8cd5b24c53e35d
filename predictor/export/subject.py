"""What is exported: the network, its description, and the server's own answers to photos."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from predictor.engine.cpus import available_cpus
from predictor.errors import ExportError
from predictor.export.artefact import Answers, answers
from predictor.export.carried import prepare
from predictor.images.decoding import decode
from predictor.models import loading
from predictor.models.card import Card
from predictor.models.description import FILE
from predictor.models.network import Model
from predictor.models.networks import FoundNetwork
from predictor.models.outputs import parts_of, pick
from predictor.models.probe import reason
from predictor.models.scorer import LoadedModel
from predictor.resources import resource
from predictor.settings import PILLOWS_LIMIT, Settings

SAMPLES = ("cat", "espresso", "rocket")  # in static/samples


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to export.

    Attributes:
        card: its description, as the artefact carries it.
        network: ``(N, C, height, width)`` float32, normalised → ``(N, outputs)`` float32 logits. On
            the CPU, in eval mode, contiguous in memory.
        served: the same model as the server runs it.
        batchable: whether it may run several photos at once.
    """

    card: Card
    network: nn.Module
    served: LoadedModel
    batchable: bool
    _model: Model

    @property
    def description(self) -> str:
        """The JSON that every artefact carries; the sources of ``predictor.models`` read it."""
        return json.dumps(self.card.as_json(), ensure_ascii=False)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    def write_toml(self, folder: Path, trust: bool = False) -> None:
        """Write ``model.toml`` if this package needs to know more than the file itself may say."""
        lines = ["trust = true\n"] * trust + ["batchable = false\n"] * (not self.batchable)
        if lines:
            (folder / FILE).write_text("".join(lines))

    def example(self, count: int) -> Tensor:
        """Return the sample photos as the network takes them: ``(count, C, height, width)``."""
        images = [prepare(photo, self.card) for photo in samples(self.card)]
        return self._model.batch([images[index % len(images)] for index in range(count)])

    def answers(self, photos: Sequence[bytes]) -> Answers:
        """Return the server's answers to encoded photos, in float32."""
        scorer = self.served.scorer
        logits = scorer.logits([prepare(photo, self.card) for photo in photos], scorer.lanes)
        return answers(self.card, logits)


def load(settings: Settings) -> Subject:
    """Load the model that the settings name, in float32 on the CPU.

    Raises:
        StartError: it cannot be loaded, or it is a program instead of a network.
    """
    settings = replace(settings, device="cpu", precision="float32", shared_weights=())
    cpus = available_cpus()
    served = loading.load_model(settings, cpus)
    if served.info.stands_in_for:
        settings = replace(settings, model=settings.fallback_model)
    asked, where = loading.ask(settings, cpus)
    found = loading.find(asked, where)
    if not isinstance(found, FoundNetwork):
        raise ExportError(
            f"{where} is a program ({served.info.platform}), and only a network can be exported."
            " Name the network and weights that it was made from."
        )
    model = found.unpacked(served.card.input, served.info.outputs)
    card = replace(
        served.card,
        source=Path(served.card.source).name,  # a folder of this machine says nothing elsewhere
        output=replace(served.card.output, select=None),
    )
    batchable = "batchable" not in served.said or bool(served.said["batchable"].value)
    subject = Subject(card, model.network, served, batchable, model)
    network = _logits_of(model.network, subject.example(1), served.card.output.select)
    return replace(subject, network=network)


def samples(card: Card) -> list[bytes]:
    """Return the sample photos, encoded, in the model's size if it takes no other."""
    folder = resource("static") / "samples"
    photos = [(folder / f"{name}.jpg").read_bytes() for name in SAMPLES]
    return [_resized(photo, card) for photo in photos] if card.input.resize == "none" else photos


def _resized(photo: bytes, card: Card) -> bytes:
    encoded = io.BytesIO()
    decode(photo, PILLOWS_LIMIT).resize(card.input.size[::-1]).save(encoded, "PNG")
    return encoded.getvalue()


class Logits(nn.Module):
    """A network that returns only its logits, ``(N, outputs)``."""

    def __init__(self, network: nn.Module, key: Any) -> None:
        """Take the part of what the network returns that has the key; None: all of it."""
        super().__init__()
        self.network, self.key = network, key

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, height, width)`` → ``(N, outputs)``."""
        returned = self.network(images)
        logits: Tensor = returned if self.key is None else parts_of(returned)[self.key]
        return logits.reshape(logits.shape[0], -1)


@contextmanager
def one_graph(subject: Subject, way: str) -> Iterator[None]:
    """Raise ExportError if what is in here, such as torch.export, cannot carry the network."""
    try:
        yield
    except Exception as error:  # of any class: it comes out of the network, or of many passes
        raise ExportError(
            f"{subject.name} cannot be {way}, because that takes one graph of the same steps for"
            " every photo and every number of photos. If it decides by the photo, write that with"
            f" torch.where or torch.cond, or use `predictor export torchscript`. {reason(error)}"
        ) from error


@torch.inference_mode()
def _logits_of(network: nn.Module, example: Tensor, select: str | int | None) -> nn.Module:
    """Return the network, wrapped if it does not return its logits ``(N, outputs)`` alone."""
    returned = network(example)
    logits = pick(returned, select)
    if logits is returned:
        return network if logits.ndim == 2 else Logits(network, None)
    parts = parts_of(returned).items()
    return Logits(network, next(key for key, part in parts if part is logits))
