"""What an order earns, when it matures and expires, and the exact inverse of it."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.loyalty.domain.accrual import MAX_EARNED_POINTS, Earned, Line, earn, points_for, within
from services.loyalty.domain.orders import AccruedOrder, RefundedUnits, invert
from services.loyalty.domain.programme import (
    NEVER,
    EarnRule,
    ExpiryClass,
    Programme,
    Rounding,
    Tier,
    Version,
    check,
    expires_at,
    judging,
    matures_at,
)
from services.runtime.errors import Invalid

SHANGHAI = "Asia/Shanghai"
NOON = datetime(2026, 1, 1, 4, tzinfo=UTC)
"""Noon of a Thursday in Shanghai."""


def rule(points: str = "1", *, per_minor: int = 100, **told: Any) -> EarnRule:
    return EarnRule(
        rule_id=told.pop("rule_id", "r"), points=Decimal(points), per_minor=per_minor, expiry_class="year", **told
    )


def programme(*rules: EarnRule, rounding: Rounding = Rounding.DOWN) -> Programme:
    return Programme(
        point_currency="points",
        display_name="Points",
        expiry_classes=(ExpiryClass(class_id="year", days=365),),
        rounding=rounding,
        earn_rules=rules,
    )


def earned(made: Programme, *bases: int, multiplier: str = "1", at: datetime = NOON) -> tuple[Earned, ...]:
    lines = [Line(line_id=str(i), category="tea", quantity=1, base_minor=base) for i, base in enumerate(bases)]
    return earn(made, lines, multiplier=Decimal(multiplier), occurred_at=at, time_zone=SHANGHAI)


@pytest.mark.parametrize(
    ("base_minor", "points", "per_minor", "multiplier", "down_and_half_up"),
    [
        pytest.param(199, "1", 100, "1", (1, 2), id="a fraction is lost, or not"),
        pytest.param(150, "1", 100, "1", (1, 2), id="a half"),
        pytest.param(149, "1", 100, "1", (1, 1), id="less than a half"),
        pytest.param(199, "1", 100, "1.5", (2, 3), id="once, after the multiplier"),
        pytest.param(100, "0.29", 1, "1", (29, 29), id="a float would lose one"),
        pytest.param(30, "0.1", 1, "1", (3, 3), id="a float would find a crumb"),
        pytest.param(3, "0.1", 1, "1.1", (0, 0), id="nothing"),
        pytest.param(9_007_199_254_740_993, "1", 1, "1", (9_007_199_254_740_993, 9_007_199_254_740_993), id="2^53 + 1"),
    ],
)
def test_points_round_once(
    base_minor: int, points: str, per_minor: int, multiplier: str, down_and_half_up: tuple[int, int]
) -> None:
    by = rule(points, per_minor=per_minor)
    found = [points_for(base_minor, by, multiplier=Decimal(multiplier), rounding=each) for each in Rounding]
    assert tuple(found) == down_and_half_up


def test_points_round_per_order_and_rule_and_not_per_line() -> None:
    made = programme(rule(rule_id="base"), rule("0.5", rule_id="half"))
    assert [(each.rule_id, each.points) for each in earned(made, 50, 50, 99)] == [("base", 1)]
    assert [(each.rule_id, each.points) for each in earned(made, 199, 201)] == [("base", 4), ("half", 2)]


def test_points_are_allocated_to_lines_as_a_discount_is() -> None:
    (found,) = earned(programme(rule("299", per_minor=8000)), 4300, 1400, 2300)
    assert found.line_points == (161, 52, 86)
    (found,) = earned(programme(rule("299", per_minor=3000)), 1000, 1000, 1000)
    assert found.line_points == (100, 100, 99)


def test_a_line_that_earns_nothing_has_no_share() -> None:
    made = programme(rule(categories=frozenset({"tea"})))
    lines = [
        Line(line_id="0", category="cup", quantity=1, base_minor=5000),
        Line(line_id="1", category="tea", quantity=1, base_minor=700),
        Line(line_id="2", category="tea", quantity=1, base_minor=0),
    ]
    (found,) = earn(made, lines, multiplier=Decimal(1), occurred_at=NOON, time_zone=SHANGHAI)
    assert (found.points, found.line_points, found.base_minor) == (7, (0, 7, 0), 700)


@pytest.mark.parametrize(
    ("told", "at", "applies"),
    [
        pytest.param({"weekdays": frozenset({4})}, NOON, True, id="a Thursday there"),
        pytest.param({"weekdays": frozenset({5})}, NOON.replace(hour=16), True, id="midnight there is Friday"),
        pytest.param({"weekdays": frozenset({4})}, NOON.replace(hour=16), False, id="and Thursday no more"),
        pytest.param({"valid_from": NOON}, NOON, True, id="from its first moment"),
        pytest.param({"valid_from": NOON}, NOON - timedelta(microseconds=1), False, id="not before"),
        pytest.param({"valid_until": NOON}, NOON, False, id="its end is exclusive"),
    ],
)
def test_a_rule_applies_in_the_brands_days(told: dict[str, Any], at: datetime, applies: bool) -> None:
    assert bool(earned(programme(rule(**told)), 1000, at=at)) == applies


@pytest.mark.parametrize(
    ("expiry", "earned_at", "ends"),
    [
        pytest.param(
            ExpiryClass(class_id="c", days=364),
            datetime(2025, 12, 31, 16, tzinfo=UTC),
            datetime(2026, 12, 31, 16, tzinfo=UTC),
            id="on 2026-12-31 until 24:00 there",
        ),
        pytest.param(
            ExpiryClass(class_id="c", days=1),
            datetime(2026, 1, 1, 15, 59, 59, 999_999, tzinfo=UTC),
            datetime(2026, 1, 2, 16, tzinfo=UTC),
            id="the last moment of a day is that day",
        ),
        pytest.param(
            ExpiryClass(class_id="c", end_of_year_after=1),
            datetime(2025, 12, 31, 16, tzinfo=UTC),
            datetime(2027, 12, 31, 16, tzinfo=UTC),
            id="the end of the next year, by the year there",
        ),
        pytest.param(ExpiryClass(class_id="c"), NOON, NEVER, id="never"),
    ],
)
def test_points_expire_at_the_end_of_a_day(expiry: ExpiryClass, earned_at: datetime, ends: datetime) -> None:
    assert expires_at(expiry, earned_at, SHANGHAI) == ends


def test_points_mature_at_the_end_of_the_last_day_of_return() -> None:
    assert matures_at(0, NOON, SHANGHAI) is None
    assert matures_at(3, NOON, SHANGHAI) == datetime(2026, 1, 4, 16, tzinfo=UTC)


def test_a_changed_rule_is_another_pool() -> None:
    rules = {ExpiryClass(class_id="c", days=n).rule for n in (0, 1, 2)} | {
        ExpiryClass(class_id="c", end_of_year_after=n).rule for n in (0, 1, 2)
    }
    assert len(rules) == 5, "never is one, however it is said"


def accrued(lines: list[tuple[int, int, int]], burnt_points: int) -> AccruedOrder:
    """An order of lines of (quantity, base, points)."""
    return AccruedOrder(
        order_id="o",
        member_id="m",
        point_currency="points",
        store_id="s",
        occurred_at=NOON,
        sold_on=date(2026, 1, 1),
        programme_version=1,
        line_ids=tuple(str(i) for i in range(len(lines))),
        quantities=tuple(quantity for quantity, _, _ in lines),
        refunded_quantities=(0,) * len(lines),
        line_bases=tuple(base for _, base, _ in lines),
        earning_ids=("e",),
        line_points=(tuple(points for _, _, points in lines),),
        burnt_points=burnt_points,
        hold_id="h",
    )


def test_units_give_back_what_they_hold_first_sold_first() -> None:
    order = accrued([(3, 1000, 10)], 0)
    seen = []
    for _ in range(3):
        inverse = invert(order, [RefundedUnits(line_id="0", quantity=1, returned_points=0)], whole_order=False)
        seen.append((inverse.taken_points, inverse.base_minor, inverse.leaves_count))
        order = inverse.order
    assert seen == [(4, 334, False), (3, 333, False), (3, 333, True)]
    again = invert(order, [RefundedUnits(line_id="0", quantity=1, returned_points=5)], whole_order=True)
    assert (again.taken, again.base_minor, again.given_points, again.leaves_count) == ((), 0, 0, False)


@given(
    lines=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 10_000), st.integers(0, 500)), min_size=1, max_size=5),
    burnt=st.integers(0, 900),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=100)
def test_refunding_every_unit_in_any_order_is_the_inverse(
    lines: list[tuple[int, int, int]], burnt: int, chance: Any
) -> None:
    order = accrued(lines, burnt)
    units = [str(i) for i, (quantity, _, _) in enumerate(lines) for _ in range(quantity)]
    chance.shuffle(units)
    taken = base_minor = given_points = left = 0
    for at, line_id in enumerate(units):
        returned = burnt if at == 0 else 0
        inverse = invert(
            order, [RefundedUnits(line_id=line_id, quantity=1, returned_points=returned)], whole_order=False
        )
        order = inverse.order
        taken += inverse.taken_points
        base_minor += inverse.base_minor
        given_points += inverse.given_points
        left += inverse.leaves_count
    assert (taken, base_minor) == (sum(points for _, _, points in lines), sum(base for _, base, _ in lines))
    assert (given_points, left, order.wholly_refunded) == (burnt, 1, True)


@pytest.mark.parametrize(
    ("points", "per_minor", "multiplier", "refused"),
    [
        pytest.param("1000", 1, "1", (), id="a thousand a minor unit"),
        pytest.param("1000.000001", 1, "1", ("programme.earn_rules[0].points",), id="a little more"),
        pytest.param("999999999", 1_000_000, "1", (), id="per ten thousand"),
        pytest.param("1", 1, "100", (), id="a hundredfold"),
        pytest.param("1", 1, "100.0001", ("programme.tiers[0].multiplier",), id="more than a hundredfold"),
        pytest.param(
            "1000000",
            1,
            "9999",
            ("programme.earn_rules[0].points", "programme.tiers[0].multiplier"),
            id="both beyond",
        ),
    ],
)
def test_a_programme_gives_no_absurd_points(
    points: str, per_minor: int, multiplier: str, refused: tuple[str, ...]
) -> None:
    made = replace(
        programme(rule(points, per_minor=per_minor)), tiers=(Tier(tier_id="t", multiplier=Decimal(multiplier)),)
    )
    if not refused:
        check(made)
        return
    with pytest.raises(Invalid) as invalid:
        check(made)
    assert tuple(field for field, _ in invalid.value.violations) == refused


def test_what_an_order_earns_by_a_rule_is_capped_and_told() -> None:
    """A sale is a fact: a rule of old that gives more than can be counted gives the most, over its lines."""
    (found,) = earned(programme(rule("1000000", per_minor=1)), 10**12, 10**12)
    assert (found.points, found.line_points) == (MAX_EARNED_POINTS, (5 * 10**11, 5 * 10**11))
    assert found.why.endswith(f" = {2 * 10**18}, at most {MAX_EARNED_POINTS}")


def test_what_does_not_fit_is_cut_rule_by_rule() -> None:
    rules = (rule("1", per_minor=1, rule_id="a"), rule("1", per_minor=1, rule_id="b"), rule("1", rule_id="c"))
    found = earned(programme(*rules), 100, 300)
    assert within(found, 804) == found
    assert [(each.rule_id, each.points, each.line_points) for each in within(found, 600)] == [
        ("a", 400, (100, 300)),
        ("b", 200, (50, 150)),
    ]
    assert within(found, 0) == ()


@pytest.mark.parametrize(
    ("at_day", "now_day", "number"),
    [
        pytest.param(5, 5, None, id="nothing before a programme begins"),
        pytest.param(5, 12, 2, id="what was before the first to begin, once it has"),
        pytest.param(12, 30, 2, id="by the version in force then"),
        pytest.param(25, 30, 2, id="a later number replaces one that was to begin later"),
        pytest.param(12, 5, 2, id="a clock behind hides no version in force"),
    ],
)
def test_a_version_judges_what_happened(at_day: int, now_day: int, number: int | None) -> None:
    versions = [
        Version(number=each, effective_at=NOON.replace(day=day), programme=programme())
        for each, day in ((1, 20), (2, 10))
    ]
    found = judging(versions, NOON.replace(day=at_day), now=NOON.replace(day=now_day))
    assert (found.number if found else None) == number
