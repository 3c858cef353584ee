"""How much a role takes on: who is shed first, and what moves the limit."""

import pytest

from services.runtime.errors import Exhausted
from services.runtime.limits import CEILING, FLOOR, INCREASE, INITIAL, LAG_TARGET_S, SHARE, AdaptiveLimit
from siyu.common.v1 import rule_pb2

CHEAPEST_FIRST = (
    rule_pb2.SHEDDING_REPORT,
    rule_pb2.SHEDDING_READ,
    rule_pb2.SHEDDING_QUOTE,
    rule_pb2.SHEDDING_WRITE,
    rule_pb2.SHEDDING_NEVER,
)


def filled(in_flight: int) -> AdaptiveLimit:
    """With so many calls in flight, all of one tenant."""
    limit = AdaptiveLimit()
    for _ in range(in_flight):
        limit.enter(rule_pb2.SHEDDING_NEVER, "one")
    return limit


def test_the_cheapest_is_shed_first_and_each_class_before_the_next() -> None:
    room = [next(n for n in range(INITIAL * 10) if n >= INITIAL * SHARE[shedding]) for shedding in CHEAPEST_FIRST]
    assert room == sorted(set(room))
    for shedding, full in zip(CHEAPEST_FIRST, room, strict=True):
        filled(full - 1).enter(shedding, "one")
        with pytest.raises(Exhausted) as refused:
            filled(full).enter(shedding, "one")
        assert refused.value.reason == "OVERLOADED"
        assert refused.value.retry_after_s


def test_every_class_of_the_contract_has_its_share() -> None:
    assert set(SHARE) == set(rule_pb2.Shedding.values()) - {rule_pb2.SHEDDING_UNSPECIFIED}


def test_who_leaves_makes_room() -> None:
    limit = filled(INITIAL - 1)
    limit.enter(rule_pb2.SHEDDING_WRITE, "one")
    with pytest.raises(Exhausted):
        limit.enter(rule_pb2.SHEDDING_WRITE, "one")
    limit.leave("one")
    limit.enter(rule_pb2.SHEDDING_WRITE, "one")
    assert limit.shed == {rule_pb2.SHEDDING_WRITE: 1}


def test_a_tenant_that_takes_all_the_room_keeps_nobody_out() -> None:
    limit = filled(INITIAL)
    for _ in range(INITIAL // 2):
        limit.enter(rule_pb2.SHEDDING_WRITE, "other")
    for tenant_id in ("other", "one"):
        with pytest.raises(Exhausted):
            limit.enter(rule_pb2.SHEDDING_WRITE, tenant_id)
    for _ in range(INITIAL):
        limit.leave("one")
    limit.enter(rule_pb2.SHEDDING_WRITE, "one")


def test_many_tenants_fill_no_more_than_twice_the_room() -> None:
    limit = filled(INITIAL)
    for number in range(INITIAL):
        limit.enter(rule_pb2.SHEDDING_WRITE, f"tenant {number}")
    with pytest.raises(Exhausted):
        limit.enter(rule_pb2.SHEDDING_WRITE, "one more")


@pytest.mark.parametrize(
    ("in_flight", "lag_s", "moved"),
    [
        pytest.param(INITIAL, LAG_TARGET_S * 2, "down", id="a loop that lags under its calls takes fewer"),
        pytest.param(INITIAL, LAG_TARGET_S / 2, "up", id="a loop that keeps up takes more"),
        pytest.param(INITIAL // 2, LAG_TARGET_S / 2, "same", id="what is half empty needs no more room"),
        pytest.param(3, LAG_TARGET_S * 2, "same", id="starved by others: shedding three calls would not help"),
    ],
)
def test_the_limit_follows_the_loops_lag(in_flight: int, lag_s: float, moved: str) -> None:
    limit = filled(in_flight)
    limit.observe(lag_s)
    expected = {"down": INITIAL * 0.8, "up": INITIAL + INCREASE, "same": INITIAL}
    assert limit.limit == pytest.approx(expected[moved])


def test_the_limit_stays_between_floor_and_ceiling() -> None:
    limit = filled(CEILING * 2)
    for _ in range(100):
        limit.observe(LAG_TARGET_S * 2)
    assert limit.limit == FLOOR
    for _ in range(1000):
        limit.observe(0.0)
    assert limit.limit == CEILING
