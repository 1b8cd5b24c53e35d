"""Networks of an operator's own, to be exported."""

import torch
from torch import Tensor

from program_files import Small


class Decides(Small):
    """Turns the features of some photos around: control flow on data."""

    def forward(self, images: Tensor) -> Tensor:
        rows = []
        for row in self.features(images):
            if row.mean() > 0.1:
                row = row.flip(0)
            rows.append(row)
        return self.last(torch.stack(rows))


class Together(Small):
    """Decides by all photos of a batch, so it has to run one at a time."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        if features.mean() > 0.1:
            features = features.flip(1)
        return self.last(features)


class Unscriptable(Small):
    """Decides, and calls what TorchScript does not know."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.last(features.flip(1) if sorted(features.tolist())[0][0] > 1e9 else features)


class Parts(Small):
    """Returns its feature maps, too."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.features(images)
        return {"features": features, "logits": self.last(features)[:, :, None, None]}


class Halves(Small):
    """Without a pooling to uneven parts, which torch's older ONNX exporter cannot write."""

    def features(self, images: Tensor) -> Tensor:
        maps = self.second(self.first(images)).relu()[..., :14, :14]
        return torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)


class Depthwise(Halves):
    """With a depthwise convolution, always the same."""

    def __init__(self) -> None:
        super().__init__()
        deep = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
        self.register_buffer("deep", deep, persistent=False)

    def features(self, images: Tensor) -> Tensor:
        maps = torch.nn.functional.conv2d(self.first(images), self.deep, padding=1, groups=8)
        maps = self.second(maps).relu()[..., :14, :14]
        return torch.nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1)


__all__ = ["Decides", "Depthwise", "Halves", "Parts", "Small", "Together", "Unscriptable"]
