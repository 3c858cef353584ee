"""Supplier orders and the split: what a supplier does not ship is refunded, and every share is reversed exactly."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from services.runtime.call import Call
from services.runtime.errors import Invalid, Missing, NotAllowed, Refused
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2, supplier_pb2
from tests.store.commerce.conftest import NOON, Brand, card, cash, hours, line, publish_split, stamp, with_supplier

STATES = supplier_pb2.SupplierOrderState
FULFILLING, FULFILLED = order_pb2.ORDER_STATE_FULFILLING, order_pb2.ORDER_STATE_FULFILLED
CLOSED = order_pb2.ORDER_STATE_CLOSED


async def asked(brand: Brand, *lines: order_pb2.BasketLine, guide: str = "") -> tuple[str, supplier_pb2.SupplierOrder]:
    """A paid order whose supplier was asked."""
    goods = lines or (line("1", "ROSE", 3, 1000), line("2", "TULIP", 2, 501), line("3", "TEA", 1, 300))
    order = (await brand.sell(brand.sale(brand.basket(*goods, guide=guide)))).order
    await brand.fulfil()
    supplier_order = next(each for each in await brand.supplier_orders() if each.order_id == order.order_id)
    return order.order_id, supplier_order


async def accept(
    brand: Brand, order: supplier_pb2.SupplierOrder, units: dict[str, int], call: Call | None = None
) -> supplier_pb2.SupplierOrder:
    request = supplier_pb2.AcceptSupplierOrderRequest(
        request_id=new_id(),
        supplier_order_id=order.supplier_order_id,
        lines=[supplier_pb2.SupplierUnits(line_id=line_id, quantity=count) for line_id, count in units.items()],
    )
    return (await brand.suppliers.accept_supplier_order(request, call or brand.supplier_call())).supplier_order


async def reject(
    brand: Brand, order: supplier_pb2.SupplierOrder, call: Call | None = None
) -> supplier_pb2.SupplierOrder:
    request = supplier_pb2.RejectSupplierOrderRequest(
        request_id=new_id(), supplier_order_id=order.supplier_order_id, reason="sold out"
    )
    return (await brand.suppliers.reject_supplier_order(request, call or brand.supplier_call())).supplier_order


async def ship(
    brand: Brand, order: supplier_pb2.SupplierOrder, units: dict[str, int], call: Call | None = None
) -> supplier_pb2.SupplierOrder:
    request = supplier_pb2.ShipParcelRequest(
        request_id=new_id(),
        supplier_order_id=order.supplier_order_id,
        lines=[supplier_pb2.SupplierUnits(line_id=line_id, quantity=count) for line_id, count in units.items()],
        carrier="post",
    )
    return (await brand.suppliers.ship_parcel(request, call or brand.supplier_call())).supplier_order


async def deliver(
    brand: Brand, order: supplier_pb2.SupplierOrder, parcel_no: int, *, call: Call | None = None, **more: Any
) -> supplier_pb2.SupplierOrder:
    request = supplier_pb2.DeliverParcelRequest(
        request_id=new_id(), supplier_order_id=order.supplier_order_id, parcel_no=parcel_no, **more
    )
    return (await brand.suppliers.deliver_parcel(request, call or brand.supplier_call())).supplier_order


async def statement(brand: Brand, party: int, party_id: str, **days: str) -> supplier_pb2.GetStatementResponse:
    request = supplier_pb2.GetStatementRequest(party_kind=party, party_id=party_id, **days)
    return await brand.settlement.get_statement(request, brand.office())


async def test_a_paid_supplier_line_is_asked_for_and_not_taken_from_stock(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    assert supplier_order.state == STATES.SUPPLIER_ORDER_STATE_REQUESTED
    assert supplier_order.accept_by.ToDatetime() == (NOON + hours(24)).replace(tzinfo=None)
    assert [(each.line_id, each.quantity) for each in supplier_order.lines] == [("1", 3), ("2", 2)]
    assert (await brand.order(order_id)).state == FULFILLING
    assert await brand.on_hand("TEA") == (9, 0)
    await brand.fulfil()
    assert (await brand.supplier_orders())[0].version == supplier_order.version
    await brand.audited()


async def test_accepted_shipped_parcel_by_parcel_fulfilled(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    with pytest.raises(Refused) as too_early:
        await ship(brand, supplier_order, {})
    assert too_early.value.reason == "SUPPLIER_ORDER_NOT_ACCEPTED"
    assert (await accept(brand, supplier_order, {})).state == STATES.SUPPLIER_ORDER_STATE_ACCEPTED
    with pytest.raises(Refused) as too_many:
        await ship(brand, supplier_order, {"1": 4})
    assert too_many.value.reason == "TOO_MANY_UNITS"
    assert (await ship(brand, supplier_order, {"1": 2})).state == STATES.SUPPLIER_ORDER_STATE_ACCEPTED
    shipped = await ship(brand, supplier_order, {})
    assert shipped.state == STATES.SUPPLIER_ORDER_STATE_SHIPPED
    assert (await brand.order(order_id)).state == FULFILLING
    await brand.audited()
    for parcel, state in zip(
        shipped.parcels, (STATES.SUPPLIER_ORDER_STATE_SHIPPED, STATES.SUPPLIER_ORDER_STATE_DELIVERED), strict=True
    ):
        assert (await deliver(brand, supplier_order, parcel.parcel_no)).state == state
        await brand.audited()
    assert (await brand.order(order_id)).state == FULFILLED


async def test_a_delivery_is_told_once_and_by_whom_it_concerns(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    await accept(brand, supplier_order, {})
    (parcel,) = (await ship(brand, supplier_order, {})).parcels
    await brand.move_clock(NOON + hours(5))
    with pytest.raises(Missing) as unknown:
        await deliver(brand, supplier_order, 77)
    assert unknown.value.reason == "PARCEL_NOT_FOUND"
    with pytest.raises(Missing) as stranger:
        await deliver(brand, supplier_order, parcel.parcel_no, call=brand.supplier_call("butcher"))
    assert stranger.value.reason == "SUPPLIER_ORDER_NOT_FOUND"
    for at in (NOON - hours(1), NOON + hours(6)):
        with pytest.raises(Invalid):
            await deliver(brand, supplier_order, parcel.parcel_no, delivered_at=stamp(at))
    # the carrier tells the brand's backend, and the supplier says it again
    first = await deliver(
        brand, supplier_order, parcel.parcel_no, call=brand.office(), delivered_at=stamp(NOON + hours(3))
    )
    assert first.state == STATES.SUPPLIER_ORDER_STATE_DELIVERED
    assert first.parcels[0].delivered_at == stamp(NOON + hours(3))
    assert await deliver(brand, supplier_order, parcel.parcel_no) == first
    assert (await brand.order(order_id)).state == FULFILLED
    # a delivered parcel may still come back
    await brand.refund(order_id, {"1": 1})
    assert (await brand.supplier_orders())[0] == first
    await brand.audited()


async def test_two_tell_of_one_parcel_at_once(brand: Brand) -> None:
    await with_supplier(brand)
    _, supplier_order = await asked(brand)
    await accept(brand, supplier_order, {})
    (parcel,) = (await ship(brand, supplier_order, {})).parcels
    told = await asyncio.gather(*(deliver(brand, supplier_order, parcel.parcel_no) for _ in range(4)))
    assert all(each == told[0] for each in told)
    await brand.audited()


async def test_what_nobody_tells_counts_as_delivered_in_business_time(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    await accept(brand, supplier_order, {})
    await ship(brand, supplier_order, {})
    # the return window is over long before: an order that is under way does not close
    await brand.move_clock(NOON + timedelta(days=9))
    assert ((await brand.sweep()).delivered, (await brand.order(order_id)).state) == (0, FULFILLING)
    await brand.move_clock(NOON + timedelta(days=10))
    assert (await brand.sweep()).delivered == 1
    (after,) = await brand.supplier_orders()
    assert (after.state, after.parcels[0].delivered_at) == (
        STATES.SUPPLIER_ORDER_STATE_DELIVERED,
        stamp(NOON + timedelta(days=10)),
    )
    await brand.move_clock(NOON + timedelta(days=40))
    await brand.sweep()
    assert (await brand.order(order_id)).state == CLOSED
    await brand.audited()


async def exceptions_of(brand: Brand) -> list[order_pb2.SaleException]:
    listed = await brand.pos.list_exceptions(order_pb2.ListExceptionsRequest(), brand.office())
    return list(listed.exceptions)


async def test_what_is_accepted_and_not_shipped_in_time_is_told_once(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    accepted = await accept(brand, supplier_order, {})
    assert accepted.ship_by == stamp(NOON + timedelta(days=7))
    # a part is on its way: the rest is waited for all the same
    await ship(brand, supplier_order, {"1": 2})
    await brand.move_clock(NOON + timedelta(days=7) - timedelta(seconds=1))
    assert ((await brand.sweep()).unshipped, await exceptions_of(brand)) == (0, [])
    await brand.move_clock(NOON + timedelta(days=7))
    swept = await asyncio.gather(brand.sweep(), brand.sweep())
    assert sum(each.unshipped for each in swept) == 1
    assert (await brand.sweep()).unshipped == 0
    (told,) = await exceptions_of(brand)
    assert (told.reason, told.order_id, told.line_id, told.difference) == ("NOT_SHIPPED", order_id, "", -3)
    assert supplier_order.supplier_order_id in told.detail
    await brand.move_clock(NOON + timedelta(days=30))
    await brand.audited()
    # it is neither refunded nor given up: it can still be shipped
    shipped = await ship(brand, supplier_order, {})
    for parcel in shipped.parcels:
        await deliver(brand, supplier_order, parcel.parcel_no)
    assert (await brand.order(order_id)).state == FULFILLED
    await brand.audited()


async def test_a_supplier_has_its_own_time_to_ship(brand: Brand) -> None:
    await with_supplier(brand)
    slow = supplier_pb2.Supplier(supplier_id="florist", display_name="Florist", ship_within_s=30 * 86_400)
    put = supplier_pb2.PutSupplierRequest(request_id=new_id(), supplier=slow)
    assert (await brand.suppliers.put_supplier(put, brand.office())).supplier.ship_within_s == 30 * 86_400
    order_id, supplier_order = await asked(brand)
    await accept(brand, supplier_order, {"1": 2})
    await brand.move_clock(NOON + timedelta(days=29))
    assert (await brand.sweep()).unshipped == 0
    await brand.audited()
    # refunded before its time: nothing is left to tell
    await brand.refund(order_id, {"1": 2})
    await brand.move_clock(NOON + timedelta(days=31))
    assert ((await brand.sweep()).unshipped, await exceptions_of(brand)) == (0, [])
    await brand.audited()


async def test_what_is_not_accepted_is_refunded_at_once(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    with pytest.raises(Invalid) as more:
        await accept(brand, supplier_order, {"1": 9})
    assert more.value.reason == "TOO_MANY_UNITS"
    answered = await accept(brand, supplier_order, {"1": 2})
    assert answered.state == STATES.SUPPLIER_ORDER_STATE_PARTLY_ACCEPTED
    order = await brand.order(order_id)
    # 1000 in three units: 334, 333, 333; one unit goes back, and both tulips
    assert (order.refunded_minor, order.state) == (334 + 501, FULFILLING)
    assert [each.refunded_quantity for each in order.lines] == [1, 2, 0]
    with pytest.raises(Refused) as twice:
        await reject(brand, supplier_order)
    assert twice.value.reason == "SUPPLIER_ORDER_NOT_OPEN"
    (parcel,) = (await ship(brand, supplier_order, {})).parcels
    await deliver(brand, supplier_order, parcel.parcel_no)
    assert (await brand.order(order_id)).state == FULFILLED
    await brand.audited()


async def test_a_rejection_refunds_everything(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    assert (await reject(brand, supplier_order)).state == STATES.SUPPLIER_ORDER_STATE_REJECTED
    order = await brand.order(order_id)
    assert (order.refunded_minor, order.state) == (1501, FULFILLED)
    assert (await statement(brand, supplier_pb2.PARTY_KIND_SUPPLIER, "florist")).sum_minor == 0
    await brand.audited()


async def test_silence_is_a_refund_in_business_time(brand: Brand) -> None:
    await with_supplier(brand, within_s=3600)
    order_id, supplier_order = await asked(brand)
    await brand.move_clock(NOON + timedelta(minutes=59))
    await brand.sweep()
    assert (await brand.supplier_orders())[0].state == STATES.SUPPLIER_ORDER_STATE_REQUESTED
    await brand.move_clock(NOON + timedelta(minutes=60))
    with pytest.raises(Refused) as late:
        await accept(brand, supplier_order, {})
    assert late.value.reason == "SUPPLIER_ORDER_NOT_OPEN"
    assert (await brand.sweep()).timed_out == 1
    assert (await brand.supplier_orders())[0].state == STATES.SUPPLIER_ORDER_STATE_TIMED_OUT
    assert (await brand.order(order_id)).refunded_minor == 1501
    await brand.audited()


async def test_a_customers_refund_reduces_what_is_to_be_shipped(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, supplier_order = await asked(brand)
    await brand.refund(order_id, {"1": 1})
    await accept(brand, supplier_order, {})
    await ship(brand, supplier_order, {"1": 1})
    # one rose is shipped, one is not; both tulips are not
    await brand.refund(order_id, {"1": 1, "2": 2})
    (after,) = await brand.supplier_orders()
    assert after.state == STATES.SUPPLIER_ORDER_STATE_SHIPPED
    assert [(each.shipped_quantity, each.refunded_quantity) for each in after.lines] == [(1, 2), (0, 2)]
    # the parcel is under way, and comes back
    await brand.refund(order_id, {"1": 1})
    assert (await brand.supplier_orders())[0] == after
    await brand.audited()


async def test_a_whole_refund_before_the_supplier_was_asked(brand: Brand) -> None:
    await with_supplier(brand)
    order = (await brand.sell(brand.sale(brand.basket(line("1", "ROSE", 3, 1000))))).order
    await brand.refund(order.order_id, {"1": 3})
    await brand.fulfil()
    (after,) = await brand.supplier_orders()
    assert (after.state, after.HasField("accept_by")) == (STATES.SUPPLIER_ORDER_STATE_CANCELLED, False)
    assert (await brand.order(order.order_id)).state == FULFILLED
    await brand.audited()


async def test_a_supplier_sees_its_own_only(brand: Brand) -> None:
    await with_supplier(brand)
    _, supplier_order = await asked(brand)
    stranger = brand.supplier_call("butcher")
    with pytest.raises(NotAllowed):
        await brand.suppliers.list_supplier_orders(
            supplier_pb2.ListSupplierOrdersRequest(supplier_id="florist"), stranger
        )
    with pytest.raises(Missing) as refused:
        await reject(brand, supplier_order, stranger)
    assert refused.value.reason == "SUPPLIER_ORDER_NOT_FOUND"
    request = supplier_pb2.GetStatementRequest(party_kind=supplier_pb2.PARTY_KIND_SUPPLIER, party_id="florist")
    with pytest.raises(NotAllowed):
        await brand.settlement.get_statement(request, stranger)
    brands = supplier_pb2.GetStatementRequest(party_kind=supplier_pb2.PARTY_KIND_BRAND, party_id="brand")
    with pytest.raises(NotAllowed):
        await brand.settlement.get_statement(brands, stranger)


async def test_the_split_sums_and_a_missing_partys_share_is_the_brands(brand: Brand) -> None:
    await with_supplier(brand)
    # 72.5, 10, 5 and 12.5 per cent of 1001 are 725.7, 100.1, 50.05 and 125.1: the cent that is left is the supplier's
    await asked(brand, line("1", "ROSE", 1, 1001), guide="G7")
    await asked(brand, line("1", "ROSE", 1, 1001))
    sums = {
        who: (await statement(brand, kind, who)).sum_minor
        for kind, who in (
            (supplier_pb2.PARTY_KIND_SUPPLIER, "florist"),
            (supplier_pb2.PARTY_KIND_STORE, "S1"),
            (supplier_pb2.PARTY_KIND_GUIDE, "G7"),
            (supplier_pb2.PARTY_KIND_BRAND, "brand"),
        )
    }
    assert sums == {"florist": 1452, "S1": 200, "G7": 50, "brand": 125 + 175}
    await brand.audited()


async def test_a_refund_reverses_at_the_rule_of_the_sale(brand: Brand) -> None:
    await with_supplier(brand)
    order_id, _ = await asked(brand, line("1", "ROSE", 3, 1000))
    assert await publish_split(brand, ((1, "10"), (2, "90"))) == 2
    await brand.move_clock(NOON + timedelta(days=1))
    await brand.refund(order_id, {"1": 1})
    await brand.refund(order_id, {"1": 2})
    for kind, who in ((1, "florist"), (3, "S1"), (2, "brand")):
        assert (await statement(brand, kind, who)).sum_minor == 0
    first_day = await statement(brand, 1, "florist", from_day="2026-05-01", to_day="2026-05-01")
    assert (first_day.earned_minor, first_day.reversed_minor) == (725, 0)
    second_day = await statement(brand, 1, "florist", from_day="2026-05-02")
    assert (second_day.earned_minor, second_day.reversed_minor, len(second_day.entries)) == (0, 725, 2)
    assert {entry.rule_version for entry in second_day.entries} == {1}
    await brand.audited()


async def test_a_statements_lines_sum_by_payment(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    brand.peers.points.balances[brand.member_id] = 10_000
    goods = brand.basket(line("1", "ROSE", 3, 1000), line("2", "TEA", 1, 300), burn=100)
    order = (await brand.sell(brand.sale(goods, card(600), cash()))).order
    await brand.refund(order.order_id, {"1": 1})
    paid = [(payment.tender, payment.amount_minor) for payment in order.payments]
    assert paid == [(order_pb2.TENDER_POINTS, 100), (order_pb2.TENDER_CARD, 600), (order_pb2.TENDER_CASH, 600)]
    found = [(await statement(brand, kind, who)).entries for kind, who in ((1, "florist"), (2, "brand"))]
    # of the rose's 1000: 77 in points, 462 by card, 461 in cash; its first unit is 334: 26, 154 and 154
    assert [[(part.tender, part.amount_minor) for part in entries[0].payments] for entries in found] == [
        [(order_pb2.TENDER_POINTS, 54), (order_pb2.TENDER_CARD, 323), (order_pb2.TENDER_CASH, 323)],
        [(order_pb2.TENDER_POINTS, 23), (order_pb2.TENDER_CARD, 139), (order_pb2.TENDER_CASH, 138)],
    ]
    for entries in found:
        for entry in entries:
            assert sum(part.amount_minor for part in entry.payments) == entry.amount_minor
    back = [[part.amount_minor for part in entries[1].payments] for entries in found]
    assert [sum(column) for column in zip(*back, strict=True)] == [-26, -154, -154]
    await brand.audited()


async def test_a_rule_must_be_whole(brand: Brand) -> None:
    await with_supplier(brand)
    for split in (((1, "50"), (2, "49")), ((1, "50"), (1, "50"))):
        with pytest.raises(Invalid) as refused:
            await publish_split(brand, split)
        assert refused.value.reason == "SHARES_NOT_WHOLE"


async def test_statements_come_by_page(brand: Brand) -> None:
    await with_supplier(brand)
    for _ in range(5):
        await asked(brand, line("1", "ROSE", 1, 1000))
    found: list[str] = []
    token = ""
    while True:
        request = supplier_pb2.GetStatementRequest(party_kind=1, party_id="florist", page_size=2, page_token=token)
        reply = await brand.settlement.get_statement(request, brand.office())
        assert reply.sum_minor == 3625
        found += [entry.entry_id for entry in reply.entries]
        token = reply.next_page_token
        if not token:
            break
    assert len(set(found)) == 5


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_answers_and_refunds_keeps_the_books(brand: Brand, seed: int) -> None:
    chance = random.Random(seed)
    await with_supplier(brand)
    brand.peers.points.balances[brand.member_id] = 10_000
    basket = brand.basket(
        line("1", "ROSE", 7, 1003), line("2", "TULIP", 5, 777), line("3", "TEA", 3, 1000), burn=chance.randrange(2000)
    )
    order = (await brand.sell(brand.sale(basket))).order
    await brand.fulfil()
    (supplier_order,) = await brand.supplier_orders()
    steps = [
        lambda: accept(brand, supplier_order, {"1": chance.randrange(8), "2": chance.randrange(6)}),
        lambda: ship(brand, supplier_order, {"1": 1}),
        lambda: ship(brand, supplier_order, {}),
        *[lambda: brand.refund(order.order_id, {"1": 1}) for _ in range(3)],
        *[lambda: brand.refund(order.order_id, {"2": 2, "3": 1}) for _ in range(2)],
    ]
    chance.shuffle(steps)
    for step in steps:
        try:
            await step()
        except (Refused, Invalid):
            await brand.audited()
    left = {each.line_id: each.quantity - each.refunded_quantity for each in (await brand.order(order.order_id)).lines}
    rest = {line_id: units for line_id, units in left.items() if units}
    if rest:
        await brand.refund(order.order_id, rest)
    assert (await brand.order(order.order_id)).refunded_minor == order.net_minor
    for kind, who in ((1, "florist"), (3, "S1"), (2, "brand")):
        assert (await statement(brand, kind, who)).sum_minor == 0
    await brand.audited()
