"""The Open Inference Protocol, version 2, over HTTP: Triton's and KServe's protocol."""

from predictor.web.protocols.open_inference.infer import infer
from predictor.web.protocols.open_inference.repository import management
from predictor.web.protocols.open_inference.views import PREFIXES, as_error, blueprint

__all__ = ["PREFIXES", "as_error", "blueprint", "infer", "management"]
