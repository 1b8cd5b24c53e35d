"""TorchServe's inference API, and the read-only part of its management API."""

from predictor.web.protocols.torchserve.metrics import metric_aliases
from predictor.web.protocols.torchserve.views import PREFIXES, as_error, blueprint, explanations

__all__ = ["PREFIXES", "as_error", "blueprint", "explanations", "metric_aliases"]
