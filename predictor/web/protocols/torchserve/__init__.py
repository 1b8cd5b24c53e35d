"""TorchServe's inference API, and its management API."""

from predictor.web.protocols.torchserve.management import management
from predictor.web.protocols.torchserve.metrics import metric_aliases
from predictor.web.protocols.torchserve.views import PREFIXES, as_error, blueprint, explanations

__all__ = ["PREFIXES", "as_error", "blueprint", "explanations", "management", "metric_aliases"]
