"""Ray Serve, as its tutorial serves an image classifier, with its dynamic batching."""

import os
import tempfile

import ray
import torch
from ray import serve
from starlette.requests import Request

from benchmarks.network import answer, pixels, served


# A replica has one processor by default, and as many threads.
@serve.deployment(num_replicas=len(os.sched_getaffinity(0)))
class Classifier:
    """Photos → classes."""

    def __init__(self) -> None:
        """Load the network."""
        self.network = served()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def classify(self, photos: list[bytes]) -> list[dict[str, str]]:
        """Classify a batch."""
        batch = torch.stack([pixels(photo) for photo in photos])
        with torch.inference_mode():
            return [answer(index) for index in self.network(batch).argmax(1).tolist()]

    async def __call__(self, request: Request) -> dict[str, str]:
        """Classify one photo, with those of other requests."""
        return await self.classify(await request.body())


if __name__ == "__main__":
    # Of its own: a running cluster, which RAY_ADDRESS may name, is left alone.
    ray.init("local", include_dashboard=False, _temp_dir=tempfile.gettempdir())
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Classifier.bind(), blocking=True)
