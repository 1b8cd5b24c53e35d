"""BentoML, as its documentation of adaptive batching and of images serves a network."""

import bentoml
import torch
from PIL.Image import Image

from benchmarks.network import answer, served, transform


@bentoml.service(traffic={"timeout": 600}, workers="cpu_count")
class Classifier:
    """Photos → classes."""

    def __init__(self) -> None:
        """Load the network."""
        self.network = served()

    # Later answers than max_latency_ms are 503, and a full batch of VGG16 takes longer than the
    # second of the documentation's example; 60 s is the default.
    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60_000)
    def classify(self, images: list[Image]) -> list[dict[str, str]]:
        """Classify a batch."""
        batch = torch.stack([transform(image.convert("RGB")) for image in images])
        with torch.inference_mode():
            return [answer(index) for index in self.network(batch).argmax(1).tolist()]
