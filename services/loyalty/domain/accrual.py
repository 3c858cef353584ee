"""What an order earns: points per order and rule, then allocated to its lines and, when refunded, to units."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Final

from services.loyalty.domain.programme import EarnRule, Programme, Rounding
from services.runtime.clock import local_day
from services.runtime.money import allocate, prefix_share

MAX_EARNED_POINTS: Final = 10**12
"""The most that one order earns by one rule. A sale is a fact and is never refused: what is beyond is not earned."""
MAX_COLLECTED_POINTS: Final = 10**13
"""The most that orders give one member in one currency over the years, so that no total passes 64 bits."""
USUAL_POINTS: Final = 10**9
"""By so many an order and rule, nobody comes to MAX_COLLECTED_POINTS: what was collected need not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of an order. `base_minor` is what the customer paid for it after all discounts, without points."""

    line_id: str
    category: str
    quantity: int
    base_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What one rule gives for one order. `line_points` is in line order and sums to `points`, at least 1."""

    rule_id: str
    points: int
    expiry_class: str
    funder: str
    base_minor: int
    line_points: tuple[int, ...]
    why: str


def earn(
    programme: Programme, lines: Sequence[Line], *, multiplier: Decimal, occurred_at: datetime, time_zone: str
) -> tuple[Earned, ...]:
    """What the order earns by each rule that applies; rules that give nothing are left out.

    `multiplier` is that of the member's tier before this order.
    """
    found = (
        _by_rule(programme, rule, lines, multiplier=multiplier)
        for rule in programme.earn_rules
        if _applies(rule, occurred_at, time_zone)
    )
    return tuple(earned for earned in found if earned is not None)


def points_for(base_minor: int, rule: EarnRule, *, multiplier: Decimal, rounding: Rounding) -> int:
    """Points for a base, rounded once, after the multiplier. Exact: no float, and no digit lost however large."""
    rate, by = rule.points.as_integer_ratio(), multiplier.as_integer_ratio()
    numerator = base_minor * rate[0] * by[0]
    denominator = rule.per_minor * rate[1] * by[1]
    if rounding is Rounding.HALF_UP:
        return (2 * numerator + denominator) // (2 * denominator)
    return numerator // denominator


def within(earned: Sequence[Earned], room_points: int) -> tuple[Earned, ...]:
    """What of it fits into the room, rule by rule; `why` tells what was cut. Rules that give nothing are left out."""
    kept: list[Earned] = []
    for each in earned:
        points = min(each.points, room_points)
        room_points -= points
        if points == each.points:
            kept.append(each)
        elif points:
            why = f"{each.why}, {points} up to what a member can collect"
            kept.append(replace(each, points=points, line_points=allocate(points, each.line_points), why=why))
    return tuple(kept)


def share_of_units(total: int, *, quantity: int, before: int, units: int) -> int:
    """What `units` more units hold of a line's `total`, after `before` of its `quantity` were returned."""
    return prefix_share(total, quantity, before + units) - prefix_share(total, quantity, before)


def _by_rule(programme: Programme, rule: EarnRule, lines: Sequence[Line], *, multiplier: Decimal) -> Earned | None:
    bases = [line.base_minor if _is_eligible(rule, line) else 0 for line in lines]
    base_minor = sum(bases)
    by = multiplier if rule.tier_multiplied else Decimal(1)
    full = points_for(base_minor, rule, multiplier=by, rounding=programme.rounding)
    points = min(full, MAX_EARNED_POINTS)
    if points <= 0:
        return None
    times = f" x {by}" if by != 1 else ""
    told = f"{programme.rounding} = {full}" + (f", at most {points}" if points < full else "")
    return Earned(
        rule_id=rule.rule_id,
        points=points,
        expiry_class=rule.expiry_class,
        funder=rule.funder,
        base_minor=base_minor,
        line_points=allocate(points, bases),
        why=f"{rule.rule_id}: {base_minor} / {rule.per_minor} x {rule.points}{times}, {told}",
    )


def _is_eligible(rule: EarnRule, line: Line) -> bool:
    return not rule.categories or line.category in rule.categories


def _applies(rule: EarnRule, occurred_at: datetime, time_zone: str) -> bool:
    if rule.valid_from is not None and occurred_at < rule.valid_from:
        return False
    if rule.valid_until is not None and occurred_at >= rule.valid_until:
        return False
    return not rule.weekdays or local_day(occurred_at, time_zone).isoweekday() in rule.weekdays
