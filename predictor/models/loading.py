"""Settings → a model that is ready to serve."""

import logging
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from predictor.errors import ModelError, WeightsUnavailable
from predictor.models import weights
from predictor.models.network import Model
from predictor.models.shared_weights import load_shared
from predictor.models.spec import RANDOM, ModelInfo, ModelSpec
from predictor.models.zoo import build_empty, build_random, find_model
from predictor.settings import Settings

log = logging.getLogger(__name__)

# A forward pass of VGG16 in float32 holds 30 to 45 MB of activations per image, so a machine with
# many processors should not run one pass on each processor. More than two lanes were not measured.
MAX_LANES = 4
# Measured with VGG16 in float32, two passes at once on two processors. Batches of 2: 6.9 images/s
# and 129 MB of activations. Batches of 4: 6.5 images/s and 332 MB. 32 on a GPU was not measured.
CPU_BATCH, CUDA_BATCH = 2, 32


def load_model(settings: Settings, classes: int, threads: int) -> tuple[Model, ModelInfo]:
    """Load the model that the settings name, or the fallback model if its weights are missing.

    ``classes`` is the number of labels, ``threads`` the number of processors for the model.

    Raises:
        StartError: the model cannot be loaded; the message says what to do.
    """
    # Look it up at every start: a typo must not stay hidden until the fallback is needed.
    fallback = None if settings.fallback_model == "none" else find_model(settings.fallback_model)
    try:
        return _load(find_model(settings.model), settings, classes, threads, stands_in_for=None)
    except WeightsUnavailable as error:
        if fallback is None:
            raise
        log.warning("%s Serving %s instead.", error, fallback.name)
        return _load(fallback, replace(settings, weights="auto"), classes, threads, settings.model)


def _load(
    spec: ModelSpec, settings: Settings, classes: int, threads: int, stands_in_for: str | None
) -> tuple[Model, ModelInfo]:
    device = choose_device(settings.device)
    on_cpu = device.type == "cpu"
    dtype = choose_dtype(settings.precision, device, spec)
    torch.set_num_threads(threads)  # for the conversions in _build, on this thread
    path = None if settings.weights == RANDOM else weights.locate(spec, settings.weights)
    build = partial(_build, spec, classes, path, device, dtype)
    if on_cpu and (fd := settings.shared_weights_fd) is not None:
        empty = partial(build_empty, spec, classes)
        network = load_shared(fd, f"{spec.name} {path} {dtype}", build, empty)
    else:
        network = build()
    info = ModelInfo(
        name=spec.name,
        weights=RANDOM if path is None else str(path),
        device=device_name(device),
        precision=str(dtype).removeprefix("torch."),
        threads=threads,
        parameters=sum(p.numel() for p in network.parameters()),
        classes=classes,
        stands_in_for=stands_in_for,
    )
    lanes = min(threads, MAX_LANES) if on_cpu else 1
    batch = settings.max_batch_size or (CPU_BATCH if on_cpu else CUDA_BATCH)
    model = Model(network, spec.preprocessing, threads=threads, lanes=lanes, max_batch_size=batch)
    return model, info


def _build(
    spec: ModelSpec, classes: int, path: Path | None, device: torch.device, dtype: torch.dtype
) -> nn.Module:
    """Return the network on its device, in its precision. Without a path, weights are random."""
    network = build_random(spec, classes) if path is None else build_empty(spec, classes)
    if path is not None:
        weights.fill(network, weights.read(path), str(path), spec.name)
    return network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def choose_device(name: str) -> torch.device:
    """Return the device with this name. ``auto`` is CUDA if torch can use a GPU, else the CPU.

    Raises:
        ModelError: torch does not know the name, or the machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # fails on "meta", which has no memory
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"PREDICTOR_DEVICE={name!r} cannot be used here: {reason}") from error
    return device


def device_name(device: torch.device) -> str:
    """Return the device as text, with the GPU's name: ``cuda:0 (NVIDIA H200)``, or ``cpu``."""
    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{device}{gpu}"


def choose_dtype(
    precision: str, device: torch.device, spec: ModelSpec, cpuinfo: Path = Path("/proc/cpuinfo")
) -> torch.dtype:
    """Return the dtype with this name.

    ``auto`` is bfloat16 if the hardware computes in bfloat16, and if measurements have shown that
    the model answers as in float32. Otherwise ``auto`` is float32. ``cpuinfo`` is the file that
    lists the features of the processor.
    """
    if precision == "auto":
        use_bfloat16 = spec.bfloat16 and _computes_in_bfloat16(device, cpuinfo)
        return torch.bfloat16 if use_bfloat16 else torch.float32
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _computes_in_bfloat16(device: torch.device, cpuinfo: Path) -> bool:
    """Return whether the hardware multiplies bfloat16. Emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flag = re.compile(r"^flags.* (avx512|amx)_bf16\b", re.MULTILINE)
    return device.type == "cpu" and cpuinfo.is_file() and bool(flag.search(cpuinfo.read_text()))
