"""mosec, as its example of a ResNet-50 serves a network: stages in processes of their own."""

import base64

import mosec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.network import answer, pixels, served

BATCH = 16


class Preprocess(mosec.Worker):
    """Photos in base64 → pixels."""

    def forward(self, data: dict[str, str]) -> NDArray[np.float32]:
        """Decode a photo: ``(3, 224, 224)``."""
        return pixels(base64.b64decode(data["image"])).numpy()


class Inference(mosec.Worker):
    """Batches of pixels → class indices."""

    def __init__(self) -> None:
        """Load the network. mosec warms it up with ``example``."""
        super().__init__()
        self.network = served()
        self.example = [np.zeros((3, 224, 224), np.float32)] * BATCH

    def forward(self, data: list[NDArray[np.float32]]) -> list[int]:
        """Classify a batch."""
        with torch.no_grad():
            return self.network(torch.from_numpy(np.stack(data))).argmax(1).tolist()


class Postprocess(mosec.Worker):
    """Class indices → classes."""

    def forward(self, data: int) -> dict[str, str]:
        """Name the class."""
        return answer(data)


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Preprocess, num=4)
    server.append_worker(Inference, num=2, max_batch_size=BATCH, timeout=600)
    server.append_worker(Postprocess)
    server.run()
