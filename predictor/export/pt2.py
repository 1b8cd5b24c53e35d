"""A program of torch.export, or native code that AOTInductor makes of it: ``model.pt2``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch.export import Dim, ExportedProgram

from predictor.export.artefact import Run, program, served
from predictor.export.options import Options
from predictor.export.subject import Subject, one_graph

TOLERANCE = 1e-4
FILE, CARD = "model.pt2", "predictor.json"


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.pt2`` with the description in it.

    Raises:
        ExportError: the network decides by its data, or there is no compiler.
    """
    path = folder / FILE
    if options.compile:
        program("g++", "On Debian: apt-get install g++")
    example = subject.example(2 if subject.batchable else 1)
    sizes = ({0: Dim("batch")},) if subject.batchable else None
    with one_graph(subject, "exported by torch.export"):
        graph = torch.export.export(subject.network, (example,), dynamic_shapes=sizes)
    if options.compile:
        compile(graph, path, subject.description)
    else:
        torch.export.save(graph, path, extra_files={CARD: subject.description})
    subject.write_toml(folder, trust=options.compile)
    return {"made by": "AOTInductor" if options.compile else "torch.export"}


def compile(graph: ExportedProgram, path: Path, description: str) -> None:
    """Compile a graph to native code for this machine's processor, in ``path``."""
    torch._inductor.aoti_compile_and_package(graph, package_path=str(path))
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
