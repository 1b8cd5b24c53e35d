"""The device and the precision that a network runs in."""

import re
from pathlib import Path

import torch

from predictor.errors import ModelError
from predictor.models.scorer import QUANTISE


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
    precision: str, device: torch.device, bfloat16: bool, cpuinfo: Path = Path("/proc/cpuinfo")
) -> torch.dtype:
    """Return the dtype with this name.

    ``auto`` is bfloat16 if the hardware computes in bfloat16, and if ``bfloat16`` says that the
    model answers as in float32. Otherwise ``auto`` is float32. ``cpuinfo`` is the file that lists
    the features of the processor.

    Raises:
        ModelError: it is int8, which no network of torch is served in.
    """
    if precision == "auto":
        use_bfloat16 = bfloat16 and _computes_in_bfloat16(device, cpuinfo)
        return torch.bfloat16 if use_bfloat16 else torch.float32
    if precision == "int8":
        raise ModelError(f"PREDICTOR_PRECISION is int8. {QUANTISE}")
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _computes_in_bfloat16(device: torch.device, cpuinfo: Path) -> bool:
    """Return whether the hardware multiplies bfloat16. Emulation would be slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flag = re.compile(r"^flags.* (avx512|amx)_bf16\b", re.MULTILINE)
    return device.type == "cpu" and cpuinfo.is_file() and bool(flag.search(cpuinfo.read_text()))
