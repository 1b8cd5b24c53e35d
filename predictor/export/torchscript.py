"""TorchScript: traced, or scripted where tracing would fix a decision of one photo."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from predictor.errors import ExportError
from predictor.export.artefact import Run, served
from predictor.export.options import Options
from predictor.export.subject import Subject
from predictor.models.probe import reason

TOLERANCE = 1e-4
FILE = "model.pt"


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.pt`` with the description in it. Return how it was made.

    Raises:
        ExportError: the network can be neither traced nor scripted.
    """
    with _deprecated():
        program, how = _program(subject)
        extra = {"predictor.json": subject.description}
        torch.jit.save(program, folder / FILE, _extra_files=extra)
    return {"made by": how}


def _program(subject: Subject) -> tuple[torch.jit.ScriptModule, str]:
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
        raise ExportError(
            f"{subject.name} cannot be traced, because it decides by the photo"
            f" ({doubts[0].filename}, line {doubts[0].lineno}), nor scripted: {reason(error)}"
        ) from error


@contextmanager
def _deprecated() -> Iterator[None]:
    """torch.jit may be used in here: it warns that torch.export replaces it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def runtime(folder: Path, options: Options) -> AbstractContextManager[Run]:
    """Run the program with torch."""
    return served(folder / FILE)


def readme(subject: Subject, options: Options) -> str:
    """Say how to serve the program, and what replaces it."""
    return (
        f"Serve it: `PREDICTOR_MODEL={FILE} predictor serve`\n\n"
        "torch.jit is deprecated: for new programs, use `predictor export pt2`."
    )
