"""Orders, refunds, time, tiers and merges over Postgres, and the audit that sees it all."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
import structlog

from services.loyalty.domain.programme import TierWindow
from services.loyalty.store.orders import SELLER
from services.runtime.database import Connection, raw
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import CURRENCY, PROGRAMME, House


async def test_an_order_earns_by_rule_and_line(house: House) -> None:
    """Each rule rounds once per order; the points are explained in the history."""
    member = new_id()
    order = await house.pay(member, 199, 4_900, category="dairy")
    assert await house.balance(member) == (50 + 25, 0, 0, 0)
    await house.post(order)
    assert await house.balance(member) == (75, 0, 0, 0), "a second posting changes nothing"
    entries, _ = await house.points.entries(
        house.call(), member_id=member, point_currency=CURRENCY, size=10, after=None
    )
    assert {entry.why for entry in entries} == {
        "base: 5099 / 100 x 1, down = 50",
        "dairy: 5099 / 100 x 0.5, down = 25",
    }
    assert {(entry.funder, entry.expiry_class) for entry in entries} == {("brand", "year"), ("dairy-co", "bonus")}
    assert await house.audit() == {}


@pytest.mark.parametrize("window_days", [0, 3])
@pytest.mark.parametrize("first", [0, 1])
async def test_refunding_all_restores_the_balance(house: House, window_days: int, first: int) -> None:
    """Buy two lines of two units, burn, refund unit by unit in either order: all is back, the tier's counters too."""
    house.now += timedelta(seconds=1)
    await house.publish(replace(PROGRAMME, return_window_days=window_days))
    member = new_id()
    await house.grant(member, 200)
    await house.hold(member, 150, "sale")
    await house.resolve("sale")
    order = await house.pay(member, 3_333, 4_100, quantity=2, burnt_points=150, hold_id="sale")
    earned = 74
    after = (50, earned, 0, 0) if window_days else (50 + earned, 0, 0, 0)
    assert await house.balance(member) == after
    for line in (first, 1 - first):
        for points in (38, 37):
            await house.refund(order, (str(line), 1, points))
    assert await house.balance(member) == (200, 0, 0, 0)
    assert await house.audit() == {}
    figures = await house.figures()
    assert figures["loyalty.refunded_base_minor"] == figures["loyalty.base_minor"] == 7_433
    assert figures["points_given_back"] == 150
    seen = await house.tiers.get(house.call(), member_id=member, point_currency=CURRENCY)
    assert (seen.counters.amount_minor, seen.counters.orders) == (0, 0)


async def test_payment_and_refunds_in_one_batch(house: House) -> None:
    """Events of one transaction keep each member's order."""
    one, other = new_id(), new_id()
    order = await house.pay(one, 10_000)
    later = replace(order, order_id=new_id(), member_id=other)
    again = replace(order, order_id=new_id())
    await house.post(house.refund_of(order, ("0", 1, 0)), later, house.refund_of(later, ("0", 1, 0)), again)
    assert await house.balance(one) == (100, 0, 0, 0)
    assert await house.balance(other) == (0, 0, 0, 0)
    assert await house.audit() == {}


async def test_pending_points_mature_and_expire_by_business_time(house: House) -> None:
    """The sweeper follows the tenant's test clock; balances are right before it comes."""
    house.now += timedelta(seconds=1)
    await house.publish(replace(PROGRAMME, return_window_days=3))
    member = new_id()
    await house.pay(member, 10_000, category="dairy")
    assert await house.balance(member) == (0, 150, 0, 0)
    await house.advance(days=3)
    assert await house.sweeper.sweep() == 0
    await house.advance(hours=12)
    assert "loyalty.pending_points_have_matured" in await house.audit()
    assert await house.sweeper.sweep() == 1
    assert await house.audit() == {}
    assert await house.balance(member) == (150, 0, 0, 0)
    await house.advance(days=4)
    assert await house.balance(member) == (100, 0, 0, 0), "the bonus class lives for 7 days"
    assert await house.audit() == {}
    assert (await house.figures())["points_expired"] == 50


async def test_a_brand_whose_points_cannot_be_swept_keeps_no_other_waiting(house: House) -> None:
    """Brands are swept in turn: what is wrong with one's books is told, and the next one's points mature."""
    other = replace(house, tenant_id=new_id())
    for brand in (house, other):
        await brand.advance(seconds=1)
        await brand.publish(replace(PROGRAMME, return_window_days=3))
    members = {brand.tenant_id: new_id() for brand in (house, other)}
    for brand in (house, other):
        await brand.pay(members[brand.tenant_id], 10_000)

    async def lose(connection: Connection) -> None:
        await raw(connection).execute(
            "UPDATE accounts SET pending_points = 0 WHERE tenant_id = $1::uuid", house.tenant_id
        )

    await house.system.run(house.tenant_id, lose)
    for brand in (house, other):
        await brand.advance(days=4)
    with structlog.testing.capture_logs() as logs:
        assert await house.sweeper.sweep() == 1
    assert [(told["tenant_id"], told["step"]) for told in logs] == [(house.tenant_id, "settle")]
    assert "accounts_pending_not_negative" in logs[0]["reason"]
    assert await other.audit() == {}


async def test_an_offline_burn_beyond_the_balance_is_debt(house: House) -> None:
    """An off-line sale is a fact: what is not there is owed, and repaid by what the sale earns."""
    member = new_id()
    await house.grant(member, 30)
    order = await house.pay(member, 2_000, offline_burnt_points=100)
    assert await house.balance(member) == (0, 0, 0, 50)
    await house.refund(order, ("0", 1, 100), whole_order=True)
    assert await house.balance(member) == (30, 0, 0, 0)
    assert await house.audit() == {}


async def test_an_offline_burn_without_debt_leaves_a_reported_shortfall(house: House) -> None:
    """What was not there is reported on the order and in its event; a refund undoes first what was never drawn."""
    await house.advance(seconds=1)
    await house.publish(replace(PROGRAMME, debt_forbidden=True))
    member = new_id()
    await house.grant(member, 30)
    order = await house.pay(member, 0, quantity=2, offline_burnt_points=100)
    assert await house.balance(member) == (0, 0, 0, 0)
    assert (await house.figures())["shortfall_points"] == 70
    assert await house.posted(order.order_id) == [(0, 0, 70)]
    await house.refund(order, ("0", 1, 50))
    assert await house.balance(member) == (0, 0, 0, 0)
    await house.refund(order, ("0", 1, 50), whole_order=True)
    assert await house.balance(member) == (30, 0, 0, 0)
    assert await house.posted(order.order_id) == [(0, 0, 70), (0, 0, 0), (0, 30, 0)]
    figures = await house.figures()
    assert (figures["loyalty.orders_burnt_points"], figures["loyalty.orders_returned_points"]) == (100, 100)

    empty = new_id()
    nothing = await house.pay(empty, 0, offline_burnt_points=100)
    await house.refund(nothing, ("0", 1, 100), whole_order=True)
    assert await house.balance(empty) == (0, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_forbidden_debt_is_a_shortfall(house: House) -> None:
    """What can't be taken back is reported with the order."""
    house.now += timedelta(seconds=1)
    await house.publish(replace(PROGRAMME, debt_forbidden=True))
    member = new_id()
    order = await house.pay(member, 10_000)
    await house.hold(member, 80, "h1")
    await house.resolve("h1")
    await house.refund(order, ("0", 1, 0))
    assert await house.balance(member) == (0, 0, 0, 0)
    assert (await house.figures())["shortfall_points"] == 80
    assert await house.audit() == {}


async def test_tiers_rise_at_once_and_fall_at_the_end(house: House) -> None:
    """An upgrade counts from the next order; a refund lowers the counters and not the tier, until its time is over."""
    member = new_id()
    order = await house.pay(member, 60_000)
    assert await house.tier(member) == "silver"
    assert await house.balance(member) == (600, 0, 0, 0)
    await house.pay(member, 10_000)
    assert await house.balance(member) == (750, 0, 0, 0)
    await house.refund(order, ("0", 1, 0))
    assert await house.tier(member) == "silver"
    await house.advance(days=91)
    await house.sweeper.sweep()
    assert await house.tier(member) == "base"
    changes, _ = await house.tiers.changes(
        house.call(), member_id=member, point_currency=CURRENCY, size=10, before=None
    )
    assert [(each.from_tier_id, each.to_tier_id) for each in changes] == [("silver", "base"), ("base", "silver")]
    assert await house.audit() == {}


async def test_an_order_of_a_member_whose_tier_is_being_judged_counts_from_the_verdict(house: House) -> None:
    """Not from the tier that it read before, which it would give back, with a version that was told already."""
    member = new_id()
    await house.pay(member, 60_000)
    await house.advance(days=91)
    judged, going_on = asyncio.Event(), asyncio.Event()

    async def work(connection: Connection) -> None:
        await house.sweeper.tiers.judge(connection, house.call(client_id="loyalty.sweeper"))
        judged.set()
        await going_on.wait()

    judging = asyncio.create_task(house.system.run(house.tenant_id, work))
    await judged.wait()
    paying = asyncio.create_task(house.pay(member, 60_000))
    await house.somebody_waits()
    going_on.set()
    await asyncio.gather(judging, paying)
    await house.pay(member, 250_000)
    changes, _ = await house.tiers.changes(
        house.call(), member_id=member, point_currency=CURRENCY, size=10, before=None
    )
    assert [each.to_tier_id for each in changes] == ["gold", "silver", "base", "silver"]


async def test_a_merge_moves_everything(house: House) -> None:
    """Points, pending, holds, debt and tiers are the survivor's; the alias's orders can still be refunded."""
    survivor, alias = new_id(), new_id()
    await house.grant(survivor, 100)
    order = await house.pay(alias, 60_000)
    await house.hold(alias, 40, "h1")
    merge_id = new_id()
    for _ in range(2):
        await house.merge(survivor, alias, merge_id=merge_id)
    assert await house.balance(survivor) == await house.balance(alias) == (660, 0, 40, 0)
    assert await house.tier(survivor) == await house.tier(alias) == "silver"
    await house.resolve("h1", is_capture=False)
    await house.grant(alias, 5)
    assert await house.balance(survivor) == (705, 0, 0, 0)
    await house.refund(order, ("0", 1, 0))
    assert await house.balance(survivor) == (105, 0, 0, 0)
    await house.hold(alias, 105, "h2")
    assert await house.balance(survivor) == (0, 0, 105, 0)
    assert await house.audit() == {}


async def test_the_history_of_merged_members_is_one_by_whichever_id_it_is_asked(house: House) -> None:
    """All that came into the survivor's points is in it, so that it sums to the balance."""
    survivor, one, other = members = [new_id() for _ in range(3)]
    for points, member in enumerate(members, 1):
        await house.grant(member, points)
    for alias in (one, other):
        await house.merge(survivor, alias)
    found = []
    for member in members:
        entries, _ = await house.points.entries(
            house.call(), member_id=member, point_currency=CURRENCY, size=50, after=None
        )
        assert sum(entry.points for entry in entries) == 6
        found.append(entries)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("then", "now", "tier_id"),
    [
        pytest.param(50_000, 20_000, "silver", id="enough by now's"),
        pytest.param(20_000, 50_000, "base", id="enough by the sale's only"),
    ],
)
async def test_a_late_sale_counts_on_its_day_and_is_judged_by_the_version_in_force(
    house: House, then: int, now: int, tier_id: str
) -> None:
    """Tiers are of today; what the sale earns in points is of its day."""
    member = new_id()
    for silver, days in ((then, 1), (now, 9)):
        await house.advance(seconds=1)
        tiers = (PROGRAMME.tiers[0], replace(PROGRAMME.tiers[1], amount_minor=silver))
        await house.publish(replace(PROGRAMME, tiers=tiers))
        await house.advance(days=days)
    await house.pay(member, 30_000, occurred_at=house.now - timedelta(days=9, hours=1))
    assert await house.tier(member) == tier_id
    assert await house.balance(member) == (300, 0, 0, 0)
    assert await house.audit() == {}


async def test_calendar_periods_are_not_added_over_the_grace(house: House) -> None:
    """A tier that neither the ended year nor the running one earns ends after the grace."""
    member = new_id()
    await house.advance(seconds=1)
    await house.publish(replace(PROGRAMME, tier_window=TierWindow(rolling_days=0, grace_days=90)))
    await house.advance(days=100)
    await house.pay(member, 50_000)
    await house.advance(days=365)  # April 2027: judged by 2026, which earned it
    await house.sweeper.sweep()
    assert await house.tier(member) == "silver"
    await house.pay(member, 30_000)
    await house.advance(days=330)  # March 2028, in the grace
    await house.pay(member, 30_000)
    await house.sweeper.sweep()
    assert await house.tier(member) == "silver"
    await house.advance(days=40)
    await house.sweeper.sweep()
    assert await house.tier(member) == "base"


async def test_a_merge_raises_the_tier_that_both_reach_together(house: House) -> None:
    """At once, in the survivor's history, with its reason; a tier that came with the other is a change as well."""
    survivor, alias, gold = new_id(), new_id(), new_id()
    await house.pay(survivor, 30_000)
    await house.pay(alias, 30_000)
    await house.pay(gold, 250_000)
    assert await house.tier(survivor) == "base"
    for other in (alias, gold):
        await house.merge(survivor, other)
    changes, _ = await house.tiers.changes(
        house.call(), member_id=survivor, point_currency=CURRENCY, size=10, before=None
    )
    assert [(each.from_tier_id, each.to_tier_id) for each in changes] == [("silver", "gold"), ("base", "silver")]
    assert "60000" in changes[1].why
    assert await house.tier(survivor) == "gold"
    assert await house.audit() == {}


async def test_an_order_gives_back_what_was_held_for_it(house: House) -> None:
    """A hold's name is its client's: another client's hold of the same name is another hold."""
    buyer, other = new_id(), new_id()
    await house.grant(buyer, 100)
    await house.grant(other, 100)
    for member, points, client_id in ((buyer, 50, SELLER), (other, 70, "till-2")):
        await house.hold(member, points, "sale", client_id=client_id)
        await house.resolve("sale", client_id=client_id)
    order = await house.pay(buyer, 1_000, burnt_points=50, hold_id="sale")
    await house.refund(order, ("0", 1, 50))
    assert await house.balance(buyer) == (100, 0, 0, 0)
    assert await house.balance(other) == (30, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_refund_that_comes_before_its_capture_is_a_refund(house: House) -> None:
    """Payment is the pivot: what was held for a paid order is spent, whoever tells it first."""
    member = new_id()
    await house.grant(member, 100)
    await house.hold(member, 60, "sale")
    order = await house.pay(member, 1_000, burnt_points=60, hold_id="sale")
    await house.refund(order, ("0", 1, 60))
    assert await house.balance(member) == (100, 0, 0, 0)
    with pytest.raises(DomainError) as refused:
        await house.resolve("sale")
    assert refused.value.reason == "HOLD_CAPTURED"
    assert await house.audit() == {}


async def test_a_refund_of_points_that_were_never_spent_gives_none_back(house: House) -> None:
    """A hold that was lost before its capture gave its points back already; the queue must not wait at it for ever."""
    member = new_id()
    await house.grant(member, 100)
    await house.hold(member, 60, "sale")
    house.clock.advance(timedelta(hours=1))
    assert await house.sweeper.sweep() == 1
    order = await house.pay(member, 1_000, burnt_points=60, hold_id="sale")
    await house.refund(order, ("0", 1, 60))
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_batch_locks_its_accounts_in_one_order_whatever_becomes_of_them(house: House) -> None:
    """Grants lock in that order too: one that has the first of two accounts waits for nobody who has the second."""
    first, second = sorted([new_id(), new_id()])
    refunded = await house.pay(first, 3_500)
    paid = replace(refunded, order_id=new_id(), member_id=second)
    await house.grant(second, 10)
    lock = "SELECT FROM accounts WHERE tenant_id = $1::uuid AND member_id = $2::uuid FOR UPDATE"

    async def work(connection: Connection) -> asyncio.Task[None]:
        await raw(connection).execute(lock, house.tenant_id, first)
        posted = asyncio.create_task(house.post(paid, house.refund_of(refunded, ("0", 1, 0))))
        await house.somebody_waits()
        await raw(connection).execute(f"{lock} NOWAIT", house.tenant_id, second)
        return posted

    await (await house.database.run(house.tenant_id, work))
    assert [await house.balance(member) for member in (first, second)] == [(0, 0, 0, 0), (45, 0, 0, 0)]
    assert await house.audit() == {}
