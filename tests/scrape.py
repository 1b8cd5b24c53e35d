"""Read the answer of /metrics."""

from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from predictor.engine.metrics import Metrics


def series(name: str, /, **labels: object) -> str:
    """The name of a sample, as in the text format; labels are sorted and empty ones left out."""
    given = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()) if value)
    return f"{name}{{{given}}}" if given else name


class Scrape(dict[str, float]):
    """Samples by :func:`series`: ``predictor_requests_total{route="/"}`` → number."""

    def __init__(self, text: str) -> None:
        super().__init__()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self[series(sample.name, **sample.labels)] = sample.value

    @classmethod
    def of(cls, source: Metrics | Collector) -> Scrape:
        """Scrape metrics, or a collector."""
        collector = source.readings() if isinstance(source, Metrics) else source
        return cls(generate_latest(collector).decode())

    @property
    def names(self) -> set[str]:
        return {name.partition("{")[0] for name in self}

    def sum(self, prefix: str) -> float:
        """Sum the samples whose name and labels begin with ``prefix``."""
        return sum(value for name, value in self.items() if name.startswith(prefix))
