"""Read the answer of /metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Scrape(dict[str, float]):
    """Maps samples to numbers, under names like ``predictor_requests_total{route="/"}``.

    Labels are sorted by name; empty ones are left out.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()) if v)
                self[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value

    @property
    def names(self) -> set[str]:
        return {name.partition("{")[0] for name in self}

    def sum(self, prefix: str) -> float:
        """Sum the samples whose name and labels begin with ``prefix``."""
        return sum(value for name, value in self.items() if name.startswith(prefix))
