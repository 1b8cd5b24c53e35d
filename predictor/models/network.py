"""A network on its device: uint8 images in, float32 logits out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predictor.errors import ModelError, WeightsUnavailable
from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models import weights
from predictor.models.fused_conv import pack
from predictor.models.gradcam import GradCAM
from predictor.models.info import RANDOM, ModelInfo
from predictor.models.shared_weights import share
from predictor.models.zoo import ModelSpec, build_empty, build_random, find_model
from predictor.settings import Settings

log = logging.getLogger(__name__)

# A pass of VGG16 in float32 holds 30 to 45 MB of activations an image, so that not every one of
# many processors should have a pass of its own; more than two were not measured.
MAX_LANES = 4
# VGG16, float32, two passes side by side on two processors: 6.9 images/s and 129 MB of
# activations in twos, 6.5 and 332 MB in fours. 32 on a GPU is a guess until it is measured.
CPU_BATCH, CUDA_BATCH = 2, 32


class Model:
    """An eval-mode network, ready to score batches.

    Threads that score should be few and live long: torch keeps a pool of workers for each
    thread that computes.

    Attributes:
        preprocessing: what turns a photo into the pixels it wants.
        lanes: into how many parts the processors can be dealt; most forward passes at once.
        max_batch_size: most images in one forward pass.
        warm_up_sizes: numbers of images to score once before anybody waits for them.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        dtype: torch.dtype,
        threads: int,
        lanes: int,
        max_batch_size: int,
    ) -> None:
        """Take a network that is on the device, in the precision given, channels last."""
        self.preprocessing = preprocessing
        self.lanes, self.max_batch_size = lanes, max_batch_size
        self._network = network
        pack(network)
        self._device, self._dtype, self._threads = device, dtype, threads
        self._pin = device.type == "cuda"
        self.warm_up_sizes = warm_up_sizes(device, lanes, max_batch_size)
        # ToTensor and Normalize in one: (x / 255 - mean) / std, on pixels from 0 to 255.
        self._mean = torch.tensor(preprocessing.mean, device=device) * 255
        self._std = torch.tensor(preprocessing.std, device=device) * 255

    @torch.inference_mode()
    def logits(self, images: Sequence[Pixels], lanes: int = 1) -> NDArray[np.float32]:
        """Score a batch.

        Args:
            images: N arrays ``(crop, crop, 3)`` uint8, as the preprocessing makes them, or float32
                on the same scale.
            lanes: of the processors, for this forward pass.

        Returns:
            ``(N, classes)`` float32 logits, in class-index order.
        """
        torch.set_num_threads(max(1, self._threads * lanes // self.lanes))  # of this thread alone
        logits: NDArray[np.float32] = self._network(self._batch(images)).float().cpu().numpy()
        return logits

    def explain(
        self, image: NDArray[np.uint8], class_index: int | None, pause: Callable[[], None]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score one image and say where the evidence for a class lies; one thread at a time.

        Args:
            image: ``(crop, crop, 3)`` uint8, as the preprocessing makes it.
            class_index: the class to explain; the best one when not given.
            pause: called before each layer.

        Returns:
            ``(classes,)`` float32 logits, and ``(h, w)`` float32 heat from 0 to 1.

        Raises:
            NotExplainable: the network has no feature maps.
        """
        torch.set_num_threads(self._threads)
        logits, heat = self._grad_cam(self._batch([image]), class_index, pause)
        return logits[0].float().cpu().numpy(), heat.cpu().numpy()

    @cached_property
    def _grad_cam(self) -> GradCAM:
        return GradCAM(self._network)

    def _batch(self, images: Sequence[Pixels]) -> Tensor:
        """Stack and normalise: ``(N, 3, crop, crop)`` on the device, channels last."""
        # Pinned memory, which torch keeps and gives out again, is copied to the GPU in the
        # background; nothing waits for the GPU before the logits are wanted.
        shape = len(images), *images[0].shape
        whole = all(image.dtype == np.uint8 for image in images)
        dtype = torch.uint8 if whole else torch.float32
        staged = torch.empty(shape, dtype=dtype, pin_memory=self._pin)
        np.stack(images, out=staged.numpy())
        pixels = staged.to(self._device, non_blocking=True)
        batch = (pixels.float() - self._mean) / self._std  # (N, H, W, 3)
        return batch.to(self._dtype).permute(0, 3, 1, 2)  # (N, 3, H, W), channels last as it lies


def load_model(settings: Settings, classes: int, threads: int) -> tuple[Model, ModelInfo]:
    """Build the model the settings ask for, or its stand-in where there is one.

    Raises:
        StartError: it cannot be served; the sentence says what to do.
    """
    # Looked up in any case: a typo should not wait for the day on which it is needed.
    stand_in = None if settings.fallback_model == "none" else find_model(settings.fallback_model)
    try:
        return _load(find_model(settings.model), settings.weights, settings, classes, threads)
    except WeightsUnavailable as error:
        if stand_in is None:
            raise
        log.warning("%s stands in. %s", stand_in.name, error)
        return _load(stand_in, "auto", settings, classes, threads, settings.model)


def _load(
    spec: ModelSpec,
    source: str,
    settings: Settings,
    classes: int,
    threads: int,
    stands_in_for: str | None = None,
) -> tuple[Model, ModelInfo]:
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.precision, device, spec)
    torch.set_num_threads(threads)  # for the conversions below, on the loading thread
    path = None if source == RANDOM else weights.locate(spec, source)

    def build() -> nn.Module:
        network = build_random(spec, classes) if path is None else build_empty(spec, classes)
        if path is not None:
            weights.fill(network, weights.read(path), str(path), spec.name)
        return network.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    if settings.shared_weights_fd is None or device.type != "cpu":
        network = build()
    else:
        identity = f"{spec.name} {path} {dtype}"
        network = share(
            settings.shared_weights_fd, identity, build, partial(build_empty, spec, classes)
        )
    info = ModelInfo(
        name=spec.name,
        weights=RANDOM if path is None else str(path),
        device=describe_device(device),
        precision=str(dtype).removeprefix("torch."),
        threads=threads,
        parameters=sum(p.numel() for p in network.parameters()),
        classes=classes,
        stands_in_for=stands_in_for,
    )
    on_cpu = device.type == "cpu"
    model = Model(
        network,
        spec.preprocessing,
        device=device,
        dtype=dtype,
        threads=threads,
        lanes=min(threads, MAX_LANES) if on_cpu else 1,
        max_batch_size=settings.max_batch_size or (CPU_BATCH if on_cpu else CUDA_BATCH),
    )
    return model, info


def choose_device(name: str) -> torch.device:
    """The device by name; ``auto`` is CUDA where there is a GPU that torch can use.

    Raises:
        ModelError: torch does not know the name, or there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # "meta" has no numbers to give back
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"PREDICTOR_DEVICE={name!r} cannot be used here: {reason}") from error
    return device


def warm_up_sizes(device: torch.device, lanes: int, max_batch_size: int) -> set[int]:
    """On the CPU one image, one a share and a full batch; on a GPU also the powers of two.

    A GPU chooses its kernels by the batch's size, and loads them when they are first used.
    """
    if device.type == "cpu":
        return {1, lanes, max_batch_size}
    return {min(2**power, max_batch_size) for power in range(max_batch_size.bit_length() + 1)}


def describe_device(device: torch.device) -> str:
    """The device with its name, where it has one: ``cuda:0 (NVIDIA H200)``."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def choose_dtype(precision: str, device: torch.device, spec: ModelSpec) -> torch.dtype:
    """The precision of the arithmetic: as asked, or bfloat16 where that is known to be right."""
    if precision != "auto":
        dtype = getattr(torch, precision)
        assert isinstance(dtype, torch.dtype)
        return dtype
    return torch.bfloat16 if spec.bfloat16 and _computes_in_bfloat16(device) else torch.float32


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 itself; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())
