"""A snapshot of the metrics, for protocols that report them in their own formats."""

from collections.abc import Iterable

from prometheus_client import Metric


class Readings:
    """The values of all metrics of all processes at one moment."""

    def __init__(self, families: Iterable[Metric]) -> None:
        """Store the result of a registry's ``collect()``."""
        self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels; 0 if there are none."""
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

        Series without a ``pid`` label are left out: those of a process that serves alone.
        """
        found = (sample for sample in self._samples if sample.name == name)
        return {int(sample.labels["pid"]): sample.value for sample in found if sample.labels}
