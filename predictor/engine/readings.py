"""A snapshot of the metrics, for code that reports them in another server's terms."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Metric


class Readings:
    """The values of all metrics at one moment, of all processes."""

    def __init__(self, families: Iterable[Metric]) -> None:
        """Take the metrics as a registry's ``collect()`` returns them."""
        self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels; 0 without any."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values(self, name: str) -> list[float]:
        """Return a metric's values, one for each series."""
        return [sample.value for sample in self._samples if sample.name == name]

    def labels(self, name: str, label: str) -> list[str]:
        """Return the values of one label of a metric, one for each series."""
        return [sample.labels[label] for sample in self._samples if sample.name == name]

    def by_process(self, name: str) -> dict[int, float]:
        """Return a metric's value in each process, by process id.

        A single process has no ``pid`` label on its own metrics, and is left out.
        """
        found = (sample for sample in self._samples if sample.name == name)
        return {int(sample.labels["pid"]): sample.value for sample in found if sample.labels}
