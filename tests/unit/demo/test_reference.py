"""The reference implementation against the worked examples: what proves the services must itself be right."""

import json
from datetime import date, timedelta
from fractions import Fraction

import pytest

from services.console.demo.dataset import DataSet
from services.console.demo.plan import make_plan
from tests.reference.arithmetic import divide, half_away, of_first_units
from tests.reference.points import GRACE, Purse
from tests.reference.pricing import earned_points, price, share_tender
from tests.reference.shop import Shop
from tests.reference.tiers import Card

DAY = date(2017, 8, 7)


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        pytest.param(299, [4300, 1400, 2300], [161, 52, 86], id="by largest remainder"),
        pytest.param(299, [1000, 1000, 1000], [100, 100, 99], id="ties to the earliest"),
        pytest.param(5, [0, 0, 0], [2, 2, 1], id="no weights: equal shares"),
        pytest.param(0, [3, 4], [0, 0], id="nothing to divide"),
    ],
)
def test_a_total_is_divided(total: int, weights: list[int], parts: list[int]) -> None:
    assert divide(total, weights) == parts


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(Fraction(5, 2), 3), (Fraction(-5, 2), -3), (Fraction(12, 5), 2), (Fraction(7), 7)],
)
def test_halves_go_away_from_zero(value: Fraction, rounded: int) -> None:
    assert half_away(value) == rounded


def test_the_first_units_hold_the_prefix_of_the_division() -> None:
    for total in (0, 1, 7, 100):
        for units in (1, 3, 8):
            parts = divide(total, [1] * units)
            assert [of_first_units(total, units, first) for first in range(units + 1)] == [
                sum(parts[:first]) for first in range(units + 1)
            ]


def test_two_tenders_over_three_lines() -> None:
    first = share_tender([3333, 3333, 3334], 5000)
    assert list(zip(first, [3333 - first[0], 3333 - first[1], 3334 - first[2]], strict=True)) == [
        (1667, 1666),
        (1666, 1667),
        (1667, 1667),
    ]


def test_coupons_leave_nothing_below_zero_and_the_weekend_has_its_threshold() -> None:
    items = [_item(1, 3000), _item(2, 1999)]
    plain = price(items, [0, 0], weekend=True, coupons=[("a", 200, {2}), ("b", 5000, {2}), ("c", 50, {2})])
    assert plain.weekend_off == 0
    assert plain.coupons_off == {"a": 200, "b": 1799}
    assert plain.net == [3000, 0]
    weekend = price([_item(1, 3001), _item(2, 1999)], [0, 0], weekend=True, coupons=[])
    assert weekend.weekend_off == 250
    assert sum(weekend.net) == 4750


def test_member_prices_give_way_where_the_weekend_is_worth_more() -> None:
    priced = price([_item(1, 5010)], [20], weekend=True, coupons=[])
    assert (priced.net, priced.member_off, priced.weekend_off) == ([4759], 0, 251)
    priced = price([_item(1, 5010)], [300], weekend=True, coupons=[])
    assert (priced.net, priced.member_off, priced.weekend_off) == ([4710], 300, 0)


def test_points_round_down_per_sale_and_rule_and_are_then_shared() -> None:
    points, shares = earned_points(
        [99, 51, 50], rate=Fraction(4, 100), factor=Fraction(5, 4), counts={0: True, 1: False, 2: True}
    )
    assert (points, shares) == (7, [5, 0, 2])


def _item(product: int, shelf: int) -> dict[str, int]:
    return {"number": product, "product": product, "units": 1, "shelf": shelf, "recorded_off": 0}


def purse(*lots: tuple[int, int]) -> Purse:
    """A purse with lots of (points, days to live) in pools of their own."""
    made = Purse(DAY)
    for number, (points, days) in enumerate(lots):
        made._add(f"pool-{number}", points, DAY + timedelta(days=days))
    return made


def test_what_expires_first_is_spent_first() -> None:
    spent = purse((300, 10), (200, 5))
    spent.burn("sale", 250)
    assert [lot["left"] for lot in spent.lots] == [250, 0]


def test_a_lot_can_be_spent_until_the_end_of_its_day() -> None:
    lived = purse((100, 1))
    lived.next_day(DAY + timedelta(days=1))
    assert lived.available() == 100
    lived.next_day(DAY + timedelta(days=2))
    assert (lived.available(), lived.told["expired"]) == (0, 100)


def test_taking_back_leaves_what_expires_tomorrow() -> None:
    taken = purse((1000, 1))
    taken.earn("b", "base", 1000, sold_on=DAY, returnable=False)
    taken.refund(burnt=[], earned=[("b", 1000)])
    assert [(lot["left"], lot["last_day"]) for lot in taken.lots] == [
        (1000, DAY + timedelta(days=1)),
        (0, DAY + timedelta(days=365)),
    ]


def test_giving_back_counts_the_earliest_as_spent_and_makes_grace_of_the_expired() -> None:
    given = Purse(DAY)
    given._add("pool", 300, DAY)
    given._add("pool", 200, DAY + timedelta(days=30))
    given.burn("first", 200)
    given.burn("second", 250)
    given.next_day(DAY + timedelta(days=1))
    given.refund(burnt=[("first", 200)], earned=[])
    assert [(lot["pool"], lot["left"]) for lot in given.lots] == [
        ("pool", 0),
        ("pool", 50 + 150),
        (f"{GRACE}/brand", 50),
    ]
    assert given.available() == 250


def test_a_refund_is_the_inverse_of_the_sale() -> None:
    shop = purse((200, 100))
    shop.burn("sale", 150)
    shop.earn("sale/base", "base", 70, sold_on=DAY, returnable=False)
    assert shop.available() == 120
    shop.refund(burnt=[("sale", 75)], earned=[("sale/base", 35)])
    assert shop.available() == 160
    shop.refund(burnt=[("sale", 75)], earned=[("sale/base", 35)])
    assert shop.available() == 200


def test_a_refund_within_the_return_window() -> None:
    shop = purse((200, 100))
    shop.burn("sale", 150)
    shop.earn("sale/base", "base", 70, sold_on=DAY, returnable=True)
    assert (shop.available(), shop.waiting()) == (50, 70)
    shop.refund(burnt=[("sale", 75)], earned=[("sale/base", 35)])
    assert (shop.available(), shop.waiting()) == (125, 35)
    shop.refund(burnt=[("sale", 75)], earned=[("sale/base", 35)])
    assert (shop.available(), shop.waiting()) == (200, 0)


def test_what_expired_unused_is_taken_back_for_nothing_and_what_was_spent_is_owed() -> None:
    late = Purse(DAY)
    late.earn("sale/fresh", "fresh", 100, sold_on=DAY, returnable=False)
    late.burn("other", 60)
    late.next_day(DAY + timedelta(days=8))
    seen = []
    for points in (30, 30, 40):
        late.refund(burnt=[], earned=[("sale/fresh", points)])
        seen.append(late.debt())
    assert seen == [0, 20, 60]
    assert (late.told["expired"], late.told["taken_back"], late.told["owed"]) == (40, 60, 60)


def test_what_cannot_be_taken_is_owed_and_repaid_by_the_next_points() -> None:
    owing = Purse(DAY)
    owing.earn("sale/base", "base", 100, sold_on=DAY, returnable=False)
    owing.burn("other", 80)
    owing.refund(burnt=[], earned=[("sale/base", 100)])
    assert (owing.available(), owing.debt()) == (0, 80)
    owing.earn("next/base", "base", 100, sold_on=DAY, returnable=False)
    assert (owing.available(), owing.debt()) == (20, 0)


def test_a_debt_is_repaid_by_points_of_whom_it_is_owed_to() -> None:
    owing = Purse(DAY)
    owing.earn("sale/fresh", "fresh", 100, sold_on=DAY, returnable=False)
    owing.burn("other", 100)
    owing.refund(burnt=[], earned=[("sale/fresh", 100)])
    owing.earn("next/base", "base", 40, sold_on=DAY, returnable=False)
    assert (owing.available(), owing.debt()) == (40, 100)
    owing.earn("next/fresh", "fresh", 130, sold_on=DAY, returnable=False)
    assert (owing.available(), owing.debt()) == (70, 0)


def test_pending_points_mature_at_the_end_of_the_last_day_to_return() -> None:
    waiting = Purse(DAY)
    waiting.earn("sale/base", "base", 100, sold_on=DAY, returnable=True)
    waiting.next_day(DAY + timedelta(days=3))
    assert waiting.available() == 0
    waiting.next_day(DAY + timedelta(days=4))
    assert waiting.available() == 100


def test_a_tier_is_reached_at_once_and_kept_for_its_time() -> None:
    card = Card(DAY)
    card.paid(DAY, 10_000)
    assert card.tier == "silver"
    card.unpaid(DAY, 10_000)
    assert card.tier == "silver"
    for days in range(1, 29):
        card.next_day(DAY + timedelta(days=days))
    assert card.tier == "silver"
    card.next_day(DAY + timedelta(days=29))
    assert card.tier == "basic"


@pytest.mark.parametrize("weeks", [(52, 53), (30, 33)], ids=["over Christmas", "with weeks left out"])
def test_every_sale_and_refund_of_a_plan_is_lived(data: DataSet, weeks: tuple[int, int]) -> None:
    plan = make_plan(data, weeks=weeks, seed="siyu-2017", one_in=2)
    shop = Shop(json.loads(plan.text()))
    shop.live()
    assert {str(basket) for basket in plan.offline} <= {str(basket) for basket in (*shop.sales, *shop.told)}
    assert len(shop.sales) + len(shop.told) == plan.sales
