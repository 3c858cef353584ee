"""A hold is resolved exactly once: the full product of states and events."""

from datetime import UTC, datetime, timedelta

import pytest

from services.runtime.errors import AlreadyExists, DomainError, Missing
from services.runtime.holds import (
    HoldCaptured,
    HoldEvent,
    HoldExpired,
    HoldState,
    HoldTooOld,
    HoldVoided,
    check_age,
    resolve,
    state_at,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)

S, E = HoldState, HoldEvent
EXPECTED: dict[tuple[HoldState, HoldEvent], HoldState | type[DomainError]] = {
    (S.ABSENT, E.HOLD): S.HELD,
    (S.ABSENT, E.CAPTURE): Missing,
    (S.ABSENT, E.VOID): S.TOMBSTONE,
    (S.ABSENT, E.EXPIRE): Missing,
    (S.HELD, E.HOLD): AlreadyExists,
    (S.HELD, E.CAPTURE): S.CAPTURED,
    (S.HELD, E.VOID): S.VOIDED,
    (S.HELD, E.EXPIRE): S.EXPIRED,
    **dict.fromkeys([(S.CAPTURED, event) for event in E], HoldCaptured),
    **dict.fromkeys([(S.VOIDED, event) for event in E], HoldVoided),
    **dict.fromkeys([(S.EXPIRED, event) for event in E], HoldExpired),
    **dict.fromkeys([(S.TOMBSTONE, event) for event in E], HoldVoided),
}


@pytest.mark.parametrize("event", list(E), ids=lambda event: event.value)
@pytest.mark.parametrize("state", list(S), ids=lambda state: state.value)
def test_every_state_answers_every_event(state: HoldState, event: HoldEvent) -> None:
    expected = EXPECTED[state, event]
    if isinstance(expected, HoldState):
        assert resolve(state, event, hold_id="h") is expected
    else:
        with pytest.raises(expected):
            resolve(state, event, hold_id="h")


def test_the_refusals_are_named() -> None:
    reasons = set()
    for state in S:
        for event in E:
            try:
                resolve(state, event, hold_id="h")
            except DomainError as refusal:
                reasons.add((refusal.reason, refusal.storable))
    named = ("HOLD_CAPTURED", "HOLD_VOIDED", "HOLD_EXPIRED", "HOLD_EXISTS", "HOLD_NOT_FOUND")
    assert reasons == {(reason, True) for reason in named}


@pytest.mark.parametrize(
    ("state", "left", "counts_as"),
    [
        pytest.param(S.HELD, timedelta(seconds=1), S.HELD, id="in time"),
        pytest.param(S.HELD, timedelta(0), S.EXPIRED, id="to the moment"),
        pytest.param(S.HELD, timedelta(days=-1), S.EXPIRED, id="past its time, not yet swept"),
        pytest.param(S.CAPTURED, timedelta(days=-1), S.CAPTURED, id="captured in time"),
    ],
)
def test_a_hold_past_its_time_is_expired_swept_or_not(state: HoldState, left: timedelta, counts_as: HoldState) -> None:
    assert state_at(state, expires_at=NOW + left, now=NOW) is counts_as


def test_a_hold_issued_before_the_tombstones_is_refused_by_its_age() -> None:
    check_age(NOW - timedelta(days=6, hours=23), now=NOW, hold_id="h")
    with pytest.raises(HoldTooOld):
        check_age(NOW - timedelta(days=7), now=NOW, hold_id="h")
