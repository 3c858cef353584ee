"""One brand's absurd rules and sales: they are posted, cut where no number would hold them, and stop nobody."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from services.loyalty.consumer import AccrualQueue
from services.loyalty.domain.accrual import MAX_COLLECTED_POINTS, MAX_EARNED_POINTS, Line
from services.loyalty.domain.points import Accrued, BalanceTooLarge
from services.loyalty.domain.programme import EarnRule
from services.loyalty.domain.requests import QuoteAsked
from services.loyalty.servicer.points import PointsServicer
from services.loyalty.servicer.tiers import TierServicer
from services.runtime import pages
from services.runtime.call import Call
from services.runtime.database import Connection, raw
from services.runtime.errors import Invalid
from services.runtime.events import Event, reason_of
from services.runtime.ids import new_id
from siyu.commerce.v1 import events_pb2
from siyu.loyalty.v1 import points_pb2, programme_pb2
from tests.store.loyalty.conftest import CURRENCY, PROGRAMME, House, grant

ABSURD = replace(
    PROGRAMME, earn_rules=(EarnRule(rule_id="r", points=Decimal(999_999_999), per_minor=1, expiry_class="year"),)
)
"""A rule as it could be published before there was a bound."""


def paid(house: House, member_id: str, base_minor: int, *, burnt_offline: int = 0) -> Event:
    """The event of a paid order of one line."""
    order = events_pb2.OrderPaid(
        order_id=new_id(),
        member_id=member_id,
        point_currency=CURRENCY,
        store_id="s1",
        channel="pos",
        offline_burnt_points=burnt_offline,
        lines=[events_pb2.PaidLine(line_id="1", sku="tea", quantity=1, accrual_base_minor=base_minor)],
    )
    order.occurred_at.FromDatetime(house.now)
    return Event(
        id=new_id(),
        type="commerce.OrderPaid",
        tenant_id=house.tenant_id,
        aggregate_type="order",
        aggregate_id=order.order_id,
        version=1,
        occurred_at=house.now,
        posted_at=datetime.now(UTC),
        payload=order.SerializeToString(),
        trace="",
    )


async def handle(house: House, *events: Event) -> None:
    """What the accrual queue does with one tenant's events of a partition."""
    call: Call = house.call(client_id="loyalty.accrual")
    queue = AccrualQueue(posting=house.posting)
    await house.database.run(house.tenant_id, lambda connection: queue.handle(connection, events, call))


@pytest.mark.parametrize("burnt_offline", [pytest.param(0, id="on-line"), pytest.param(5, id="off-line")])
async def test_an_absurd_order_does_not_stop_the_next_brand(house: House, burnt_offline: int) -> None:
    """The poison of one tenant is posted, and the order of another behind it in the partition as well."""
    await house.publish(ABSURD)
    rich = new_id()
    for _ in range(12):
        await handle(house, paid(house, rich, 10**12, burnt_offline=burnt_offline))
    assert (await house.balance(rich))[0] == MAX_COLLECTED_POINTS - 12 * burnt_offline
    assert await house.audit() == {}

    poor = new_id()
    next_brand = replace(house, tenant_id=new_id(), now=house.now)
    await next_brand.advance()
    await next_brand.publish()
    await handle(next_brand, paid(next_brand, poor, 4_300))
    assert (await next_brand.balance(poor))[0] == 43


async def test_an_absurd_order_earns_the_most_and_says_so(house: House) -> None:
    await house.publish(ABSURD)
    member = new_id()
    order = await house.pay(member, 10**12)
    assert (await house.balance(member))[0] == MAX_EARNED_POINTS
    await house.refund(order, ("0", 1, 0))
    assert await house.balance(member) == (0, 0, 0, 0)
    asked = QuoteAsked(
        member_id=member,
        point_currency=CURRENCY,
        occurred_at=None,
        lines=tuple(Line(line_id=str(i), category="", quantity=1, base_minor=10**12) for i in range(200)),
    )
    (quoted,), _ = await house.points.quote(house.call(), asked)
    assert quoted.points == MAX_EARNED_POINTS
    assert "at most" in quoted.why
    assert await house.audit() == {}


async def test_who_has_more_than_can_be_counted_earns_no_more(house: House) -> None:
    """An account of before the bounds is near the end of 64 bits: its next order is posted without points."""
    member = new_id()
    await house.grant(member, 9 * 10**18)
    await house.publish(ABSURD)
    order = await house.pay(member, 10**12)
    assert (await house.balance(member))[0] == 9 * 10**18
    assert [told[0] for told in await house.posted(order.order_id)] == [0]


@pytest.mark.parametrize("repeats", [pytest.param(1, id="posted at once"), pytest.param(2, id="posted after a look")])
async def test_a_grant_that_no_balance_can_hold_is_refused_and_fails_no_neighbour(house: House, repeats: int) -> None:
    """Whether it comes in a bundle or alone."""
    rich, others = new_id(), [new_id() for _ in range(5)]
    await house.grant(rich, 9 * 10**18)
    bundle = [grant(member, 5) for member in (*others[:2], rich, *others[2:]) for _ in range(repeats)]
    bundle[2 * repeats] = grant(rich, 9 * 10**18)
    verdicts = await house.grant_all(bundle)
    singly = await asyncio.gather(
        *(house.points.accrue(house.call(), replace(ask, request_ids=[new_id()])) for ask in bundle),
        return_exceptions=True,
    )
    for told in (verdicts, singly):
        refused = told[2 * repeats]
        assert isinstance(refused, Invalid)
        assert (refused.reason, refused.violations[0][0]) == ("BALANCE_TOO_LARGE", "points")
        assert [said for said in told if not isinstance(said, Accrued)] == [refused]
    assert [(await house.balance(member))[0] for member in others] == [10 * repeats] * 5
    assert (await house.balance(rich))[0] == 9 * 10**18 + 10 * (repeats - 1)
    assert await house.audit() == {}


async def test_a_merge_that_no_balance_can_hold_says_so_and_is_made_when_one_can(house: House) -> None:
    """It waits on its tenant's shelf by its reason: nothing is lost, and nothing is cut that somebody has."""
    survivor, alias = sorted([new_id(), new_id()])
    for member in (survivor, alias):
        await house.grant(member, 5 * 10**18)
    with pytest.raises(BalanceTooLarge) as refused:
        await house.merge(survivor, alias)
    assert reason_of(refused.value) == "BALANCE_TOO_LARGE"
    assert [(await house.balance(member))[0] for member in (survivor, alias)] == [5 * 10**18] * 2
    await house.hold(survivor, 10**18, "sale")
    await house.resolve("sale")
    await house.merge(survivor, alias)
    assert (await house.balance(survivor))[0] == 9 * 10**18
    assert await house.audit() == {}


async def test_totals_of_a_day_end_where_numbers_do(house: House) -> None:
    """Counters for tiers are cut at 9e18, and at zero when all of it is refunded."""
    member = new_id()
    first = await house.pay(member, 10**15)
    await _run(house, "UPDATE tier_days SET amount_minor = 9000000000000000000 WHERE tenant_id = $1::uuid")
    second = await house.pay(member, 10**15)
    await _run(house, "UPDATE tier_days SET amount_minor = 1 WHERE tenant_id = $1::uuid")
    await house.refund(first, ("0", 1, 0))
    await house.refund(second, ("0", 1, 0))


async def test_an_audit_of_totals_beyond_64_bits_answers(house: House) -> None:
    """Two members with 8e18 points: the sums are told as the most that can be told, and the checks still hold."""
    members = [new_id(), new_id()]
    for member in members:
        await house.grant(member, 8 * 10**18)
    assert await house.audit() == {}
    assert (await house.figures())["points_available"] == 2**63 - 1


async def _run(house: House, statement: str, *arguments: int) -> None:
    async def work(connection: Connection) -> None:
        await raw(connection).execute(statement, house.tenant_id, *arguments)

    await house.system.run(house.tenant_id, work)


@pytest.mark.parametrize("key", ["0/1", f"{2**63}/{new_id()}", f"-1/{new_id()}", "1"])
async def test_a_place_in_the_history_that_we_never_told_is_refused(house: House, key: str) -> None:
    servicer = PointsServicer(desk=house.points, clock=house.clock)
    request = points_pb2.ListEntriesRequest(
        member_id=new_id(), point_currency=CURRENCY, page_token=pages.token_after(key)
    )
    with pytest.raises(Invalid, match="token"):
        await servicer.list_entries(request, house.call())


async def test_a_change_of_tier_that_no_number_names_is_refused(house: House) -> None:
    servicer = TierServicer(desk=house.tiers)
    request = programme_pb2.ListTierChangesRequest(
        member_id=new_id(), point_currency=CURRENCY, page_token=pages.token_after(str(2**63))
    )
    with pytest.raises(Invalid, match="token"):
        await servicer.list_tier_changes(request, house.call())
