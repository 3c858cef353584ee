"""The plan holds intents that the replay can keep: same seed, same plan; nothing returned that was not sold."""

from datetime import date

import pytest

from services.console.demo.dataset import Basket, DataSet, Product
from services.console.demo.intake import accepted_lines, is_fuel, supplier_of, units
from services.console.demo.plan import NO_QUALIFYING_PRODUCT, TILL_OFFLINE, Plan, make_plan

WEEK = 33
CHRISTMAS = date(2017, 12, 25)


@pytest.fixture(scope="module")
def baskets(data: DataSet) -> dict[int, Basket]:
    """The week's sales by id."""
    return {basket.basket_id: basket for basket in data.baskets(WEEK) if accepted_lines(basket)}


@pytest.fixture(scope="module")
def plan(data: DataSet) -> Plan:
    """A week's plan."""
    return make_plan(data, weeks=(WEEK,), seed="test")


def test_the_same_seed_draws_the_same_plan(data: DataSet, plan: Plan) -> None:
    assert make_plan(data, weeks=(WEEK,), seed="test") == plan
    assert make_plan(data, weeks=(WEEK,), seed="other") != plan


def test_each_story_is_told(plan: Plan) -> None:
    assert plan.burns
    assert set(plan.offline.values()) == {"cached", "stale"}
    assert plan.refunds
    answers = {intent.answer for intents in plan.suppliers.values() for intent in intents.values()}
    assert answers == {"accept", "part", "reject", "late"}


def test_no_more_comes_back_than_was_sold(products: dict[int, Product], plan: Plan, baskets: dict[int, Basket]) -> None:
    left = {
        (basket.basket_id, line.number): units(line) for basket in baskets.values() for line in accepted_lines(basket)
    }
    for refund in plan.refunds:
        basket = baskets[refund.basket_id]
        assert basket.day < date.fromisoformat(refund.day) <= date.fromisoformat(plan.last_day)
        for number, quantity in refund.lines:
            assert quantity >= 1
            left[refund.basket_id, number] -= quantity
            assert left[refund.basket_id, number] >= 0
            product = products[basket.lines[number - 1].product_id]
            assert not is_fuel(product)
            supplier = supplier_of(product)
            assert not supplier or plan.suppliers[refund.basket_id][supplier].answer == "accept"


def test_a_part_is_more_than_nothing_and_less_than_all(plan: Plan, baskets: dict[int, Basket]) -> None:
    for basket_id, intents in plan.suppliers.items():
        for intent in intents.values():
            if intent.answer == "part":
                asked = sum(units(baskets[basket_id].lines[number - 1]) for number, _ in intent.lines)
                assert 0 < sum(quantity for _, quantity in intent.lines) < asked


def test_every_redemption_is_used_or_listed_with_its_reason(data: DataSet, plan: Plan) -> None:
    week_of = data.week_of_day()
    redeemed = [redemption for redemption in data.redemptions() if week_of[redemption.day] == WEEK]
    used = sum(len(codes) for codes in plan.coupon_uses.values())
    assert used + sum(plan.unmatched_redemptions.values()) == len(redeemed)
    assert set(plan.unmatched_redemptions) <= {NO_QUALIFYING_PRODUCT, TILL_OFFLINE}
    assert not set(plan.coupon_uses) & set(plan.offline)


def test_a_code_is_shown_once(plan: Plan) -> None:
    codes = [code for codes in plan.coupon_uses.values() for code in codes]
    assert len(codes) == len(set(codes))


def test_what_falls_on_a_holiday_comes_back_when_the_shops_open_again(data: DataSet) -> None:
    weeks = (52, 53)
    over_christmas = make_plan(data, weeks=weeks, seed="test", one_in=2)
    open_days = {day for day, week in data.week_of_day().items() if week in weeks}
    assert CHRISTMAS not in open_days
    assert over_christmas.refunds
    assert {refund.when for refund in over_christmas.refunds} <= open_days


def test_what_falls_into_weeks_that_are_left_out_does_not_come_back(data: DataSet) -> None:
    apart = make_plan(data, weeks=(30, 33), seed="test", one_in=2)
    week_of = data.week_of_day()
    sold_in = {basket.basket_id: week for week in (30, 33) for basket in data.baskets(week)}
    assert {week_of[refund.when] for refund in apart.refunds} == {30, 33}
    assert all(sold_in[refund.basket_id] == week_of[refund.when] for refund in apart.refunds)
