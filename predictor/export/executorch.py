"""ExecuTorch with XNNPACK, for Android, iOS and Linux; with files for a phone's app."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

from predictor.export.artefact import BATCH, Answers, Run, answers, batch
from predictor.export.options import Options
from predictor.export.subject import Subject, one_graph
from predictor.models.card import Card

TOLERANCE = 1e-3
FILE, CARD = "model.pte", "predictor"  # CARD: a method of the program, which returns the card


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.pte`` and the files for phones. Raise ExportError if it cannot be a graph."""
    most = BATCH if subject.batchable else 1
    # A batch of 1 as the example would become the only size.
    sizes = {0: torch.export.Dim("N", min=1, max=most)} if most > 1 else {}
    example = subject.example(min(2, most))
    with one_graph(subject, "exported for ExecuTorch"):
        graph = torch.export.export(subject.network, (example,), dynamic_shapes=(sizes,))
        lowered = to_edge_transform_and_lower(
            graph,
            partitioner=[XnnpackPartitioner()],
            constant_methods={CARD: subject.description},
        ).to_executorch()
    with (folder / FILE).open("wb") as file:
        lowered.write_to_file(file)
    (folder / "predictor.json").write_text(subject.description, "utf-8")
    shutil.copytree(Path(__file__).with_name("phones"), folder / "phones")
    return {"batch": f"1 to {most}"}


@contextmanager
def runtime(folder: Path, options: Options) -> Iterator[Run]:
    """Run the program with ExecuTorch's own runtime, which pip installs with the exporter."""
    program = Runtime.get().load_program(folder / FILE)
    description, forward = (program.load_method(name) for name in (CARD, "forward"))
    card = Card.from_json(json.loads(description.execute([])[0]))

    def run(photos: Sequence[bytes]) -> Answers:
        (logits,) = forward.execute([torch.from_numpy(batch(photos, card))])
        return answers(card, logits.numpy())

    yield run


def readme(subject: Subject, options: Options) -> str:
    """Say what the methods of the program and the files for phones are."""
    return (
        f"`{FILE}` has the methods `forward`, float32 (N, C, H, W) to logits, and `{CARD}`,"
        " which returns the description. `phones/` has code for an app: Prepare.java is tested;"
        " Classify.java and Classify.swift were not built where they were written."
    )
