"""TorchScript: traced, or scripted where tracing would fix what the network decides by a photo."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning  # torch.jit does not export it for type checkers
from torch.jit.mobile import _load_for_lite_interpreter

from predictor.errors import ExportError
from predictor.export.artefact import Answers, Run, answers, batch, quiet, served
from predictor.export.options import Options
from predictor.export.subject import Subject
from predictor.models.card import Card
from predictor.models.probe import reason
from predictor.models.program import record

TOLERANCE = 1e-4
FILE, LITE_FILE, CARD = "model.pt", "model.ptl", "predictor.json"


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.pt`` or ``model.ptl``, with the description in it. Return how it was made.

    Raises:
        ExportError: the network can be neither traced nor scripted.
    """
    extra = {CARD: subject.description}
    with quiet():
        program, how = make(subject)
        if options.frozen:
            program = torch.jit.freeze(program)
        if options.lite:
            program._save_for_lite_interpreter(str(folder / LITE_FILE), _extra_files=extra)
        else:
            torch.jit.save(program, folder / FILE, _extra_files=extra)
            subject.write_toml(folder)
    return {"made by": how}


def make(subject: Subject) -> tuple[torch.jit.ScriptModule, str]:
    """Return the program, and whether it was made by ``tracing`` or ``scripting``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TracerWarning)
        try:
            traced: Any = torch.jit.trace(subject.network, subject.example(2))  # type: ignore[no-untyped-call]
        except Exception as error:  # of any class, because it comes out of the network
            raise ExportError(f"{subject.name} cannot be traced: {reason(error)}") from error
    doubts = [one for one in caught if issubclass(one.category, TracerWarning)]
    if not doubts:
        return traced, "tracing"
    try:
        return torch.jit.script(subject.network), "scripting"
    except Exception as error:
        place = f"{Path(doubts[0].filename).name}, line {doubts[0].lineno}"
        raise ExportError(
            f"{subject.name} cannot be traced, because {place} decides by the photo, and it cannot"
            f" be scripted: {reason(error)}"
        ) from error


def runtime(folder: Path, options: Options) -> AbstractContextManager[Run]:
    """Run the program with torch, or with its lite interpreter."""
    return _lite(folder / LITE_FILE) if options.lite else served(folder / FILE)


@contextmanager
def _lite(path: Path) -> Iterator[Run]:
    with quiet():
        module = _load_for_lite_interpreter(str(path), "cpu")  # type: ignore[no-untyped-call]
    card = Card.from_json(json.loads(record(path, f"/{CARD}") or ""))

    def run(photos: Sequence[bytes]) -> Answers:
        return answers(card, module(torch.from_numpy(batch(photos, card))).numpy())

    yield run


def readme(subject: Subject, options: Options) -> str:
    """Say how to run the program, and what replaces it."""
    if options.lite:
        return (
            f"`{LITE_FILE}` is for the lite interpreter of PyTorch Mobile, which ExecuTorch"
            " replaces (`predictor export executorch`). optimize_for_mobile is not in today's"
            " wheels of torch, so the program is not optimised for a phone's processor."
        )
    return (
        f"Serve it: `PREDICTOR_MODEL={FILE} predictor serve`\n\nIn Python:"
        f' `torch.jit.load("{FILE}")`; in C++: `torch::jit::load("{FILE}")`. The record'
        f" `{CARD}` in it has the labels and the preprocessing. torch.jit is deprecated: where"
        " you can choose, use `predictor export pt2`."
    )
