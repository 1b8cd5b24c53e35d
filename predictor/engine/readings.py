"""The values of all metrics of all processes at one moment."""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.registry import Collector


class Readings(Collector):
    """The values of all metrics of all processes at one moment."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)
        self._samples = [sample for family in self._families for sample in family.samples]
        self._texts: dict[str, bytes] = {}

    def collect(self) -> Iterable[Metric]:
        """Return the metrics, for an encoder."""
        return self._families

    def text(self, encode: Callable[[Collector], bytes], content_type: str) -> bytes:
        """Return the metrics as ``encode`` writes them, always for the same ``content_type``."""
        if content_type not in self._texts:
            self._texts[content_type] = encode(self)
        return self._texts[content_type]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's series that have these labels; 0 without such series."""
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

        Series without a ``pid`` label are skipped: a server with one process has such series.
        """
        found = (sample for sample in self._samples if sample.name == name)
        return {int(sample.labels["pid"]): sample.value for sample in found if sample.labels}
