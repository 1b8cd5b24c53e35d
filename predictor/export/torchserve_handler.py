"""TorchServe's handler: it answers a photo as this app does at ``/predictions/{model}``."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from predictor.engine.ranking import by_label, rank
from predictor.errors import BadRequest, NotExplainable, PredictorError
from predictor.export.carried import batch, prepare, read_card

TOP_K = 5  # the default number of classes in an answer
ADVICE = 'Send a photo as the body (curl -T photo.jpg), or as JSON {"data": "<base64>"}.'
Row = Mapping[str, Any]  # the parts of a request; TorchServe has parsed a body of JSON


class Handler:
    """The model in one worker process. TorchServe calls it from one thread."""

    def initialize(self, context: Any) -> None:
        """Load the model on the GPU that TorchServe assigns, or else on the CPU."""
        folder, gpu = (
            Path(context.system_properties["model_dir"]),
            context.system_properties["gpu_id"],
        )
        on_gpu = gpu is not None and torch.cuda.is_available()
        self._device = torch.device(f"cuda:{gpu}" if on_gpu else "cpu")
        self._card, self._limits = read_card(folder), context.model_yaml_config["handler"]
        self._decoders = ThreadPoolExecutor(os.cpu_count())
        torch.set_flush_denormal(True)  # as this app: many processors compute denormals slowly
        self._network = load(folder, context.manifest["model"]).to(self._device).eval()

    def handle(self, rows: Sequence[Row], context: Any) -> list[str]:
        """Return JSON for each request of a batch. A bad photo fails only its own request."""
        rows = [
            {**row, **body} if isinstance(body := row.get("body"), dict) else row for row in rows
        ]
        found = list(self._decoders.map(self._prepare, rows))
        logits = iter(self._logits([one for one in found if isinstance(one, np.ndarray)]))
        answers = []
        for index, (row, one) in enumerate(zip(rows, found, strict=True)):
            try:
                if isinstance(one, PredictorError):
                    raise one
                if context.get_request_header(index, "explain") == "True":
                    raise NotExplainable("This archive explains no answers. Use /predictions.")
                answer: Any = by_label(rank(next(logits), self._card, self._top_k(row)))
            except PredictorError as error:
                status = error.status
                kind = "".join(status.phrase.title().split()).removesuffix("Error") + "Exception"
                answer = {"code": status.value, "type": kind, "message": str(error)}
                context.set_response_status(status.value, status.phrase, index)
            context.set_response_content_type(index, "application/json")
            answers.append(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")
        return answers

    def _prepare(self, row: Row) -> NDArray[np.uint8] | PredictorError:
        try:
            return prepare(photo_of(row), self._card, **self._limits)
        except PredictorError as error:
            return error

    @torch.inference_mode()
    def _logits(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """N arrays ``(height, width, C)`` → ``(N, outputs)``."""
        if not images:
            return np.empty((0, 0), np.float32)
        inputs = torch.from_numpy(batch(images, self._card)).to(self._device)
        return self._network(inputs).float().cpu().numpy()  # type: ignore[no-any-return]

    def _top_k(self, row: Row) -> int | None:
        """Return how many classes to answer; None: each label from the threshold on."""
        if (given := row.get("top_k")) is None:
            return TOP_K if self._card.output.threshold is None else None
        text = given.decode(errors="replace") if isinstance(given, bytearray) else str(given)
        if not text.isdecimal() or int(text) < 1:
            raise BadRequest(f"top_k is {text[:100]!r}; it must be a whole number of at least 1.")
        return int(text)


def photo_of(row: Row) -> bytes:
    """Return the photo, which may be base64. Raise BadRequest if there is none."""
    value = row.get("data", row.get("body"))
    try:
        photo = base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError as error:
        raise BadRequest(f"The text is not valid base64: {error}. {ADVICE}") from None
    if not isinstance(photo, bytes | bytearray):
        raise BadRequest(f"The request has no photo. {ADVICE}")
    return bytes(photo)


def load(folder: Path, manifest: Mapping[str, str]) -> Any:
    """Return the network of an archive: a TorchScript program, or the class of its model file."""
    weights = folder / manifest["serializedFile"]
    if not (code := manifest.get("modelFile")):
        return torch.jit.load(weights, "cpu")  # type: ignore[no-untyped-call]
    network = import_module(Path(code).stem).Network()
    network.load_state_dict(torch.load(weights, "cpu", weights_only=True))
    return network
