"""LitServe, as its guide "Speed up serving" serves a network: a pool of threads decodes a batch."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor

import litserve
import torch
from torch import Tensor

from benchmarks.network import answer, pixels, served


class Classifier(litserve.LitAPI):
    """Photos in base64 → classes."""

    def setup(self, device: str) -> None:
        """Load the network, in the process that computes."""
        self.network, self.pool = served().to(device), ThreadPoolExecutor(os.cpu_count())

    def decode_request(self, request: dict[str, str]) -> str:
        """Take the photo out of the JSON."""
        return request["image_data"]

    def batch(self, inputs: list[str]) -> Tensor:
        """Decode N photos: ``(N, 3, 224, 224)``."""
        photos = self.pool.map(lambda text: pixels(base64.b64decode(text)), inputs)
        return torch.stack([*photos]).to(self.device)

    def predict(self, x: Tensor) -> Tensor:
        """Return the class indices of a batch: ``(N,)``."""
        with torch.inference_mode():
            return self.network(x).argmax(1)

    def unbatch(self, output: Tensor) -> list[int]:
        """Split the batch."""
        return output.tolist()

    def encode_response(self, output: int) -> dict[str, str]:
        """Name the class."""
        return answer(output)


if __name__ == "__main__":
    api = Classifier(max_batch_size=8, batch_timeout=0.01)
    # Its documentation: on a CPU, as many workers as cores.
    workers = len(os.sched_getaffinity(0))
    server = litserve.LitServer(api, timeout=600, workers_per_device=workers)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)
