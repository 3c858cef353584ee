"""Tiers rise at once, and fall only when the period that they were earned for is over, and its grace."""

from datetime import UTC, date, datetime, timedelta

import pytest

from services.loyalty.domain.programme import ExpiryClass, Programme, Tier, TierWindow
from services.loyalty.domain.tiers import (
    Counters,
    Standing,
    Window,
    after_activity,
    after_merge,
    after_period,
    judged_windows,
    lowest,
    next_tier,
    tier_for,
    window_at,
)

SHANGHAI = "Asia/Shanghai"
NOON = datetime(2026, 5, 1, 4, tzinfo=UTC)
"""Noon in Shanghai."""
TIERS = (
    Tier(tier_id="base"),
    Tier(tier_id="silver", amount_minor=500),
    Tier(tier_id="gold", amount_minor=2000, orders=3),
    Tier(tier_id="jade", amount_minor=9000, activity=50, any_criterion=True),
)


def programme(*, rolling_days: int = 90, grace_days: int = 0, step_down: bool = False) -> Programme:
    return Programme(
        point_currency="points",
        display_name="Points",
        expiry_classes=(ExpiryClass(class_id="year", days=365),),
        tiers=TIERS,
        tier_window=TierWindow(rolling_days=rolling_days, grace_days=grace_days, step_down=step_down),
    )


def counted(amount_minor: int = 0, orders: int = 0, activity: int = 0) -> Counters:
    return Counters(amount_minor=amount_minor, orders=orders, activity=activity)


@pytest.mark.parametrize(
    ("counters", "tier_id"),
    [
        pytest.param(counted(), "base", id="everybody's"),
        pytest.param(counted(499, 9), "base", id="one cent short"),
        pytest.param(counted(500), "silver", id="to the cent"),
        pytest.param(counted(2000, 2), "silver", id="all criteria"),
        pytest.param(counted(2000, 3), "gold", id="all are met"),
        pytest.param(counted(0, 0, 50), "jade", id="any criterion, past those in between"),
        pytest.param(counted(9000, 1), "jade", id="any other"),
    ],
)
def test_criteria(counters: Counters, tier_id: str) -> None:
    found = tier_for(programme(), counters)
    assert found is not None
    assert found.tier_id == tier_id


@pytest.mark.parametrize(
    ("has", "counters", "gets"),
    [
        pytest.param("base", counted(500, 1), "silver", id="at once"),
        pytest.param("base", counted(2500, 3), "gold", id="two at a time"),
        pytest.param("gold", counted(500, 1), "gold", id="never down by what is bought or refunded"),
        pytest.param("silver", counted(700, 1), "silver", id="the same"),
    ],
)
def test_an_order_raises_at_once_and_never_lowers(has: str, counters: Counters, gets: str) -> None:
    standing = Standing(tier_id=has, since=NOON - timedelta(days=9), until=NOON + timedelta(days=9), version=4)
    after, change = after_activity(programme(), standing, counters, now=NOON, time_zone=SHANGHAI)
    assert after.tier_id == gets
    if gets == has:
        assert change is None
        assert (after.since, after.version) == (standing.since, 4)
    else:
        assert change is not None
        assert (change.from_tier_id, change.to_tier_id, change.changed_at) == (has, gets, NOON)
        assert str(counters.amount_minor) in change.why, "every change tells its figures"
        assert (after.since, after.version) == (NOON, 5)


def test_a_tier_ends_when_qualification_and_window_and_grace_have_passed() -> None:
    standing = lowest(programme())
    after, _ = after_activity(programme(), standing, counted(500, 1), now=NOON, time_zone=SHANGHAI)
    # 24:00 there, 90 days after the first of May
    assert after.until == datetime(2026, 7, 30, 16, tzinfo=UTC)
    late = programme(grace_days=10)
    after, _ = after_activity(late, standing, counted(500, 1), now=NOON, time_zone=SHANGHAI)
    assert after.until == datetime(2026, 8, 9, 16, tzinfo=UTC)
    year = programme(rolling_days=0)
    after, _ = after_activity(year, standing, counted(500, 1), now=NOON, time_zone=SHANGHAI)
    assert after.until == datetime(2026, 12, 31, 16, tzinfo=UTC)


def test_who_qualifies_again_stays_longer_and_who_does_not_is_not_prolonged() -> None:
    standing = Standing(tier_id="gold", since=NOON, until=NOON + timedelta(days=9), version=4)
    again, _ = after_activity(programme(), standing, counted(2000, 3), now=NOON, time_zone=SHANGHAI)
    assert again.until == datetime(2026, 7, 30, 16, tzinfo=UTC)
    below, _ = after_activity(programme(), standing, counted(1999, 3), now=NOON, time_zone=SHANGHAI)
    assert below == standing


@pytest.mark.parametrize(
    ("has", "step_down", "counters", "gets"),
    [
        pytest.param("jade", False, counted(9000), "jade", id="kept"),
        pytest.param("jade", False, counted(500), "silver", id="straight to the tier earned"),
        pytest.param("jade", True, counted(500), "gold", id="one tier at a time"),
        pytest.param("silver", True, counted(), "base", id="to the lowest"),
        pytest.param("silver", False, counted(2500, 3), "silver", id="an end never raises"),
    ],
)
def test_the_end_of_a_period(has: str, step_down: bool, counters: Counters, gets: str) -> None:
    standing = Standing(tier_id=has, since=NOON - timedelta(days=91), until=NOON, version=4)
    after, change = after_period(programme(step_down=step_down), standing, [counters], now=NOON, time_zone=SHANGHAI)
    assert after.tier_id == gets
    assert (change is None) == (gets == has)
    # the lowest is never judged again
    assert (after.until is None) == (gets == "base")


@pytest.mark.parametrize(
    ("has", "ended", "running", "gets"),
    [
        pytest.param("silver", counted(500), counted(), "silver", id="the ended period earned it"),
        pytest.param("silver", counted(), counted(500), "silver", id="the running one does, within the grace"),
        pytest.param("silver", counted(499), counted(499), "base", id="both together do not"),
        pytest.param("silver", counted(), counted(), "base", id="neither"),
        pytest.param("gold", counted(2000, 2), counted(2000, 1), "silver", id="criteria of two periods are not added"),
        pytest.param("jade", counted(500), counted(2000, 3), "gold", id="the better of the two tiers"),
        pytest.param("silver", counted(), counted(2000, 3), "silver", id="an end never raises"),
    ],
)
def test_the_grace_after_a_calendar_period(has: str, ended: Counters, running: Counters, gets: str) -> None:
    """A tier stays if the ended period earned it, or the new one so far does; else it ends after the grace."""
    standing = Standing(tier_id=has, since=NOON - timedelta(days=400), until=NOON, version=4)
    year = programme(rolling_days=0, grace_days=90)
    after, change = after_period(year, standing, [ended, running], now=NOON, time_zone=SHANGHAI)
    assert (after.tier_id, change is None) == (gets, gets == has)


SOON, LATER = NOON + timedelta(days=9), NOON + timedelta(days=60)


@pytest.mark.parametrize(
    ("own", "other", "counters", "gets"),
    [
        pytest.param(("gold", SOON), ("silver", LATER), counted(), ("gold", SOON), id="the survivor's, if higher"),
        pytest.param(("silver", SOON), ("gold", LATER), counted(), ("gold", LATER), id="the other's, if higher"),
        pytest.param(("silver", SOON), ("silver", LATER), counted(700), ("silver", LATER), id="of equals the longer"),
        pytest.param(
            ("base", None),
            ("base", None),
            counted(500),
            ("silver", datetime(2026, 7, 30, 16, tzinfo=UTC)),
            id="what both reach together, at once",
        ),
        pytest.param(("base", None), ("base", None), counted(499), ("base", None), id="or not"),
    ],
)
def test_a_merge_keeps_the_better_tier_and_tells_it(
    own: tuple[str, datetime | None],
    other: tuple[str, datetime | None],
    counters: Counters,
    gets: tuple[str, datetime | None],
) -> None:
    survivor = Standing(tier_id=own[0], since=NOON, until=own[1], version=4)
    merged = Standing(tier_id=other[0], since=NOON, until=other[1], version=9)
    after, change = after_merge(programme(), survivor, merged, counters, now=NOON, time_zone=SHANGHAI)
    assert (after.tier_id, after.until) == gets
    if gets[0] == own[0]:
        assert (after.version, change) == (4, None)
    else:
        assert change is not None
        assert (after.version, change.from_tier_id, change.to_tier_id) == (5, own[0], gets[0])


def test_windows_are_brand_local_days() -> None:
    midnight_there = datetime(2026, 5, 1, 16, tzinfo=UTC)
    rolling = window_at(programme(rolling_days=2), midnight_there, SHANGHAI)
    assert rolling == Window(first=date(2026, 5, 1), last=date(2026, 5, 2))
    assert [rolling.contains(date(2026, 4, 30)), rolling.contains(date(2026, 5, 1))] == [False, True]
    year = programme(rolling_days=0)
    new_year_there = datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert window_at(year, new_year_there, SHANGHAI) == Window(first=date(2027, 1, 1), last=date(2027, 1, 1))
    # what is judged on that day is the year that is over, or the one that runs
    assert judged_windows(year, new_year_there, SHANGHAI) == (
        Window(first=date(2026, 1, 1), last=date(2026, 12, 31)),
        Window(first=date(2027, 1, 1), last=date(2027, 1, 1)),
    )
    assert judged_windows(programme(rolling_days=2), midnight_there, SHANGHAI) == (rolling,)


def test_what_a_newer_version_dropped_is_the_lowest() -> None:
    standing = Standing(tier_id="platinum", since=NOON, until=NOON, version=1)
    above = next_tier(programme(), standing)
    assert above is not None
    assert above.tier_id == "silver"
