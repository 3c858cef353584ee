"""What a supplier does not ship is asked of the next source, by the brand's policy, and paid to who ships it."""

import asyncio
import contextlib
import random
from datetime import timedelta

import pytest

from services.runtime.errors import Invalid, Missing, Refused
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2, supplier_pb2
from tests.store.commerce.conftest import NOON, Brand, card, cash, line, with_sources, with_supplier
from tests.store.commerce.test_suppliers import accept, asked, deliver, reject, ship, statement

STATES = supplier_pb2.SupplierOrderState
SUPPLIERS = ("florist", "butcher", "grower")


async def of(brand: Brand, supplier: str, order_id: str) -> supplier_pb2.SupplierOrder:
    """The supplier's part of an order, once the fulfilment worker has been there."""
    await brand.fulfil()
    return next(each for each in await brand.supplier_orders(supplier) if each.order_id == order_id)


async def sums(brand: Brand) -> dict[str, int]:
    return {who: (await statement(brand, supplier_pb2.PARTY_KIND_SUPPLIER, who)).sum_minor for who in SUPPLIERS}


async def test_without_a_policy_units_are_refunded(brand: Brand) -> None:
    await with_supplier(brand)
    await with_sources(brand)
    policy = supplier_pb2.PutSupplyPolicyRequest(request_id=new_id(), on_unfilled=supplier_pb2.ON_UNFILLED_REFUND)
    await brand.suppliers.put_supply_policy(policy, brand.office())
    order_id, supplier_order = await asked(brand)
    await reject(brand, supplier_order)
    assert (await brand.order(order_id)).refunded_minor == 1501
    await brand.audited()


async def test_sources_are_read_as_they_were_put(brand: Brand) -> None:
    await with_supplier(brand)
    found = await brand.suppliers.get_sources(supplier_pb2.GetSourcesRequest(sku="ROSE"), brand.office())
    assert (found.on_unfilled, list(found.sources)) == (supplier_pb2.ON_UNFILLED_REFUND, [])
    await with_sources(brand)
    found = await brand.suppliers.get_sources(supplier_pb2.GetSourcesRequest(sku="ROSE"), brand.office())
    assert found.on_unfilled == supplier_pb2.ON_UNFILLED_REROUTE
    assert [(each.supplier_id, each.cost_minor) for each in found.sources] == [("butcher", 210), ("grower", 190)]
    for sku, suppliers, refusal in (
        ("NONE", ("butcher",), Missing),
        ("ROSE", ("stranger",), Missing),
        ("ROSE", ("butcher", "butcher"), Invalid),
    ):
        request = supplier_pb2.PutSourcesRequest(
            request_id=new_id(), sku=sku, sources=[supplier_pb2.Source(supplier_id=each) for each in suppliers]
        )
        with pytest.raises(refusal):
            await brand.suppliers.put_sources(request, brand.office())


async def test_refused_units_go_to_the_next_source(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    await with_sources(brand)
    order_id, first = await asked(brand, line("1", "ROSE", 3, 1000), line("2", "TULIP", 2, 501))
    # one of three roses; the others have a source, the tulips have none
    answered = await accept(brand, first, {"1": 1})
    assert [(each.rerouted_quantity, each.refunded_quantity) for each in answered.lines] == [(2, 0), (0, 2)]
    assert answered.state == STATES.SUPPLIER_ORDER_STATE_PARTLY_ACCEPTED
    assert (await brand.order(order_id)).refunded_minor == 501
    await brand.audited()
    second = await of(brand, "butcher", order_id)
    assert second.replaces_supplier_order_id == first.supplier_order_id
    assert [(each.line_id, each.quantity, each.cost_minor) for each in second.lines] == [("1", 2, 210)]
    assert second.state == STATES.SUPPLIER_ORDER_STATE_REQUESTED
    assert second.accept_by.ToDatetime() == (NOON + timedelta(hours=2)).replace(tzinfo=None)
    # 700 of the rose's 1000: 234 for the first unit, 233 for the others
    assert await sums(brand) == {"florist": 234, "butcher": 466, "grower": 0}
    entries = (await statement(brand, 1, "butcher")).entries
    assert [(each.amount_minor, each.rule_version, each.refund_id) for each in entries] == [(466, 1, "")]
    (parcel,) = (await ship(brand, answered, {})).parcels
    await deliver(brand, answered, parcel.parcel_no)
    assert (await brand.order(order_id)).state == order_pb2.ORDER_STATE_FULFILLING
    butcher = brand.supplier_call("butcher")
    await accept(brand, second, {}, butcher)
    (parcel,) = (await ship(brand, second, {}, butcher)).parcels
    await deliver(brand, second, parcel.parcel_no, call=butcher)
    assert (await brand.order(order_id)).state == order_pb2.ORDER_STATE_FULFILLED
    await brand.audited()


async def test_each_source_is_asked_once_and_then_it_is_refunded(brand: Brand) -> None:
    await with_supplier(brand, within_s=3600)
    await with_sources(brand)
    order_id, first = await asked(brand, line("1", "ROSE", 3, 1000))
    await reject(brand, first)
    second = await of(brand, "butcher", order_id)
    # silence
    await brand.move_clock(NOON + timedelta(hours=2))
    assert (await brand.sweep()).timed_out == 1
    third = await of(brand, "grower", order_id)
    assert third.replaces_supplier_order_id == second.supplier_order_id
    assert (await brand.order(order_id)).refunded_minor == 0
    await brand.audited()
    await reject(brand, third, brand.supplier_call("grower"))
    order = await brand.order(order_id)
    assert (order.refunded_minor, order.state) == (1000, order_pb2.ORDER_STATE_FULFILLED)
    assert await sums(brand) == {"florist": 0, "butcher": 0, "grower": 0}
    for supplier, count in (("florist", 1), ("butcher", 1), ("grower", 1)):
        assert len(await brand.supplier_orders(supplier)) == count
    await brand.audited()


async def test_the_rule_of_the_sale_stays_and_payments_follow(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    await with_sources(brand)
    goods = brand.basket(line("1", "ROSE", 3, 1000))
    order = (await brand.sell(brand.sale(goods, card(600), cash()))).order
    first = await of(brand, "florist", order.order_id)
    await reject(brand, first)
    (moved,) = (await statement(brand, 1, "butcher")).entries
    assert [(each.tender, each.amount_minor) for each in moved.payments] == [
        (order_pb2.TENDER_CARD, 420),
        (order_pb2.TENDER_CASH, 280),
    ]
    lost = await statement(brand, 1, "florist")
    assert (lost.earned_minor, lost.reversed_minor, lost.sum_minor) == (700, 700, 0)
    await brand.refund(order.order_id, {"1": 1})
    assert await sums(brand) == {"florist": 0, "butcher": 466, "grower": 0}
    (second,) = await brand.supplier_orders("butcher")
    assert second.lines[0].refunded_quantity == 1
    await brand.audited()


@pytest.mark.parametrize("late_first", [True, False])
async def test_a_late_acceptance_races_the_time_out(brand: Brand, late_first: bool) -> None:
    await with_supplier(brand, within_s=3600)
    await with_sources(brand)
    for _ in range(3):
        order_id, first = await asked(brand, line("1", "ROSE", 3, 1000))
        in_time = brand.supplier_call()
        await brand.move_clock(brand.now + timedelta(hours=1))

        async def late(first: supplier_pb2.SupplierOrder = first, call: object = in_time) -> object:
            return await accept(brand, first, {"1": 2}, call)

        both = (late(), brand.sweep()) if late_first else (brand.sweep(), late())
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        (florist,) = [each for each in await brand.supplier_orders() if each.order_id == order_id]
        refused = [each for each in outcomes if isinstance(each, Refused)]
        assert not [each for each in outcomes if isinstance(each, BaseException) and each not in refused]
        timed_out = florist.state == STATES.SUPPLIER_ORDER_STATE_TIMED_OUT
        assert [each.reason for each in refused] == (["SUPPLIER_ORDER_NOT_OPEN"] if timed_out else [])
        butcher = await of(brand, "butcher", order_id)
        assert butcher.lines[0].quantity == (3 if timed_out else 1)
        assert florist.lines[0].accepted_quantity + butcher.lines[0].quantity == 3
        await brand.audited()


async def test_a_refund_races_a_rejection(brand: Brand) -> None:
    await with_supplier(brand)
    await with_sources(brand)
    for _ in range(3):
        order_id, first = await asked(brand, line("1", "ROSE", 3, 1000))
        await asyncio.gather(reject(brand, first), brand.refund(order_id, {"1": 1}))
        butcher = await of(brand, "butcher", order_id)
        assert butcher.lines[0].quantity - butcher.lines[0].refunded_quantity == 2
        assert (await brand.order(order_id)).refunded_minor == 334
        await brand.audited()


async def test_two_rejections_at_once_route_once(brand: Brand) -> None:
    await with_supplier(brand)
    await with_sources(brand)
    order_id, first = await asked(brand, line("1", "ROSE", 3, 1000))
    outcomes = await asyncio.gather(*(reject(brand, first) for _ in range(3)), return_exceptions=True)
    assert sorted(isinstance(each, Refused) for each in outcomes) == [False, True, True]
    assert (await of(brand, "butcher", order_id)).lines[0].quantity == 3
    assert len(await brand.supplier_orders("butcher")) == 1
    await brand.audited()


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_answers_keeps_the_books(brand: Brand, seed: int) -> None:
    chance = random.Random(seed)
    await with_supplier(brand, split=((1, "72.5"), (3, "10"), (2, "17.5")))
    await with_sources(brand, skus=("ROSE", "TULIP"))
    brand.peers.points.balances[brand.member_id] = 10_000
    goods = brand.basket(line("1", "ROSE", 7, 1003), line("2", "TULIP", 5, 777), burn=chance.randrange(1500))
    order = (await brand.sell(brand.sale(goods, card(100), cash()))).order

    async def answer() -> None:
        await brand.fulfil()
        supplier = chance.choice(SUPPLIERS)
        for each in await brand.supplier_orders(supplier):
            call = brand.supplier_call(supplier)
            if each.state == STATES.SUPPLIER_ORDER_STATE_REQUESTED:
                units = {mine.line_id: chance.randint(0, mine.quantity - mine.refunded_quantity) for mine in each.lines}
                await accept(brand, each, units, call)
            elif each.state in {STATES.SUPPLIER_ORDER_STATE_ACCEPTED, STATES.SUPPLIER_ORDER_STATE_PARTLY_ACCEPTED}:
                await ship(brand, each, {}, call)

    async def refund() -> None:
        units = {chance.choice(("1", "2")): chance.randint(1, 2)}
        await brand.refund(order.order_id, units)

    for _ in range(12):
        with contextlib.suppress(Refused):
            await chance.choice((answer, answer, refund))()
        await brand.audited()
    left = {each.line_id: each.quantity - each.refunded_quantity for each in (await brand.order(order.order_id)).lines}
    rest = {line_id: units for line_id, units in left.items() if units}
    if rest:
        await brand.refund(order.order_id, rest)
    assert await sums(brand) == {"florist": 0, "butcher": 0, "grower": 0}
    await brand.audited()
