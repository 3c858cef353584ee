"""Tiers: upgraded at once, downgraded only when the period that they were earned for is over."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Final

from services.loyalty.domain.programme import Programme, Tier
from services.runtime.clock import end_of_day, local_day

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What counts within a window: paid in minor units, orders not wholly refunded, activity score."""

    amount_minor: int = 0
    orders: int = 0
    activity: int = 0

    def plus(self, other: "Counters") -> "Counters":
        """The sum; `other` may be negative."""
        return Counters(
            amount_minor=self.amount_minor + other.amount_minor,
            orders=self.orders + other.orders,
            activity=self.activity + other.activity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The member's tier; `until` is when it has to be judged again, None for the lowest."""

    tier_id: str
    since: datetime | None = None
    until: datetime | None = None
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of tier with its reason."""

    from_tier_id: str
    to_tier_id: str
    changed_at: datetime
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Brand-local days, both included."""

    first: date
    last: date

    def contains(self, day: date) -> bool:
        """Whether the day counts."""
        return self.first <= day <= self.last


def lowest(programme: Programme) -> Standing:
    """Where everybody starts; a programme without tiers has one of no name."""
    return Standing(tier_id=programme.tiers[0].tier_id if programme.tiers else "")


def window_at(programme: Programme, now: datetime, time_zone: str) -> Window:
    """The days that count now."""
    today = local_day(now, time_zone)
    days = programme.tier_window.rolling_days
    return Window(first=today - timedelta(days=days - 1) if days else date(today.year, 1, 1), last=today)


def judged_windows(programme: Programme, now: datetime, time_zone: str) -> tuple[Window, ...]:
    """The days by which a tier that has run out is judged: each window by itself, and one that earns it is enough.

    Calendar periods: the year that is over, and the one that runs, which the grace lets earn it. They are not added up:
    a year and a quarter of payments would keep a tier that neither period earns.
    """
    window = window_at(programme, now, time_zone)
    if programme.tier_window.rolling_days:
        return (window,)
    last_year = window.last.year - 1
    return Window(first=date(last_year, 1, 1), last=date(last_year, 12, 31)), window


def tier_for(programme: Programme, counters: Counters) -> Tier | None:
    """The highest tier whose criteria the counters meet; None in a programme without tiers."""
    reached = [tier for i, tier in enumerate(programme.tiers) if i == 0 or _is_reached(tier, counters)]
    return reached[-1] if reached else None


def tier_of(programme: Programme, standing: Standing) -> Tier | None:
    """The tier that the member has; the lowest, where a newer version has dropped its name."""
    rank = _rank(programme, standing.tier_id)
    return programme.tiers[rank] if programme.tiers else None


def after_activity(
    programme: Programme, standing: Standing, counters: Counters, *, now: datetime, time_zone: str
) -> tuple[Standing, Change | None]:
    """The standing after the counters moved: an upgrade at once, a longer stay, or no change; never a downgrade."""
    earned = tier_for(programme, counters)
    if earned is None:
        return standing, None
    has, gets = _rank(programme, standing.tier_id), _rank(programme, earned.tier_id)
    if gets < has or gets == has == 0:
        return standing, None
    until = _until(programme, now, time_zone)
    if gets == has:
        return Standing(tier_id=standing.tier_id, since=standing.since, until=until, version=standing.version), None
    change = Change(
        from_tier_id=standing.tier_id, to_tier_id=earned.tier_id, changed_at=now, why=f"reached with {_said(counters)}"
    )
    return Standing(tier_id=earned.tier_id, since=now, until=until, version=standing.version + 1), change


def after_period(
    programme: Programme, standing: Standing, counters: Sequence[Counters], *, now: datetime, time_zone: str
) -> tuple[Standing, Change | None]:
    """The standing of a tier whose time is over, by the best of the counters of `judged_windows`: kept, or lowered."""
    assert standing.until is not None, "the lowest tier never ends"
    assert standing.until <= now, "its time is not over"
    has = _rank(programme, standing.tier_id)
    gets, best = 0, counters[0]
    for each in counters:
        earned = tier_for(programme, each)
        rank = 0 if earned is None else _rank(programme, earned.tier_id)
        if rank > gets:
            gets, best = rank, each
    if gets >= has > 0:
        until = _until(programme, now, time_zone)
        return Standing(tier_id=standing.tier_id, since=standing.since, until=until, version=standing.version), None
    falls_to = max(gets, has - 1) if programme.tier_window.step_down else gets
    tier_id = programme.tiers[falls_to].tier_id if programme.tiers else ""
    until_next = _until(programme, now, time_zone) if falls_to > 0 else None
    change = Change(
        from_tier_id=standing.tier_id, to_tier_id=tier_id, changed_at=now, why=f"not kept with {_said(best)}"
    )
    return Standing(tier_id=tier_id, since=now, until=until_next, version=standing.version + 1), change


def after_merge(
    programme: Programme, own: Standing, other: Standing, counters: Counters, *, now: datetime, time_zone: str
) -> tuple[Standing, Change | None]:
    """The survivor's standing: the higher of both, of equals the longer, and an upgrade at once by what both count.

    Versions go on from the survivor's, whose history it is.
    """
    best = max(own, other, key=lambda each: (_rank(programme, each.tier_id), each.until or _LONG_AGO))
    after = replace(best, version=own.version)
    raised, upgrade = after_activity(programme, after, counters, now=now, time_zone=time_zone)
    if upgrade is not None:
        after = raised
    if _rank(programme, after.tier_id) == _rank(programme, own.tier_id):
        return after, None
    change = Change(
        from_tier_id=own.tier_id,
        to_tier_id=after.tier_id,
        changed_at=now,
        why=f"merged with a member of {other.tier_id}, together {_said(counters)}",
    )
    return replace(after, version=own.version + 1), change


def next_tier(programme: Programme, standing: Standing) -> Tier | None:
    """The tier above, or None at the top."""
    rank = _rank(programme, standing.tier_id)
    return programme.tiers[rank + 1] if rank + 1 < len(programme.tiers) else None


def _is_reached(tier: Tier, counters: Counters) -> bool:
    criteria = [
        counted >= needed
        for counted, needed in (
            (counters.amount_minor, tier.amount_minor),
            (counters.orders, tier.orders),
            (counters.activity, tier.activity),
        )
        if needed
    ]
    return any(criteria) if tier.any_criterion else all(criteria)


def _rank(programme: Programme, tier_id: str) -> int:
    return next((i for i, tier in enumerate(programme.tiers) if tier.tier_id == tier_id), 0)


def _until(programme: Programme, now: datetime, time_zone: str) -> datetime:
    """When a tier that is qualified for now ends: with its period, and the grace."""
    window = programme.tier_window
    today = local_day(now, time_zone)
    last = today + timedelta(days=window.rolling_days) if window.rolling_days else date(today.year, 12, 31)
    return end_of_day(last + timedelta(days=window.grace_days), time_zone)


def _said(counters: Counters) -> str:
    return f"amount {counters.amount_minor}, orders {counters.orders}, activity {counters.activity}"
