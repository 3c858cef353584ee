"""Points end to end over Postgres: grants, holds, orders, refunds, time, merges, and the audit that sees it all."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.loyalty.domain.points import HoldState
from services.loyalty.domain.programme import ExpiryClass, TierWindow
from services.loyalty.servicer.points import PointsServicer
from services.loyalty.store.orders import SELLER
from services.runtime.database import Connection, raw
from services.runtime.errors import DomainError, Invalid
from services.runtime.ids import new_id
from siyu.loyalty.v1 import points_pb2
from tests.store.loyalty.conftest import CURRENCY, PROGRAMME, House, grant


async def test_a_grant_is_posted_once(house: House) -> None:
    """The same request id answers the same; another body is refused."""
    member = new_id()
    first = await house.grant(member, 100, request_id="r1")
    again = await house.grant(member, 100, request_id="r1")
    assert again == first
    assert first.available_points == 100
    with pytest.raises(DomainError, match="another body") as refused:
        await house.grant(member, 50, request_id="r1", fingerprint=b"other")
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


async def test_the_first_reply_stands_whatever_the_programme_says_since(house: House) -> None:
    """A request that was posted is answered as before, though its class is gone; a new one is refused."""
    member = new_id()
    first = await house.grant(member, 10, expiry_class="bonus", request_id="r1")
    await house.advance(seconds=1)
    await house.publish(
        replace(PROGRAMME, expiry_classes=PROGRAMME.expiry_classes[:1], earn_rules=PROGRAMME.earn_rules[:1])
    )
    house.points.book.forget(house.tenant_id, CURRENCY)
    asked = [grant(member, 10, expiry_class="bonus", request_id=name) for name in ("r1", "r2", "r1")]
    asked[2] = asked[2]._replace(fingerprint=b"other")
    assert await house.grant(member, 10, expiry_class="bonus", request_id="r1") == first
    again, refused, reused = await house.points.accrue_many(house.call(), asked)
    assert again == first
    assert [verdict.reason for verdict in (refused, reused) if isinstance(verdict, DomainError)] == [
        "EXPIRY_CLASS_NOT_FOUND",
        "REQUEST_ID_REUSED",
    ]


async def test_a_refused_grant_stays_refused_for_a_day(house: House) -> None:
    """A duplicate that comes when the programme has the class is told no as the first was, whichever way it comes."""
    member = new_id()
    with pytest.raises(DomainError) as refused:
        await house.grant(member, 10, expiry_class="spring", request_id="r1")
    refusals = await house.points.accrue_many(
        house.call(),
        [
            grant(member, 10, expiry_class="spring", request_id="r2"),
            grant(member, 10, point_currency="stars", request_id="r3"),
            grant(member, 10, occurred_at=house.now + timedelta(hours=1), request_id="r4"),
        ],
    )
    assert [said.reason for said in refusals if isinstance(said, DomainError)] == [
        "EXPIRY_CLASS_NOT_FOUND",
        "PROGRAMME_NOT_FOUND",
        "INVALID_FIELD",
    ]
    await house.advance(hours=1)
    classes = (*PROGRAMME.expiry_classes, ExpiryClass(class_id="spring", days=90))
    await house.publish(replace(PROGRAMME, expiry_classes=classes))
    await house.publish(replace(PROGRAMME, expiry_classes=classes, point_currency="stars"))
    house.points.book.forget(house.tenant_id, CURRENCY)

    with pytest.raises(DomainError) as again:
        await house.grant(member, 10, expiry_class="spring", request_id="r1")
    assert (again.value.reason, again.value.message) == (refused.value.reason, refused.value.message)
    with pytest.raises(DomainError) as reused:
        await house.grant(member, 10, expiry_class="spring", request_id="r1", fingerprint=b"other")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    # beside one that is new, one that was refused for its form, and for another client
    verdicts = await house.points.accrue_many(
        house.call(),
        [
            grant(member, 1, expiry_class="spring", request_id="new"),
            grant(member, 10, expiry_class="spring", request_id="r2"),
            grant(member, 10, point_currency="stars", request_id="r3"),
            grant(member, 10, occurred_at=house.now, request_id="r4"),
        ],
    )
    assert [said.reason if isinstance(said, DomainError) else "" for said in verdicts] == [
        "",
        "EXPIRY_CLASS_NOT_FOUND",
        "PROGRAMME_NOT_FOUND",
        "",
    ]
    assert await house.balance(member) == (11, 0, 0, 0)
    other = await house.points.accrue(
        house.call(client_id="till-2"), grant(member, 2, expiry_class="spring", request_id="r1")
    )
    assert other.available_points == 13

    house.clock.advance(timedelta(days=2000))
    await house.sweeper.forget()
    assert (await house.grant(member, 10, expiry_class="spring", request_id="r1")).available_points == 23
    assert await house.audit() == {}


async def test_a_storm_of_duplicates_posts_once(house: House) -> None:
    """Duplicates in one batch and over lanes share the verdict."""
    member = new_id()
    verdicts = await asyncio.gather(*(house.grant(member, 7, request_id=f"r{i % 10}") for i in range(300)))
    assert len({verdict.entry_id for verdict in verdicts}) == 10
    assert await house.balance(member) == (70, 0, 0, 0)


async def test_a_bundle_gives_each_item_its_verdict(house: House) -> None:
    """What is refused does not fail its neighbours."""
    member = new_id()
    asked = [grant(member, 10), grant(member, 10, expiry_class="unknown"), grant(member, 10, point_currency="other")]
    verdicts = await house.points.accrue_many(house.call(), asked)
    reasons = [verdict.reason if isinstance(verdict, DomainError) else "" for verdict in verdicts]
    assert reasons == ["", "EXPIRY_CLASS_NOT_FOUND", "PROGRAMME_NOT_FOUND"]


async def test_a_bundle_posts_as_its_items_one_by_one(house: House) -> None:
    """Several items an account, two classes, repeats of before and within: verdicts, lots and books agree."""
    chance = random.Random(7)
    members, others = [new_id() for _ in range(6)], [new_id() for _ in range(6)]
    twins = dict(zip(members, others, strict=True))
    # one has no account yet, one no pool of the bonus class, one has spent all that it had
    for member in (*members[1:], *others[1:]):
        await house.grant(member, 5)
    for member in (members[5], others[5]):
        await house.resolve((await house.hold(member, 5)).hold_id)
    plan = [
        (chance.choice(members), chance.randrange(1, 9), chance.choice(["year", "bonus"]), f"r{chance.randrange(60)}")
        for _ in range(80)
    ]
    by_request = {request_id: (member, points, of) for member, points, of, request_id in reversed(plan)}
    plan = [(*by_request[request_id], request_id) for _, _, _, request_id in plan]
    await house.grant(plan[3][0], plan[3][1], expiry_class=plan[3][2], request_id=plan[3][3])
    await house.grant(twins[plan[3][0]], plan[3][1], expiry_class=plan[3][2], request_id=f"twin-{plan[3][3]}")

    asked = [grant(member, points, expiry_class=of, request_id=name) for member, points, of, name in plan]
    together = await house.points.accrue_many(house.call(), asked)
    singly = [
        await house.grant(twins[member], points, expiry_class=of, request_id=f"twin-{name}")
        for member, points, of, name in plan
    ]

    left = [verdict.available_points for verdict in together if not isinstance(verdict, DomainError)]
    assert left == [verdict.available_points for verdict in singly]
    for member, twin in twins.items():
        assert await house.balance(member) == await house.balance(twin)
        assert await _lots(house, member) == await _lots(house, twin)
    assert await house.audit() == {}


async def test_a_batch_that_waits_for_an_account_adds_to_what_it_waited_for(house: House) -> None:
    """What another transaction did to the account meanwhile is kept: rows are updated as they are after the lock."""
    member, other = new_id(), new_id()
    await house.grant(member, 100)
    held, waiting = asyncio.Event(), asyncio.Event()

    async def work(connection: Connection) -> None:
        await raw(connection).execute(
            "UPDATE accounts SET account_version = account_version WHERE member_id = $1::uuid", member
        )
        held.set()
        await waiting.wait()
        # as long as the batch below needs to run into the lock
        await asyncio.sleep(0.2)

    holder = asyncio.create_task(house.database.run(house.tenant_id, work))
    await held.wait()
    posting = asyncio.create_task(house.points.accrue_many(house.call(), [grant(member, 1), grant(other, 2)]))
    waiting.set()
    verdicts = await posting
    await holder
    assert [verdict.available_points for verdict in verdicts if not isinstance(verdict, DomainError)] == [101, 2]
    assert await house.balance(member) == (101, 0, 0, 0)
    assert await house.audit() == {}


async def _lots(house: House, member_id: str) -> list[tuple[object, ...]]:
    async def work(connection: Connection) -> list[tuple[object, ...]]:
        rows = await raw(connection).fetch(
            """
            SELECT e.class_no, e.end_points, e.account_version, e.points, e.expires_at, p.earned_points,
                   p.last_expires_at, p.next_expires_at, a.account_version AS versions, a.due_at
            FROM entries e
            JOIN whole_pools p USING (tenant_id, member_id, class_no)
            JOIN accounts a ON a.tenant_id = e.tenant_id AND a.member_id = e.member_id
            WHERE e.member_id = $1::uuid
            ORDER BY e.account_version
            """,
            member_id,
        )
        return [tuple(row) for row in rows]

    return await house.database.read(house.tenant_id, work)


async def test_a_hold_is_resolved_once(house: House) -> None:
    """Held points are neither available nor spent; a second resolution is refused by its name."""
    member = new_id()
    await house.grant(member, 100)
    held = await house.hold(member, 60, "h1")
    assert (held.state, held.available_points) == (HoldState.HELD, 40)
    assert await house.balance(member) == (40, 0, 60, 0)
    captured = await house.resolve("h1", points=50)
    assert (captured.state, captured.held_points, captured.captured_points) == (HoldState.CAPTURED, 60, 50)
    assert await house.balance(member) == (50, 0, 0, 0)
    with pytest.raises(DomainError) as refused:
        await house.resolve("h1", is_capture=False)
    assert refused.value.reason == "HOLD_CAPTURED"
    assert await house.audit() == {}


async def test_a_name_that_is_taken_is_told_before_what_is_left(house: House) -> None:
    """Whoever comes second for a hold's name learns that it is taken, one after the other and at once."""
    member = new_id()
    await house.grant(member, 100)
    await house.hold(member, 60, "h1")
    with pytest.raises(DomainError) as refused:
        await house.hold(member, 60, "h1")
    assert refused.value.reason == "HOLD_EXISTS"

    await house.grant(member, 20)
    verdicts = await asyncio.gather(*(house.hold(member, 60, "h2") for _ in range(20)), return_exceptions=True)
    refusals = [verdict.reason for verdict in verdicts if isinstance(verdict, DomainError)]
    assert refusals == ["HOLD_EXISTS"] * 19
    assert await house.balance(member) == (0, 0, 120, 0)
    assert await house.audit() == {}


async def test_a_member_written_in_two_ways_is_one_member(house: House) -> None:
    """An id may come in capitals; grants to both spellings in one batch both count."""
    servicer = PointsServicer(desk=house.points, clock=house.clock)
    member = new_id()
    await house.grant(member, 5)
    request = points_pb2.BatchAccrueRequest()
    for name, points in ((member, 10), (member.upper(), 20)):
        request.items.add(
            request_id=new_id(), member_id=name, point_currency=CURRENCY, points=points, reason="goodwill"
        )
    reply = await servicer.batch_accrue(request, house.call())
    assert [verdict.accrued.available_points for verdict in reply.verdicts] == [15, 35]
    asked = points_pb2.GetBalanceRequest(member_id=member.upper(), point_currency=CURRENCY)
    assert (await servicer.get_balance(asked, house.call())).available_points == 35
    assert await house.audit() == {}


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), id="the first year"),
        pytest.param(datetime(2000, 1, 1, tzinfo=UTC) - timedelta(microseconds=1), id="before the year 2000"),
    ],
)
async def test_a_time_that_no_calendar_has_is_refused_and_fails_no_neighbour(house: House, at: datetime) -> None:
    """West of Greenwich the first day of the first year has no local day."""
    servicer = PointsServicer(desk=house.points, clock=house.clock)
    call = house.call(time_zone="America/New_York")
    member = new_id()
    told, refused = await house.points.accrue_many(call, [grant(member, 5), grant(member, 7, occurred_at=at)])
    assert not isinstance(told, DomainError)
    assert isinstance(refused, Invalid)
    assert await house.balance(member) == (5, 0, 0, 0)
    quote = points_pb2.QuotePointsRequest(member_id=member, point_currency=CURRENCY)
    quote.lines.add(line_id="1", quantity=1, accrual_base_minor=1_000)
    for moment in (at, datetime(9999, 12, 31, tzinfo=UTC)):
        quote.occurred_at.FromDatetime(moment)
        with pytest.raises(Invalid):
            await servicer.quote_points(quote, call)


async def test_a_hold_is_not_issued_in_the_future(house: House) -> None:
    """One from the year 2199 would never be too old, and pass once its void is forgotten."""
    await house.grant(member := new_id(), 100)
    servicer = PointsServicer(desk=house.points, clock=house.clock)

    async def held(ahead: timedelta) -> int:
        request = points_pb2.HoldPointsRequest(
            request_id=new_id(), hold_id=new_id(), member_id=member, point_currency=CURRENCY, points=10
        )
        request.issued_at.FromDatetime(house.clock.now() + ahead)
        return (await servicer.hold_points(request, house.call())).available_points

    assert await held(timedelta(days=1)) == 90
    with pytest.raises(Invalid) as refused:
        await held(timedelta(days=1, seconds=1))
    assert [field for field, _ in refused.value.violations] == ["issued_at"]


async def test_a_refusal_is_told_again(house: House) -> None:
    """A delayed duplicate can't succeed after the caller was told no."""
    member = new_id()
    for _ in range(2):
        with pytest.raises(DomainError) as refused:
            await house.hold(member, 60, "h1", request_id="r1")
        assert (refused.value.reason, refused.value.metadata) == ("INSUFFICIENT_POINTS", {"available_points": "0"})
        await house.grant(member, 100)
    house.clock.advance(timedelta(days=2000))
    await house.sweeper.forget()
    held = await house.hold(member, 60, "h1", request_id="r1")
    assert held.available_points == 140


async def test_a_void_before_its_hold_leaves_a_tombstone(house: House) -> None:
    """The late hold is refused; so is one that was issued before tombstones were dropped."""
    member = new_id()
    await house.grant(member, 100)
    assert (await house.resolve("h1", is_capture=False)).state is HoldState.TOMBSTONE
    with pytest.raises(DomainError) as refused:
        await house.hold(member, 60, "h1")
    assert refused.value.reason == "HOLD_VOIDED"
    with pytest.raises(DomainError) as refused:
        await house.hold(member, 60, "h2", is_too_old=True)
    assert refused.value.reason == "HOLD_TOO_OLD"
    with pytest.raises(DomainError) as refused:
        await house.resolve("h3")
    assert refused.value.reason == "HOLD_NOT_FOUND"


async def test_a_hold_expires_by_itself(house: House) -> None:
    """Swept or not, a hold past its time to live is no more."""
    member = new_id()
    await house.grant(member, 100)
    await house.hold(member, 60, "swept")
    await house.hold(member, 20, "late")
    house.clock.advance(timedelta(hours=1))
    with pytest.raises(DomainError) as refused:
        await house.resolve("late")
    assert refused.value.reason == "HOLD_EXPIRED"
    assert await house.balance(member) == (40, 0, 60, 0)
    assert "loyalty.no_hold_is_overdue" in await house.audit()
    assert await house.sweeper.sweep() == 1
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


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


async def test_two_lanes_never_overdraw(house: House) -> None:
    """100 parallel holds on points for 10 give exactly 10."""
    member = new_id()
    await house.grant(member, 100)
    results = await asyncio.gather(*(house.hold(member, 10) for _ in range(100)), return_exceptions=True)
    assert sum(not isinstance(result, DomainError) for result in results) == 10
    assert await house.balance(member) == (0, 0, 100, 0)
    assert await house.audit() == {}
