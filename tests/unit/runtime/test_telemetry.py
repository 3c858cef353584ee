"""What is taken of a trace that a caller names."""

import pytest

from services.runtime import telemetry

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_callers_trace_is_gone_on_with() -> None:
    with telemetry.entered("call", f"00-{TRACE}-{SPAN}-01") as trace:
        assert trace == (TRACE, f"00-{TRACE}-{SPAN}-01")


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("", id="none"),
        pytest.param(f"00-{TRACE}-{SPAN}", id="too short"),
        pytest.param(f"00-{TRACE}-{SPAN}-{'0' * 5_000}", id="thousands of characters, to be kept with each event"),
        pytest.param(f"00-{TRACE[:-1]}-{SPAN}0-01", id="no trace's length"),
    ],
)
def test_what_is_no_trace_is_not_kept(said: str) -> None:
    with telemetry.entered("call", said) as trace:
        assert trace.traceparent != said
        assert len(trace.traceparent) == telemetry.TRACEPARENT_CHARS
