"""A network on its device: pixels in, float32 logits out."""

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predictor.images.preprocessing import Pixels, Preprocessing
from predictor.models.fusion import fuse
from predictor.models.gradcam import GradCAM
from predictor.models.outputs import pick
from predictor.models.scorer import Evidence, warm_up_sizes


class Model:
    """Runs batches of images through a network in eval mode.

    Call the model from a few long-lived threads: torch keeps a pool of workers for each of them.

    Attributes:
        network: the network, as it was given or with its layers replaced.
        preprocessing: converts an RGB image to the pixels that the network takes.
        lanes: number of equal parts of the processors, and so of forward passes at once.
        max_batch_size: maximum number of images in one forward pass.
        warm_up_sizes: batch sizes to run once before the first request.
    """

    explains = True

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing,
        *, threads: int, lanes: int, max_batch_size: int,
        select: str | int | None = None, plain: bool = False,
    ) -> None:  # fmt: skip
        """Prepare a network that is already on its device, in its precision and in eval mode.

        ``threads`` is the number of processors for all lanes together. ``select`` says which part
        of what the network returns are the logits; see :func:`predictor.models.outputs.pick`. A
        ``plain`` network gets contiguous batches, and its layers are not replaced. Others are
        channels last in memory.
        """
        self.preprocessing = preprocessing
        self.lanes, self.max_batch_size = lanes, max_batch_size
        tensors = itertools.chain(network.parameters(), network.buffers())
        first = next(filter(torch.is_floating_point, tensors), torch.empty(0))
        device = first.device
        self._device, self._dtype, self._threads, self._plain = device, first.dtype, threads, plain
        self.network, self._select = network if plain else fuse(network), select
        self.warm_up_sizes = warm_up_sizes(device.type == "cpu", lanes, max_batch_size)
        # ToTensor and Normalize in one step: (x / 255 - mean) / std, on pixels from 0 to 255.
        self._offset = torch.from_numpy(preprocessing.offset).to(device)
        self._divisor = torch.from_numpy(preprocessing.divisor).to(device)

    @torch.inference_mode()
    def logits(self, images: Sequence[Pixels], lanes: int = 1) -> NDArray[np.float32]:
        """Run the network on a batch. This forward pass uses the threads of ``lanes`` lanes.

        N arrays ``(height, width, C)`` from 0 to 255, uint8 or float32 → ``(N, outputs)`` float32
        logits, in class-index order.
        """
        prepare_thread(max(1, self._threads * lanes // self.lanes))
        picked = pick(self.network(self.batch(images)), self._select)
        # One logit may come as ``(N,)``.
        logits: NDArray[np.float32] = picked.float().reshape(len(images), -1).cpu().numpy()
        return logits

    def explain(
        self, image: NDArray[np.uint8], evidence: Evidence, pause: Callable[[], None]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the network on one image and explain a class. Only one thread at a time may call it.

        ``(height, width, C)`` uint8 → ``(outputs,)`` float32 logits, and ``(h, w)`` float32 heat,
        0 to 1. ``evidence`` says how each logit counts for the class. ``pause`` is called before
        each layer. If ``pause`` raises an exception, the explanation ends with it.

        Raises:
            NotExplainable: the network has no feature maps.
        """
        prepare_thread(self._threads)
        logits, heat = self._grad_cam(self.batch([image]), evidence, pause)
        return logits[0].float().cpu().numpy(), heat.cpu().numpy()

    @cached_property
    def _grad_cam(self) -> GradCAM:
        return GradCAM(self.network, self._select)

    def batch(self, images: Sequence[Pixels]) -> Tensor:
        """Stack and normalise N images ``(height, width, C)``: ``(N, C, height, width)``."""
        # From pinned memory, the GPU copies the batch in the background: this thread waits only
        # when it reads the logits. torch keeps the pinned memory for the next batch.
        shape = len(images), *images[0].shape
        whole = all(image.dtype == np.uint8 for image in images)
        dtype = torch.uint8 if whole else torch.float32
        staged = torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")
        np.stack(images, out=staged.numpy())
        pixels = staged.to(self._device, non_blocking=True)
        batch = (pixels.float() - self._offset) / self._divisor  # (N, H, W, C)
        batch = batch.to(self._dtype).permute(0, 3, 1, 2)  # (N, C, H, W), channels last in memory
        return batch.contiguous() if self._plain else batch


def prepare_thread(threads: int) -> None:
    """Let this thread compute with a number of threads, and treat denormal numbers as 0.

    Trained weights have numbers below 1.2e-38, with which many processors compute several times as
    slowly (lukemelas/EfficientNet-PyTorch#39: 0.77 s instead of 0.16 s). torch's threads inherit
    this mode from the thread that starts them, so it must be set before a thread first computes.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)  # of this thread only
