"""``model.py`` for Triton's python backend: it answers photos as this app does at ``/v2``."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))  # the files that the export carries, before an installed package
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in predictor/__init__.py

import onnxruntime as ort  # noqa: E402

from predictor.errors import PredictorError  # noqa: E402
from predictor.export.carried import batch, prepare, read_card  # noqa: E402


class TritonPythonModel:
    """The model in one process. Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the description and the ONNX file, for all processors."""
        cpus = len(os.sched_getaffinity(0))
        self._card, self._decoders = read_card(FOLDER), ThreadPoolExecutor(cpus)
        options = ort.SessionOptions()
        options.intra_op_num_threads = cpus
        # As in this app: threads that spin take the processors from those that decode photos, and
        # many processors compute slowly with denormal numbers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self._session = ort.InferenceSession(
            FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of a batch. A bad photo fails only its own request."""
        photos = [
            triton.get_input_tensor_by_name(request, "image").as_numpy().ravel()
            for request in requests
        ]
        prepared = self._decoders.map(self._prepare, chain(*photos))
        found = [list(islice(prepared, len(one))) for one in photos]
        errors = [[item for item in one if isinstance(item, PredictorError)] for one in found]
        good = [one for one, wrong in zip(found, errors, strict=True) if not wrong]
        rows = iter(self._logits([*chain(*good)]))
        return [
            failure(wrong[0]) if wrong else answer([*islice(rows, len(one))])
            for one, wrong in zip(found, errors, strict=True)
        ]

    def _prepare(self, photo: bytes) -> NDArray[np.uint8] | PredictorError:
        try:
            return prepare(photo, self._card)
        except PredictorError as error:
            return error

    def _logits(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """N arrays ``(height, width, C)`` uint8 → ``(N, outputs)``."""
        if not images:
            return np.empty((0, 0), np.float32)
        (logits,) = self._session.run(None, {self._input: batch(images, self._card)})
        return logits  # type: ignore[no-any-return]


def answer(logits: Sequence[NDArray[np.float32]]) -> Any:
    """Return the response to a request: ``(n, outputs)`` logits for its n photos."""
    return triton.InferenceResponse([triton.Tensor("logits", np.stack(logits))])


def failure(error: PredictorError) -> Any:
    """Return the response to a request with a photo that cannot be answered."""
    kind = triton.TritonError
    code = kind.INVALID_ARG if error.status < 500 else kind.UNAVAILABLE
    return triton.InferenceResponse(error=kind(str(error), code))
