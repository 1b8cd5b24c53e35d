"""Write an artefact, prove it, and say so in its README.md and export.json."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from predictor import __version__
from predictor.errors import ExportError, PredictorError
from predictor.export import FORMATS, subject
from predictor.export.artefact import Photos, read
from predictor.export.carried import prepare
from predictor.export.options import Options
from predictor.export.proof import Proof, prove
from predictor.export.subject import Subject
from predictor.models.probe import reason
from predictor.settings import Settings

PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "executorch", "numpy",
            "pillow", "torchserve", "torch-model-archiver", "nvidia-pytriton")  # fmt: skip
LOSSY = 3  # exit status, if int8 loses more than is accepted


@dataclass(frozen=True, slots=True)
class Exported:
    """An artefact that has been written."""

    format: str
    folder: Path
    bytes: int  # of its files
    notes: dict[str, Any]  # by the format, about how it was written
    proof: Proof | None  # None: it was not compared with the server
    accept_loss: float = 0.0  # percent

    @property
    def status(self) -> int:
        """The command's exit status."""
        return 1 if self.failure else LOSSY * bool(self.loss)

    @property
    def loss(self) -> str:
        """What int8 loses, if that is more than is accepted."""
        if (lost := self.notes.get("lost %", 0)) <= self.accept_loss:
            return ""
        return (
            f"int8 loses {lost:g} % top-1, or as many of its answers differ; {self.accept_loss:g} %"
            f" are accepted. Use float32, or add --accept-loss {lost:g}."
        )

    @property
    def failure(self) -> str:
        """Why the artefact must not be used; empty if it answers as the server does."""
        if self.proof is None or self.proof.ok:
            return ""
        if self.proof.failure:
            return f"It does not run as exported. {self.proof.failure}"
        return (
            f"It does not answer as the server does: {self.proof.same} of {self.proof.photos}"
            f" photos have the same class, and logits differ by {self.proof.difference:.1e} of the"
            f" largest (allowed: {self.proof.tolerance:g})."
        )


def load(settings: Settings, check: Iterable[str | Path] | None) -> tuple[Subject, Photos]:
    """Load the model, and read the photos to compare; None: the sample photos.

    Raises:
        StartError: the model cannot be loaded or exported, or a photo cannot be read.
    """
    model = subject.load(settings)
    if check is None:
        return model, [*zip(subject.SAMPLES, subject.samples(model.card), strict=True)]
    photos = read(check)
    for name, data in photos:
        try:
            prepare(data, model.card)
        except PredictorError as error:
            raise ExportError(f"{name}: {error}") from error
    return model, photos


def run(
    format: str, model: Subject, photos: Photos, out: str | Path | None, options: Options
) -> Exported:
    """Write one artefact into a new folder and prove it with the photos, if there are any.

    Raises:
        StartError: the format cannot carry the model, or its programs are missing. Nothing is left.
    """
    module = module_of(format)
    options.check(format)
    folder = Path(out or f"{model.name}-{format}")
    if folder.exists():
        raise ExportError(f"{folder} exists. Remove it, or name another folder with --out.")
    folder.mkdir(parents=True)
    try:
        notes = module.write(model, folder, options)
        proof = compare(module, model, photos, folder, options) if photos else None
    except BaseException:
        shutil.rmtree(folder)
        raise
    (folder / "README.md").write_text(_readme(module, format, model, options), "utf-8")
    size = sum(file.stat().st_size for file in _files(folder))
    exported = Exported(format, folder, size, notes, proof, options.accept_loss)
    (folder / "export.json").write_text(_json(exported, model, options), "utf-8")
    return exported


def module_of(format: str) -> ModuleType:
    """Import the module of a format.

    Raises:
        ExportError: there is no such format, or a package that it needs is not installed.
    """
    if format not in FORMATS:
        raise ExportError(f"There is no format {format!r}. Accepted are {', '.join(FORMATS)}.")
    try:
        return import_module(f"predictor.export.{format}")
    except ModuleNotFoundError as error:
        raise ExportError(
            f"{error.name} is not installed. docs/exports.md says what {format} needs."
        ) from error


def compare(
    module: ModuleType, model: Subject, photos: Photos, folder: Path, options: Options
) -> Proof:
    """Run a written artefact in its runtime, and compare its answers with the server's."""
    other = options.int8 or options.handler != "predictor"  # it may answer differently
    tolerance = math.inf if other else module.TOLERANCE
    several = model.batchable and not options.static
    logarithms = getattr(module, "LOG_PROBABILITIES", False)
    try:
        with module.runtime(folder, options) as ask:
            return prove(ask, model, photos, tolerance, several, logarithms)
    except ExportError:  # a program is missing
        raise
    except Exception as error:  # the runtime, which may raise any, does not load the artefact
        return Proof(tolerance, len(photos), failure=reason(error))


def _readme(module: ModuleType, format: str, model: Subject, options: Options) -> str:
    return (
        f"# {model.name}: {FORMATS[format]}\n\n{module.readme(model, options)}\n\n"
        f"Input: {model.card.input.describe()}. {len(model.card.labels)} classes,"
        f" {model.card.output.describe()}.\n\n"
        "`export.json` has the versions and hashes, and the comparison with the served model.\n"
    )


def _json(exported: Exported, model: Subject, options: Options) -> str:
    content = {
        "format": exported.format,
        "model": {key: getattr(model.card, key) for key in ("name", "version", "source")},
        "weights": Path(model.served.info.weights).name,
        "options": asdict(options),
        "notes": exported.notes,
        "versions": {"python": platform.python_version(), "predictor": __version__}
        | {one.name: one.version for one in distributions() if one.name in PACKAGES},
        "files": {
            str(file.relative_to(exported.folder)): {
                "bytes": file.stat().st_size, "sha256": _sha256(file)
            }
            for file in _files(exported.folder)
        },
        "proof": exported.proof and exported.proof.as_json(),
    }  # fmt: skip
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
