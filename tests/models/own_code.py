"""Files of networks as people write them."""

from __future__ import annotations

import torch
from torch import nn

TRANSFORM = """
from torchvision import transforms as T

transform = T.Compose(
    [T.Resize(72), T.CenterCrop(64), T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]
)
"""
NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=12):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=4)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 15 * 15, num_classes)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        return self.fc(x.view(-1, 8 * 15 * 15))  # fails in channels last


def build(**arguments):
    return Net(**arguments)
"""


def network_in(code: str = NET, **arguments: int) -> nn.Module:
    """The network that a file's ``build`` returns."""
    names: dict[str, type[nn.Module]] = {}
    exec(code, names)
    torch.manual_seed(1)
    return names["build"](**arguments).eval()
