"""A program of torch.export, or native code that AOTInductor makes of it: ``model.pt2``."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch.export import Dim, ExportedProgram

from predictor.errors import ExportError
from predictor.export.artefact import Run, served
from predictor.export.options import Options
from predictor.export.subject import Subject
from predictor.models.probe import reason

TOLERANCE = 1e-4
FILE, CARD = "model.pt2", "predictor.json"


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.pt2`` with the description in it.

    Raises:
        ExportError: the network decides by its data, or there is no compiler.
    """
    path = folder / FILE
    if options.compile and shutil.which("g++") is None:
        raise ExportError("There is no g++ to compile with. On Debian: apt-get install g++")
    program = make(subject)
    if options.compile:
        compile(program, path, subject.description)
    else:
        torch.export.save(program, path, extra_files={CARD: subject.description})
    subject.write_toml(folder, trust=options.compile)
    return {"made by": "AOTInductor" if options.compile else "torch.export"}


def make(subject: Subject, static: bool = False) -> ExportedProgram:
    """Return the network as a program, for any number of photos or for one.

    Raises:
        ExportError: torch.export cannot follow what the network does.
    """
    one_at_once = static or not subject.batchable
    dynamic = None if one_at_once else ({0: Dim("batch")},)
    example = subject.example(1 if one_at_once else 2)
    try:
        return torch.export.export(subject.network, (example,), dynamic_shapes=dynamic)
    except Exception as error:  # of any class, because it comes out of the network
        raise ExportError(
            f"torch.export cannot carry {subject.name}, probably because its code decides by the"
            f" photo or by the number of photos: {reason(error)} TorchScript may carry it."
        ) from error


def compile(program: ExportedProgram, path: Path, description: str) -> None:
    """Compile a program to native code for this machine's processor, in ``path``."""
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    with ZipFile(path, "a") as archive:
        top = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{top}/extra/{CARD}", description)


def runtime(folder: Path, options: Options) -> AbstractContextManager[Run]:
    """Run the program with torch."""
    return served(folder / FILE)


def readme(subject: Subject, options: Options) -> str:
    """Say how to serve the program, and how to load it."""
    serve = f"Serve it: `PREDICTOR_MODEL={FILE} predictor serve`\n\n"
    if not options.compile:
        return f'{serve}In Python: `torch.export.load("{FILE}").module()`'
    return (
        f'{serve}In Python: `torch._inductor.aoti_load_package("{FILE}")`; in C++:'
        f' `torch::inductor::AOTIModelPackageLoader("{FILE}")`. It is native code for this'
        " machine's processor and this version of torch, and takes two photos or more; to serve"
        " it, `model.toml` says `trust = true`, because it was made here."
    )
