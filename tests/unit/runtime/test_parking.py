"""What a failure is called where it is parked, and how long a parked event rests."""

import asyncpg
import pytest

from services.runtime.errors import Refused
from services.runtime.events import MAX_REASON_CHARS, reason_of, stack_of
from services.runtime.unparking import LONGEST_BACKOFF_S, SHORTEST_BACKOFF_S, _backoff_s


def broken(constraint: str) -> Exception:
    error = asyncpg.CheckViolationError("Failing row contains (Li Lei, 13800000000)")
    error.constraint_name = constraint
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(Refused("not like this", reason="NONSENSE"), "NONSENSE", id="a refusal's own"),
        pytest.param(ValueError("13800000000"), "ValueError", id="a bug's kind, without its text"),
        pytest.param(broken("accounts_debt"), "CheckViolationError accounts_debt", id="with the constraint"),
        pytest.param(Refused("", reason="X" * 999), "X" * MAX_REASON_CHARS, id="never long"),
    ],
)
def test_a_reason_is_stable_and_quotes_nothing(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_stack_tells_where_and_quotes_nothing() -> None:
    with pytest.raises(ValueError, match="13800000000") as raised:
        int("13800000000 or so")
    told = stack_of(raised.value)
    assert "test_parking.py" in told
    assert "invalid literal" not in told


def test_a_parked_event_rests_longer_each_time_and_never_longer_than_a_minute() -> None:
    for attempts in range(40):
        longest_s = min(LONGEST_BACKOFF_S, SHORTEST_BACKOFF_S * 2**attempts)
        assert longest_s / 2 <= _backoff_s(attempts) <= longest_s
    assert LONGEST_BACKOFF_S == 60
