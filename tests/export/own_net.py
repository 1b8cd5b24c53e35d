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


__all__ = ["Decides", "Parts", "Small", "Together", "Unscriptable"]
