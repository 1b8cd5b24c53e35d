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


__all__ = ["Decides", "Small"]
