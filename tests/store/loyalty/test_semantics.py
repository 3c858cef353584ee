"""The worked examples of what points mean, over the SQL ledger itself (the model has them too, and equals it)."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.loyalty.domain.programme import ExpiryClass
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import CURRENCY, PROGRAMME, House


async def spend(house: House, member: str, points: int, name: str) -> None:
    await house.hold(member, points, name)
    await house.resolve(name)


async def spending_takes_from_what_expires_first(house: House) -> None:
    member = new_id()
    await house.grant(member, 300)
    await house.advance(days=31)
    await house.grant(member, 200)
    await spend(house, member, 200, "h")
    found = await house.points.balance(house.call(), member_id=member, point_currency=CURRENCY)
    assert (found.available_points, found.next_expiry_points) == (300, 100)
    assert found.next_expiry_at == datetime(2027, 1, 1, 16, tzinfo=UTC), "January's, at the end of its day there"


async def a_late_sale_never_expires_before_one_already_posted(house: House) -> None:
    member, began = new_id(), house.now
    await house.advance(days=3)
    await house.grant(member, 10, expiry_class="bonus")
    await house.grant(member, 10, expiry_class="bonus", occurred_at=began)
    await house.advance(days=5)
    assert await house.balance(member) == (20, 0, 0, 0), "the late one's own week is over"
    await house.advance(days=3)
    assert await house.balance(member) == (0, 0, 0, 0)


async def taking_back_leaves_what_expires_tomorrow(house: House) -> None:
    member = new_id()
    await house.advance(days=10)
    await house.grant(member, 1000, expiry_class="bonus", occurred_at=house.now - timedelta(days=6))
    order = await house.pay(member, 100_000)
    assert await house.balance(member) == (2000, 0, 0, 0)
    await house.refund(order, ("0", 1, 0))
    assert await house.balance(member) == (1000, 0, 0, 0)
    await house.advance(days=2)
    assert await house.balance(member) == (0, 0, 0, 0), "what is left still expired on its day"


async def what_expired_unused_is_taken_back_at_no_cost(house: House) -> None:
    member = new_id()
    order = await house.pay(member, 10_000, category="dairy", quantity=2)
    await spend(house, member, 30, "h")
    await house.advance(days=9)
    assert await house.balance(member) == (100, 0, 0, 0), "the bonus's 50 were 30 spent, and 20 expired"
    await house.refund(order, ("0", 1, 0))
    assert await house.balance(member) == (100 - 50 - 5, 0, 0, 0), "of its 25 the bonus had 20 that cost nothing"
    assert (await house.figures())["points_expired"] == 0
    await house.refund(order, ("0", 1, 0))
    assert await house.balance(member) == (0, 0, 0, 30), "what was spent is owed, and no more"


async def what_expired_unused_costs_a_merged_member_nothing(house: House) -> None:
    survivor, alias = new_id(), new_id()
    await house.grant(survivor, 40)
    orders = [await house.pay(member, 0, 8_600, category="dairy") for member in (survivor, alias)]
    await house.advance(days=9)
    assert await house.balance(alias) == (86, 0, 0, 0), "its bonus of 43 has expired"
    await house.merge(survivor, alias)
    for order in reversed(orders):
        await house.refund(order, ("1", 1, 0), whole_order=True)
    assert await house.balance(survivor) == (40, 0, 0, 0)


async def giving_back_into_an_expired_lot_is_grace(house: House) -> None:
    member = new_id()
    await house.grant(member, 300, expiry_class="bonus")
    await house.advance(days=3)
    await house.grant(member, 200, expiry_class="bonus")
    await spend(house, member, 200, "first")
    await spend(house, member, 250, "second")
    order = await house.pay(member, 0, burnt_points=200, hold_id="first")
    await house.advance(days=5)
    assert await house.balance(member) == (50, 0, 0, 0), "A has expired, and all of it was spent"
    await house.refund(order, ("0", 1, 200))
    assert await house.balance(member) == (250, 0, 0, 0)
    await house.advance(days=3)
    assert await house.balance(member) == (50, 0, 0, 0), "200 were in B, the rest has its 30 days"
    await house.advance(days=28)
    assert await house.balance(member) == (0, 0, 0, 0)


async def a_refund_inverts_the_sale_and_not_todays_rules(house: House) -> None:
    member = new_id()
    order = await house.pay(member, 4_900, 199, quantity=2)
    house.now += timedelta(seconds=1)
    doubled = tuple(replace(rule, points=rule.points * 2) for rule in PROGRAMME.earn_rules)
    await house.publish(replace(PROGRAMME, earn_rules=doubled))
    for line in ("0", "1"):
        await house.refund(order, (line, 1, 0))
        await house.refund(order, (line, 1, 0))
    assert await house.balance(member) == (0, 0, 0, 0)


async def debt_is_repaid_by_points_of_its_funder(house: House) -> None:
    member = new_id()
    await house.pay(member, 0, offline_burnt_points=50)
    await house.grant(member, 10, funder="dairy-co")
    assert await house.balance(member) == (10, 0, 0, 50)
    await house.grant(member, 70)
    assert await house.balance(member) == (30, 0, 0, 0)


@pytest.mark.parametrize(
    "example",
    [
        spending_takes_from_what_expires_first,
        a_late_sale_never_expires_before_one_already_posted,
        taking_back_leaves_what_expires_tomorrow,
        what_expired_unused_is_taken_back_at_no_cost,
        what_expired_unused_costs_a_merged_member_nothing,
        giving_back_into_an_expired_lot_is_grace,
        a_refund_inverts_the_sale_and_not_todays_rules,
        debt_is_repaid_by_points_of_its_funder,
    ],
)
async def test_worked_example(house: House, example: Callable[[House], Awaitable[None]]) -> None:
    await example(house)
    assert await house.audit() == {}


@pytest.mark.parametrize(
    ("window_days", "expected"),
    [
        pytest.param(0, [(120, 0), (160, 0), (200, 0)], id="120, 160, 200"),
        pytest.param(3, [(50, 70), (125, 35), (200, 0)], id="50 and 70, 125 and 35, 200 and 0"),
    ],
)
async def test_two_units_that_earn_35_each_and_burn_150(
    house: House, window_days: int, expected: list[tuple[int, int]]
) -> None:
    house.now += timedelta(seconds=1)
    rule = replace(PROGRAMME.earn_rules[0], points=Decimal(35), per_minor=1000, tier_multiplied=False)
    await house.publish(replace(PROGRAMME, return_window_days=window_days, earn_rules=(rule,)))
    member = new_id()
    await house.grant(member, 200)
    await spend(house, member, 150, "sale")
    order = await house.pay(member, 2_000, quantity=2, burnt_points=150, hold_id="sale")
    seen = [(await house.balance(member))[:2]]
    for _ in range(2):
        await house.refund(order, ("0", 1, 75))
        seen.append((await house.balance(member))[:2])
    assert seen == expected
    assert await house.audit() == {}


async def test_points_that_never_expire_are_not_what_expires_next(house: House) -> None:
    """Nothing is, as the contract says it; with others beside them, those are."""
    await house.advance(seconds=1)
    classes = (ExpiryClass(class_id="ever"), ExpiryClass(class_id="week", days=7))
    await house.publish(replace(PROGRAMME, expiry_classes=classes, earn_rules=()))
    member = new_id()
    await house.grant(member, 100)
    found = await house.points.balance(house.call(), member_id=member, point_currency=CURRENCY)
    assert (found.available_points, found.next_expiry_points, found.next_expiry_at) == (100, 0, None)
    await house.grant(member, 30, expiry_class="week")
    found = await house.points.balance(house.call(), member_id=member, point_currency=CURRENCY)
    assert (found.available_points, found.next_expiry_points) == (130, 30)
    assert found.next_expiry_at == datetime(2026, 1, 8, 16, tzinfo=UTC)
