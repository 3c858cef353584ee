"""Off-line sales: facts, recorded exactly once; what differs is an exception."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.runtime.call import ActorKind
from services.runtime.errors import AlreadyExists, Conflict, Invalid, Missing, Refused, Unavailable
from services.runtime.ids import MemberId, new_id
from siyu.commerce.v1 import order_pb2
from tests.store.commerce.conftest import CARD, NOON, Brand, cash, line

SOLD_AT = NOON - timedelta(hours=5)


def offline(brand: Brand, basket: order_pb2.Basket, charged: list[int], **sale: object) -> order_pb2.OfflineSale:
    payment = cash()
    return order_pb2.OfflineSale(
        request_id=new_id(),
        sale=brand.sale(basket, payment, at=SOLD_AT, **sale),  # type: ignore[arg-type]
        charged_minor=charged,
    )


async def replay(brand: Brand, *sales: order_pb2.OfflineSale, store: str = "S1") -> list[order_pb2.OfflineVerdict]:
    request = order_pb2.ReplayOfflineSalesRequest(store_id=store, sales=sales)
    return list((await brand.pos.replay_offline_sales(request, brand.call(store=store))).verdicts)


async def test_a_sale_as_priced_has_no_exception(brand: Brand) -> None:
    brand.peers.offers.member_prices["TEA"] = 100
    sale = offline(brand, brand.basket(line("1", "TEA", 2, 1000)), [800])
    (verdict,) = await replay(brand, sale)
    assert (verdict.order.net_minor, verdict.duplicate, list(verdict.exceptions)) == (800, False, [])
    assert verdict.order.lines[0].discounts[0].source_id == "member-price"
    assert verdict.order.occurred_at.ToDatetime() == SOLD_AT.replace(tzinfo=None)
    ((_, paid),) = await brand.events()
    assert paid.offline
    await brand.audited()


async def test_a_sale_sent_twice_is_recorded_once(brand: Brand) -> None:
    sale = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500], number="77")
    first, again = await asyncio.gather(replay(brand, sale), replay(brand, sale))
    assert sorted(verdict.duplicate for (verdict,) in (first, again)) in ([False, True], [False, False])
    assert first[0].order.order_id == again[0].order.order_id
    (third,) = await replay(brand, sale)
    assert third.duplicate
    other_request = order_pb2.OfflineSale(request_id=new_id(), sale=sale.sale, charged_minor=[500])
    (fourth,) = await replay(brand, other_request)
    assert (fourth.duplicate, fourth.order.order_id) == (True, third.order.order_id)
    assert await brand.on_hand("TEA") == (9, 0)
    assert len(await brand.events()) == 1
    (reused,) = await replay(brand, offline(brand, brand.basket(line("1", "CUP", 1, 1)), [1], number="77"))
    assert reused.refusal_reason == "SALE_NUMBER_REUSED"
    await brand.audited()


async def test_a_sale_that_was_made_on_line_first_is_a_duplicate(brand: Brand) -> None:
    basket = brand.basket(line("1", "TEA", 1, 500))
    sold = await brand.sell(brand.sale(basket, number="5"))
    (verdict,) = await replay(brand, offline(brand, basket, [450], number="5"))
    assert (verdict.duplicate, verdict.order.order_id, verdict.order.net_minor) == (True, sold.order.order_id, 500)


async def test_an_off_line_sale_that_comes_on_line_again_is_its_customers(brand: Brand) -> None:
    """Prices are the till's own off-line; who bought is not."""
    brand.peers.members.cards["9002"] = MemberId(new_id())
    basket = brand.basket(line("1", "TEA", 1, 500))
    (verdict,) = await replay(brand, offline(brand, basket, [450], number="8"))
    again = brand.basket(line("1", "TEA", 1, 480))
    assert (await brand.sell(brand.sale(again, number="8"))).order.order_id == verdict.order.order_id
    again.identifier.value = "9002"
    with pytest.raises(AlreadyExists) as refused:
        await brand.sell(brand.sale(again, number="8"))
    assert refused.value.reason == "SALE_NUMBER_REUSED"


@pytest.mark.parametrize("sku", ["TEA", "CUP"], ids=["the same goods", "other goods"])
async def test_an_on_line_attempt_that_died_gives_way_to_the_fact(brand: Brand, sku: str) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.link.lose.append("points.hold")
    basket = brand.basket(line("1", "TEA", 1, 500), burn=100)
    with pytest.raises(Unavailable):
        await brand.sell(brand.sale(basket, number="6"))
    before, _ = await brand.on_hand(sku)
    sold = brand.basket(line("1", sku, 1, 500), burn=100)
    (verdict,) = await replay(brand, offline(brand, sold, [500], number="6"))
    assert verdict.refusal_reason == ""
    assert (verdict.duplicate, verdict.order.state) == (False, order_pb2.ORDER_STATE_PAID)
    assert await brand.on_hand(sku) == (before - 1, 0)
    assert (await brand.on_hand("TEA"))[1] == 0
    await brand.resume()
    await brand.audited()


async def test_every_difference_is_told(brand: Brand) -> None:
    brand.peers.offers.member_prices["TEA"] = 100
    brand.peers.offers.coupons["C1"] = (new_id(), 50)
    brand.peers.offers.used["C1"] = "another order"
    brand.peers.points.balances[brand.member_id] = 60
    basket = brand.basket(
        line("1", "TEA", 12, 6000), line("2", "CUP", 1, 300), line("3", "NEW", 1, 200), burn=100, codes=["C1"]
    )
    (verdict,) = await replay(brand, offline(brand, basket, [6000, 250, 200]))
    found = {(each.reason, each.line_id): each.difference for each in verdict.exceptions}
    assert found == {
        ("PRICE_DIFFERS", "1"): 1200,
        ("PRICE_DIFFERS", "2"): -50,
        ("COUPON_EXCESS", ""): 50,
        ("POINTS_SHORTFALL", ""): 40,
        ("STOCK_SHORTFALL", "1"): 2,
        ("PRODUCT_UNKNOWN", "3"): 1,
    }
    assert await brand.on_hand("TEA") == (-2, 0)
    assert verdict.order.net_minor == 6450
    ((_, paid),) = await brand.events()
    assert (paid.offline_burnt_points, paid.points_hold_id, paid.points_tender_minor) == (100, "", 100)
    listed = await brand.pos.list_exceptions(order_pb2.ListExceptionsRequest(store_id="S1"), brand.call())
    assert len(listed.exceptions) == 6
    figures = (await brand.audited()).figures
    assert figures["commerce.stock_shortfall"] == 2
    # goods that come in later fill the shortfall first
    await brand.receive({"TEA": 5})
    assert (await brand.audited()).figures["commerce.stock_shortfall"] == 0


async def test_a_shortfall_stands_beside_the_reservations(brand: Brand) -> None:
    order = (await brand.place(brand.basket(line("1", "CUP", 4, 400)))).order
    (verdict,) = await replay(brand, offline(brand, brand.basket(line("1", "CUP", 3, 300)), [300]))
    assert [(each.reason, each.difference) for each in verdict.exceptions] == [("STOCK_SHORTFALL", 2)]
    assert await brand.on_hand("CUP") == (2, 4)
    # what was promised is still sold
    await brand.pay(order.order_id)
    assert await brand.on_hand("CUP") == (-2, 0)
    await brand.audited()


async def test_an_unknown_member_is_a_sale_all_the_same(brand: Brand) -> None:
    brand.peers.members.cards.pop(CARD)
    (verdict,) = await replay(brand, offline(brand, brand.basket(line("1", "TEA", 1, 500), burn=100), [500]))
    assert [each.reason for each in verdict.exceptions] == ["MEMBER_UNKNOWN", "POINTS_SHORTFALL"]
    assert (verdict.order.member_id, verdict.order.burnt_points) == ("", 0)
    assert sum(payment.amount_minor for payment in verdict.order.payments) == 500
    await brand.audited()


async def test_a_coupon_that_is_free_is_a_use(brand: Brand) -> None:
    coupon_id = new_id()
    brand.peers.offers.coupons["C1"] = (coupon_id, 50)
    (verdict,) = await replay(brand, offline(brand, brand.basket(line("1", "TEA", 1, 500), codes=["C1"]), [450]))
    assert list(verdict.exceptions) == []
    assert verdict.order.lines[0].discounts[0].coupon_id == coupon_id
    assert brand.peers.offers.holds.states == {}


async def test_one_bad_sale_does_not_fail_its_neighbours(brand: Brand) -> None:
    good = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500])
    too_few = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [])
    too_much = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [501])
    no_time = order_pb2.OfflineSale(
        request_id=new_id(), sale=brand.sale(brand.basket(line("1", "TEA", 1, 500))), charged_minor=[500]
    )
    other_store = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500])
    other_store.sale.basket.store_id = "S2"
    unpaid = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500])
    del unpaid.sale.payments[:]
    unpaid.sale.payments.append(cash(400))
    verdicts = await replay(brand, too_few, too_much, no_time, other_store, unpaid, good)
    assert [verdict.refusal_reason for verdict in verdicts] == [
        "INVALID_FIELD",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "OUT_OF_SCOPE",
        "INVALID_FIELD",
        "",
    ]
    assert [verdict.refusal_message.partition(": ")[0] for verdict in verdicts if verdict.refusal_reason] == [
        "charged_minor",
        "charged_minor[0]",
        "sale.occurred_at",
        "sale.basket.store_id",
        "sale.payments",
    ]
    assert await brand.on_hand("TEA") == (9, 0)
    await brand.audited()


@pytest.mark.parametrize("year", [1, 1969, 1999])
async def test_a_till_whose_clock_is_at_its_start_keeps_nobody_waiting(brand: Brand, year: int) -> None:
    before, after = (offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500]) for _ in range(2))
    long_ago = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500])
    long_ago.sale.occurred_at.FromDatetime(datetime(year, 12, 31, tzinfo=UTC))
    verdicts = await replay(brand, before, long_ago, after)
    assert [verdict.refusal_reason for verdict in verdicts] == ["", "OCCURRED_OUT_OF_RANGE", ""]
    assert await brand.on_hand("TEA") == (8, 0)
    with pytest.raises(Invalid) as refused:
        await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 500)), at=datetime(year, 12, 31, tzinfo=UTC)))
    assert (refused.value.reason, refused.value.violations[0][0]) == ("OCCURRED_OUT_OF_RANGE", "sale.occurred_at")
    await brand.audited()


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        pytest.param(NOON - timedelta(days=3000), "", id="years ago"),
        pytest.param(NOON + timedelta(days=1), "", id="a day ahead"),
        pytest.param(NOON + timedelta(days=1, microseconds=1), "OCCURRED_OUT_OF_RANGE", id="more than a day ahead"),
    ],
)
async def test_a_fact_has_bounds_of_its_own(brand: Brand, at: datetime, reason: str) -> None:
    """It may be told weeks later, and the clock of a till without a link is nobody's to set."""
    sale = offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500])
    sale.sale.occurred_at.FromDatetime(at)
    (verdict,) = await replay(brand, sale)
    assert verdict.refusal_reason == reason
    await brand.audited()


async def test_a_sale_in_another_currency_is_refused_by_itself(brand: Brand) -> None:
    """Prices, budgets, points and statements are in the brand's; 100 yen are not 1.00 yuan."""
    own, other = (offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500]) for _ in range(2))
    own.sale.basket.currency_code, other.sale.basket.currency_code = "CNY", "JPY"
    verdicts = await replay(brand, other, own)
    assert [verdict.refusal_reason for verdict in verdicts] == ["CURRENCY_DIFFERS", ""]
    assert verdicts[0].refusal_message.startswith("sale.basket.currency_code: ")
    assert await brand.on_hand("TEA") == (9, 0)
    await brand.audited()


async def test_another_member_of_the_brand_has_sales_of_its_own(brand: Brand) -> None:
    brand.peers.members.cards[CARD] = MemberId(new_id())
    (verdict,) = await replay(brand, offline(brand, brand.basket(line("1", "TEA", 1, 500)), [500]))
    assert verdict.order.member_id == brand.peers.members.cards[CARD]


# --- what becomes of exceptions ---


async def resolve(brand: Brand, exception_id: str, note: str, **call: Any) -> order_pb2.SaleException:
    request = order_pb2.ResolveExceptionRequest(request_id=new_id(), exception_id=exception_id, note=note)
    caller = brand.call(**{"client": "manager", "kind": ActorKind.STAFF, **call})
    return (await brand.pos.resolve_exception(request, caller)).exception


async def listed(brand: Brand, state: order_pb2.ExceptionState.ValueType) -> list[order_pb2.SaleException]:
    request = order_pb2.ListExceptionsRequest(store_id="S1", state=state, page_size=1)
    found: list[order_pb2.SaleException] = []
    while True:
        reply = await brand.pos.list_exceptions(request, brand.call())
        found += reply.exceptions
        request.page_token = reply.next_page_token
        if not reply.next_page_token:
            return found


async def test_an_exception_is_resolved_once(brand: Brand) -> None:
    goods = brand.basket(line("1", "TEA", 1, 500), line("2", "CUP", 1, 300))
    (verdict,) = await replay(brand, offline(brand, goods, [450, 250]))
    first, second = verdict.exceptions
    resolved = await resolve(brand, first.exception_id, "the label was old")
    assert (resolved.resolution_note, resolved.resolved_by) == ("the label was old", "manager")
    assert resolved.resolved_at.ToDatetime(UTC) == brand.clock.now()
    with pytest.raises(Refused) as again:
        await resolve(brand, first.exception_id, "again")
    assert (again.value.reason, again.value.metadata) == ("EXCEPTION_RESOLVED", {"resolved_by": "manager"})
    for state in (order_pb2.EXCEPTION_STATE_UNSPECIFIED, order_pb2.EXCEPTION_STATE_OPEN):
        assert [each.exception_id for each in await listed(brand, state)] == [second.exception_id]
    assert await listed(brand, order_pb2.EXCEPTION_STATE_RESOLVED) == [resolved]
    figures = (await brand.audited()).figures
    assert (figures["commerce.exceptions"], figures["commerce.exceptions_resolved"]) == (2, 1)


async def test_another_stores_exception_is_unknown(brand: Brand) -> None:
    (verdict,) = await replay(brand, offline(brand, brand.basket(line("1", "TEA", 1, 500)), [450]))
    for exception_id, store in ((verdict.exceptions[0].exception_id, "S2"), (new_id(), "S1")):
        with pytest.raises(Missing) as refused:
            await resolve(brand, exception_id, "mine", store=store)
        assert refused.value.reason == "EXCEPTION_NOT_FOUND"
    # head office is bound to no store
    await resolve(brand, verdict.exceptions[0].exception_id, "ours", store="", kind=ActorKind.BACKEND)


async def test_of_two_who_resolve_at_once_one_does(brand: Brand) -> None:
    (verdict,) = await replay(brand, offline(brand, brand.basket(line("1", "TEA", 1, 500)), [450]))
    exception_id = verdict.exceptions[0].exception_id
    found = await asyncio.gather(
        *(resolve(brand, exception_id, f"note {at}", client=f"manager-{at}") for at in range(4)), return_exceptions=True
    )
    (kept,) = [each for each in found if isinstance(each, order_pb2.SaleException)]
    assert all(isinstance(each, Refused | Conflict) for each in found if each is not kept)
    assert await listed(brand, order_pb2.EXCEPTION_STATE_RESOLVED) == [kept]
    await brand.audited()
