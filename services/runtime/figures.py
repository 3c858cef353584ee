"""Counts and durations for Prometheus, kept as plain numbers.

The client library takes a lock and checks its labels at each observation, which costs a hot call 2 µs. Here one thread,
the event loop's, writes numbers, and the exporter's thread reads them whenever it is scraped.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector


class Count:
    """One counter with its labels."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        """Starts at 0."""
        self.total = 0

    def inc(self, by: int = 1) -> None:
        """Counts on."""
        self.total += by


class Counts(Collector):
    """A counter by labels. `name` is without the `_total` that Prometheus sees."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        """Registers it with the process's metrics."""
        self._name = name
        self._documentation = documentation
        self._label_names = tuple(labels)
        self._counts: dict[tuple[str, ...], Count] = {}
        REGISTRY.register(self)

    def labels(self, *values: str) -> Count:
        """The counter of these labels; whoever counts often keeps it."""
        return self._counts.setdefault(values, Count())

    def describe(self) -> Iterator[Metric]:
        """The family without samples."""
        yield CounterMetricFamily(self._name, self._documentation, labels=self._label_names)

    def collect(self) -> Iterator[Metric]:
        """The family as it stands."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._label_names)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count.total)
        yield family


class Duration:
    """One histogram of seconds with its labels."""

    __slots__ = ("_bounds", "counts", "total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the buckets' upper ends, rising; what is above them all has a bucket of its own."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total_s += seconds


class Durations(Collector):
    """Histograms of seconds by labels."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], *, bounds: Sequence[float]) -> None:
        """Registers them with the process's metrics."""
        self._name = name
        self._documentation = documentation
        self._label_names = tuple(labels)
        self._bounds = tuple(bounds)
        self._durations: dict[tuple[str, ...], Duration] = {}
        REGISTRY.register(self)

    def labels(self, *values: str) -> Duration:
        """The histogram of these labels; whoever observes often keeps it."""
        return self._durations.setdefault(values, Duration(self._bounds))

    def describe(self) -> Iterator[Metric]:
        """The family without samples."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)

    def collect(self) -> Iterator[Metric]:
        """The family as it stands; Prometheus's buckets are running totals."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        ends = [*(str(bound) for bound in self._bounds), "+Inf"]
        for values, duration in list(self._durations.items()):
            buckets: list[tuple[str, float]] = []
            running = 0
            for end, count in zip(ends, list(duration.counts), strict=True):
                running += count
                buckets.append((end, running))
            family.add_metric(values, buckets, duration.total_s)
        yield family
