"""Networks saved as programs, TorchScript or torch.export: what their sources share."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, nn

from predictor.errors import ModelError, NotExplainable
from predictor.images.preprocessing import CHANNELS, Preprocessing
from predictor.models.description import Description, carried, describe, value_of
from predictor.models.devices import choose_device, device_name
from predictor.models.network import Model, prepare_thread
from predictor.models.outputs import pick
from predictor.models.probe import reason
from predictor.models.scorer import QUANTISE, Loaded, lanes_and_batch
from predictor.models.sources import Request

log = logging.getLogger(__name__)


class Program(NamedTuple):
    """A program on its device."""

    run: Callable[[Tensor], Any]  # ``(N, C, height, width)``, normalised → what it returns
    dtype: torch.dtype  # of what it takes
    parameters: int
    # Whether it is for batches that are channels last in memory. Two passes at once are then 8 to
    # 18 % faster than with contiguous batches (VGG16, EfficientNet-Lite0), but a view() may fail.
    channels_last: bool


@dataclass(frozen=True, slots=True)
class FoundProgram:
    """A file that holds a program."""

    path: Path
    platform: str
    request: Request
    read_shape: Callable[[], list[int | None] | None]
    open: Callable[[torch.device, int, bool], Program]  # device, lanes, whether channels last

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return re.sub(r"[^A-Za-z0-9]+", "-", self.path.stem).strip("-") or "program"

    @property
    def said(self) -> Description:
        """What ``predictor.json`` in the file says, or else the shape of the program's input."""
        said = carried(record(self.path, "/predictor.json"), str(self.path))
        shape = [] if "input.size" in said | self.request.said else self._shape()
        if len(shape) != 4 or None in shape[1:] or shape[1] not in CHANNELS:
            return said
        example = {"size": shape[2:], "channels": CHANNELS[shape[1]]}
        return describe({"input": example}, f"{self.path}: its example") | said

    def _shape(self) -> list[int | None]:
        """Return ``[N, C, H, W]`` of the input, None for what is not fixed; empty if unknown."""
        with suppress(Exception):  # of any class; to load the program raises one that says more
            return self.read_shape() or []
        return []

    def load(self, input: Preprocessing, classes: int | None) -> Loaded:
        """Load the program on its device, and find out how many images it takes at once."""
        settings, threads = self.request.settings, self.request.cpus
        device = choose_device(settings.device)
        lanes, size = lanes_and_batch(device.type == "cpu", threads, settings.max_batch_size)
        prepare_thread(threads)
        select = value_of(self.said | self.request.said, "output.select")
        for channels_last in (True, False):
            program = self._opened(device, lanes, channels_last)
            model = ProgramModel(
                Network(program, device, select), input, threads=threads, lanes=lanes,
                max_batch_size=size, plain=not program.channels_last,
            )  # fmt: skip
            failure = model.failure(1)
            if failure is None or not program.channels_last:
                break
        if failure is not None:
            raise self._not_run(failure, input.shape)
        precision = str(program.dtype).removeprefix("torch.")
        if settings.precision not in ("auto", precision):
            raise ModelError(
                f"PREDICTOR_PRECISION is {settings.precision}, but {self.path} is a program for"
                f" {precision}. Remove the setting, or save the network in this precision."
                + f" {QUANTISE}"
                * (settings.precision == "int8")
            )
        why = ""
        while size > 1 and (failure := model.failure(size)):
            size, why = size // 2, f"{size} fail: {reason(failure)}"
        if why:
            model.max_batch_size = size
            log.info("%s takes %d image(s) at once, because %s", self.path, size, why)
        return Loaded(
            model,
            weights=str(self.path),
            device=device_name(device),
            precision=precision,
            threads=threads,
            parameters=program.parameters,
            platform=self.platform,
        )

    def _opened(self, device: torch.device, lanes: int, channels_last: bool) -> Program:
        try:
            return self.open(device, lanes, channels_last)
        except Exception as error:  # of any class, because the file is read by others
            raise ModelError(
                f"{self.path} cannot be loaded by torch {torch.__version__}: {reason(error)}"
                " Save it again on this device, with this torch or an older one."
            ) from error

    def _not_run(self, failure: Exception, shape: tuple[int, int, int]) -> ModelError:
        """Return the error of a program that cannot run one image."""
        if isinstance(failure, ModelError):
            return ModelError(f"{self.path}: {failure}")
        example = self._shape()
        was = f" It was saved with the shape {example}." if example else ""
        return ModelError(
            f"{self.path} cannot run one image of the shape {[1, shape[2], *shape[:2]]}:"
            f" {reason(failure)}{was} Correct [input] in model.toml, or save the network for one"
            " image or any number."
        )


class Network(nn.Module):
    """A program as a network: from a batch to logits."""

    def __init__(self, program: Program, device: torch.device, select: str | int | None) -> None:
        """Wrap a program. ``select`` is as of :func:`predictor.models.outputs.pick`."""
        super().__init__()
        self._program, self._select = program, select
        self.like = nn.Parameter(torch.empty(0, dtype=program.dtype, device=device), False)

    def forward(self, batch: Tensor) -> Tensor:
        """``(N, C, height, width)`` → ``(N, outputs)`` logits."""
        logits: Tensor = pick(self._program.run(batch), self._select)
        if len(logits) != len(batch):
            raise ModelError(f"{len(batch)} images give {len(logits)} rows.")
        return logits


class ProgramModel(Model):
    """Runs batches of images through a program."""

    explains = False

    def failure(self, count: int) -> Exception | None:
        """Run ``count`` black images; return why that fails, or None."""
        try:
            self.logits([np.zeros(self.preprocessing.shape, np.uint8)] * count)
        except Exception as error:  # of any class, because it comes out of a program
            return error
        return None

    def explain(self, *_: Any) -> Any:
        """Raise NotExplainable."""
        raise NotExplainable(
            "The served model is a program whose layers cannot be watched. Serve its network and"
            " weights to get explanations."
        )


def record(path: Path, end: str) -> bytes | None:
    """Return the record of a zip archive whose name ends like this, or None."""
    with ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(end)]
        return archive.read(names[0]) if names else None
