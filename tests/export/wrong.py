"""A small network to export, and exports that are wrong on purpose: every proof rejects them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from PIL import ImageOps
from torch import nn

from paths import TESTS
from photographs import photographs
from pictures import encode
from predictor.export.options import Options
from predictor.export.proof import Proof
from predictor.export.running import Photos, compare, module_of
from predictor.export.subject import Subject
from predictor.settings import Settings
from program_files import CLASSES, SETTINGS, Small, ready

Card = dict[str, Any]  # the JSON that an artefact carries


def _input(**values: Any) -> Callable[[Card], Card]:
    return lambda card: card | {"input": card["input"] | values}


def _labels(card: Card) -> Card:
    first, *rest = card["labels"].values()
    return card | {"labels": dict(zip(card["labels"], [*rest, first], strict=True))}


# What is wrong → a function from the right card to the wrong one.
WRONG: dict[str, Callable[[Card], Card]] = {
    "mean off by 0.01": lambda card: _input(mean=[x + 0.01 for x in card["input"]["mean"]])(card),
    "labels shifted by one": _labels,
    "resize 256": _input(resize=256),
    "BGR": _input(channels="BGR"),
    "no normalisation": _input(mean=[0.0] * 3, std=[1.0] * 3),
}
WRONG_MODELS = {name.replace(" ", "-"): wrong for name, wrong in WRONG.items()}  # as models' names
each_wrong = pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))


@functools.cache
def photos() -> Photos:
    """20 photographs as small JPEGs, which are decoded quickly."""
    small = [ImageOps.contain(photo, (192, 192)) for photo in photographs()]
    return [(f"{at}.jpg", encode(photo, "JPEG")) for at, photo in enumerate(small)]


def settings(folder: Path, kind: type[nn.Module] = Small, toml: str = "") -> Settings:
    """Write the weights and labels of a network of ``own_net.py``, whose answers differ."""
    torch.save(ready().state_dict(), folder / "net.pth")
    (folder / "model.toml").write_text(toml)
    labels = {str(index): [f"id{index}", f"kind {index}"] for index in range(CLASSES)}
    (folder / "labels.json").write_text(json.dumps(labels))
    return Settings(
        model=f"{TESTS / 'export' / 'own_net.py'}:{kind.__name__}",
        weights=str(folder / "net.pth"), labels=str(folder / "labels.json"), **SETTINGS,
    )  # fmt: skip


def write(format: str, subject: Subject, folder: Path, **options: Any) -> ModuleType:
    """Write an artefact into a new folder."""
    folder.mkdir()
    module = module_of(format)
    module.write(subject, folder, Options(**options))
    return module


def proof(module: ModuleType, subject: Subject, folder: Path, **options: Any) -> Proof:
    """The proof of a written artefact, with the 20 photographs."""
    return compare(module, subject, photos(), folder, Options(**options))


def change_card(archive: Path, wrong: Callable[[Card], Card]) -> None:
    """Replace the card in a zip archive such as ``model.pt`` by a wrong one."""
    with ZipFile(archive) as old:
        records = {info.filename: old.read(info) for info in old.infolist()}
    (name,) = [name for name in records if name.endswith("/predictor.json")]
    records[name] = json.dumps(wrong(json.loads(records[name]))).encode()
    with ZipFile(archive, "w") as new:
        for record, content in records.items():
            new.writestr(record, content)
