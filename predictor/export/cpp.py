"""A C++ program: the CMake project ``cpp_project``, and the model that it runs with LibTorch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import numpy as np

from predictor.errors import ExportError
from predictor.export import pt2, torchscript
from predictor.export.artefact import BATCH, Answers, Run, program
from predictor.export.options import Options
from predictor.export.subject import Subject
from predictor.images.preprocessing import Interpolation
from predictor.models.labels import Label

TOLERANCE = 1e-4
PROJECT = Path(__file__).with_name("cpp_project")
INSTALL = "apt-get install cmake g++ libjpeg-dev libpng-dev liblcms2-dev nlohmann-json3-dev"


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write ``model.pt``, or ``model.pt2`` with native code, and the project that runs it.

    Raises:
        ExportError: the program or the model's format cannot carry the model.
    """
    if not subject.batchable:
        raise ExportError(f"{subject.name} takes one photo at a time; the C++ program, batches.")
    if subject.card.input.interpolation == Interpolation.NEAREST:
        raise ExportError("The C++ program has no interpolation nearest, only antialiased ones.")
    notes: dict[str, Any] = _model(options).write(subject, folder, options)
    shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
    return notes


def _model(options: Options) -> Any:
    """Return the format of the model beside the project."""
    return pt2 if options.compile else torchscript


@contextmanager
def runtime(folder: Path, options: Options) -> Iterator[Run]:
    """Build the project in a temporary folder, and start the program on the model.

    Raises:
        ExportError: a program or library is missing.
    """
    with TemporaryDirectory() as build, TemporaryFile() as errors:
        classify, model = build_program(folder, Path(build)), folder / _model(options).FILE
        command: list[Any] = [classify, "--json", "--batch", str(BATCH), model, "-"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            yield lambda photos: _ask(process, photos, Path(build), errors)


def build_program(project: Path, build: Path) -> Path:
    """Build the project with the LibTorch of this Python's torch; return the program.

    Raises:
        ExportError: cmake fails; the message has the end of its output.
    """
    cmake = program("cmake", f"On Debian: {INSTALL}")
    configure = ["-S", str(project), "-B", str(build), f"-DPython3_EXECUTABLE={sys.executable}"]
    for arguments in (configure, ["--build", str(build), "--parallel", "2"]):
        done = subprocess.run([cmake, *arguments], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-2000:]
            raise ExportError(f"cmake failed. On Debian, run: {INSTALL}\n{said}")
    return build / "classify"


def _ask(process: Any, photos: Sequence[bytes], folder: Path, errors: IO[bytes]) -> Answers:
    """Classify the photos in one batch."""
    paths = [folder / f"photo-{index}" for index in range(len(photos))]
    for path, photo in zip(paths, photos, strict=True):
        path.write_bytes(photo)
    process.stdin.write("".join(f"{path}\n" for path in [*paths, ""]))
    process.stdin.flush()
    found = [_read(process.stdout.readline(), errors) for _ in photos]
    best = [Label(one["class_id"], one["class_name"]) for one in found]
    return Answers(np.array([one["logits"] for one in found], np.float32), best)


def _read(line: str, errors: IO[bytes]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(line or "{}")
    if "logits" not in answer:
        errors.seek(0)
        raise RuntimeError(errors.read().decode().strip().rpartition("\n")[2])
    return answer


def readme(subject: Subject, options: Options) -> str:
    """Say how to build and run the program."""
    model = _model(options).FILE
    return (
        f"On Debian or Ubuntu, in an environment with torch: `{INSTALL}`\n\n```sh\n"
        "cmake -S . -B build && cmake --build build --parallel 2\n"
        f"build/classify {model} photo.jpg\n```\n\nIf the environment is not active, add"
        " `-DPython3_EXECUTABLE=/path/to/.venv/bin/python` to the first command; without Python,"
        " `-DLIBTORCH=/path/to/libtorch`. `build/classify` alone prints the"
        " options. docs/exports.md of this package says what it reads, and how fast it is."
    )
