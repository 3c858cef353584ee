"""Our counts and histograms as Prometheus reads them."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import REGISTRY

from services.runtime.figures import Counts, Durations


def _scraped(collector: Counts | Durations) -> list[str]:
    REGISTRY.unregister(collector)
    registry = CollectorRegistry()
    registry.register(collector)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_a_count_is_told_by_its_labels() -> None:
    counts = Counts("figures_test", "Calls", ["rpc", "code"])
    counts.labels("Accrue", "OK").inc()
    counts.labels("Accrue", "OK").inc()
    counts.labels("Accrue", "MISSING").inc(3)
    assert _scraped(counts) == [
        'figures_test_total{code="OK",rpc="Accrue"} 2.0',
        'figures_test_total{code="MISSING",rpc="Accrue"} 3.0',
    ]


def test_a_histogram_has_running_totals() -> None:
    durations = Durations("figures_test_seconds", "Time", ["rpc"], bounds=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        durations.labels("Accrue").observe(seconds)
    assert _scraped(durations) == [
        'figures_test_seconds_bucket{le="0.1",rpc="Accrue"} 2.0',
        'figures_test_seconds_bucket{le="1.0",rpc="Accrue"} 3.0',
        'figures_test_seconds_bucket{le="+Inf",rpc="Accrue"} 4.0',
        'figures_test_seconds_count{rpc="Accrue"} 4.0',
        'figures_test_seconds_sum{rpc="Accrue"} 7.65',
    ]
