"""A sale through the four services as a till makes it: priced, held, paid, earned, refunded; and never twice."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.console.stack.local import LocalStack
from services.runtime.errors import AlreadyExists, DomainError, Missing, NotAllowed, Refused
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc
from siyu.commerce.v1 import (
    catalogue_pb2,
    catalogue_pb2_grpc,
    order_pb2,
    order_pb2_grpc,
    supplier_pb2,
    supplier_pb2_grpc,
)
from siyu.identity.v1 import member_pb2, store_pb2, store_pb2_grpc
from tests.e2e.shop import (
    COUPON_CENTS,
    CUP,
    CUP_CENTS,
    FLOWERS,
    FLOWERS_CENTS,
    OTHER_STORE,
    STOCK,
    STORE,
    TEA,
    TEA_CENTS,
    Shop,
    eventually,
    open_shop,
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(stack: LocalStack) -> AsyncIterator[Shop]:
    shop = await open_shop(stack)
    yield shop
    await shop.wire.close()


async def test_a_sale_earns_what_it_quoted(shop: Shop) -> None:
    member_id = await shop.member()
    order = await shop.sell(shop.basket((TEA, 2), (CUP, 1), member_id=member_id))
    discount = CUP_CENTS // 10
    assert (order.shelf_minor, order.discount_minor) == (2 * TEA_CENTS + CUP_CENTS, discount)
    assert [payment.amount_minor for payment in order.payments] == [order.net_minor]
    assert order.quoted_points == order.net_minor // 100
    await shop.settled(order.order_id)
    assert (await shop.balance(member_id)).available_points == order.quoted_points


async def test_a_card_names_the_buyer(shop: Shop) -> None:
    member_id = await shop.member()
    basket = shop.basket((TEA, 1))
    basket.identifier.CopyFrom(member_pb2.Identifier(type=member_pb2.IDENTIFIER_TYPE_CARD, value=shop.cards[-1]))
    assert (await shop.sell(basket)).member_id == member_id


async def test_a_repeated_sale_is_one_sale(shop: Shop) -> None:
    member_id = await shop.member()
    sale = shop.sale(shop.basket((TEA, 1), member_id=member_id))
    replies = await asyncio.gather(
        *(shop.call(order_pb2_grpc.PosServiceStub, "Sell", sale, caller=shop.till) for _ in range(5))
    )
    assert len({reply.order.order_id for reply in replies}) == 1
    again = order_pb2.SellRequest(request_id=new_id(), sale=sale.sale)
    assert (await shop.call(order_pb2_grpc.PosServiceStub, "Sell", again, caller=shop.till)).order.order_id == replies[
        0
    ].order.order_id
    await shop.settled(replies[0].order.order_id)
    assert (await shop.balance(member_id)).available_points == TEA_CENTS // 100


async def test_a_request_id_of_another_body_is_refused(shop: Shop) -> None:
    sale = shop.sale(shop.basket((TEA, 1)))
    await shop.call(order_pb2_grpc.PosServiceStub, "Sell", sale, caller=shop.till)
    sale.sale.basket.lines[0].quantity = 2
    with pytest.raises(AlreadyExists) as caught:
        await shop.call(order_pb2_grpc.PosServiceStub, "Sell", sale, caller=shop.till)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    sale.request_id = new_id()
    with pytest.raises(AlreadyExists) as caught:
        await shop.call(order_pb2_grpc.PosServiceStub, "Sell", sale, caller=shop.till)
    assert caught.value.reason == "SALE_NUMBER_REUSED"


async def test_coupon_and_points_pay_and_a_refund_restores_both(shop: Shop) -> None:
    member_id = await shop.member(points=1_000)
    code = await shop.coupon(member_id)
    order = await shop.sell(shop.basket((TEA, 2), member_id=member_id, coupon_codes=[code], burn_points=500))
    assert order.discount_minor == COUPON_CENTS
    assert (order.burnt_points, order.net_minor) == (500, 2 * TEA_CENTS - COUPON_CENTS)
    await shop.settled(order.order_id)
    earned = order.quoted_points
    assert (await shop.balance(member_id)).available_points == 500 + earned
    for _ in range(2):
        refunded = await refund(shop, order.order_id, ("1", 1))
        await shop.settled(order.order_id)
    assert refunded.order.refunded_minor == order.net_minor
    balance = await shop.balance(member_id)
    assert (balance.available_points, balance.held_points, balance.debt_points) == (1_000, 0, 0)

    async def returned() -> bool:
        listed = await shop.call(
            coupon_pb2_grpc.CouponServiceStub,
            "ListCoupons",
            coupon_pb2.ListCouponsRequest(member_id=member_id, usable_only=True),
        )
        return any(coupon.code == code or coupon.state == coupon_pb2.COUPON_STATE_ISSUED for coupon in listed.coupons)

    await eventually(returned)


async def refund(shop: Shop, order_id: str, *lines: tuple[str, int]) -> order_pb2.RefundOrderResponse:
    request = order_pb2.RefundOrderRequest(
        request_id=new_id(),
        order_id=order_id,
        lines=[order_pb2.RefundLine(line_id=line_id, quantity=quantity, restock=True) for line_id, quantity in lines],
    )
    return await shop.call(order_pb2_grpc.OrderServiceStub, "RefundOrder", request)


async def test_a_unit_is_refunded_once(shop: Shop) -> None:
    order = await shop.sell(shop.basket((TEA, 1), member_id=await shop.member()))
    found = await asyncio.gather(*(refund(shop, order.order_id, ("1", 1)) for _ in range(4)), return_exceptions=True)
    refused = [each for each in found if isinstance(each, DomainError)]
    assert [each.reason for each in refused] == ["UNITS_ALREADY_REFUNDED"] * 3


async def test_a_last_unit_is_sold_once(shop: Shop) -> None:
    await shop.call(
        catalogue_pb2_grpc.StockServiceStub,
        "PostDocument",
        catalogue_pb2.PostDocumentRequest(
            request_id=new_id(),
            kind=catalogue_pb2.STOCK_DOCUMENT_KIND_COUNT,
            store_id=STORE,
            lines=[catalogue_pb2.StockDocumentLine(sku=CUP, quantity=1)],
        ),
    )
    found = await asyncio.gather(*(shop.sell(shop.basket((CUP, 1))) for _ in range(10)), return_exceptions=True)
    assert sum(not isinstance(each, Exception) for each in found) == 1
    assert {each.reason for each in found if isinstance(each, DomainError)} == {"OUT_OF_STOCK"}
    await shop.call(
        catalogue_pb2_grpc.StockServiceStub,
        "PostDocument",
        catalogue_pb2.PostDocumentRequest(
            request_id=new_id(),
            kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
            store_id=STORE,
            lines=[catalogue_pb2.StockDocumentLine(sku=CUP, quantity=STOCK)],
        ),
    )


async def test_a_refused_sale_leaves_nothing_behind(shop: Shop) -> None:
    member_id = await shop.member(points=100)
    code = await shop.coupon(member_id)
    with pytest.raises(Refused) as caught:
        await shop.sell(shop.basket((CUP, 5_000_000), member_id=member_id, coupon_codes=[code], burn_points=100))
    assert (caught.value.reason, caught.value.metadata["field"]) == ("OUT_OF_STOCK", "sale.basket.lines[0].sku")

    async def free() -> bool:
        balance = await shop.balance(member_id)
        return balance.available_points == 100 and balance.held_points == 0

    await eventually(free)
    order = await shop.sell(shop.basket((TEA, 1), member_id=member_id, coupon_codes=[code], burn_points=100))
    assert order.discount_minor == COUPON_CENTS


async def test_place_pay_and_cancel(shop: Shop) -> None:
    member_id = await shop.member(points=300)
    placed = await shop.call(
        order_pb2_grpc.OrderServiceStub,
        "PlaceOrder",
        order_pb2.PlaceOrderRequest(
            request_id=new_id(), basket=shop.basket((TEA, 1), member_id=member_id, burn_points=200)
        ),
    )
    assert placed.order.state == order_pb2.ORDER_STATE_PENDING_PAYMENT
    assert (await shop.balance(member_id)).held_points == 200
    cancelled = await shop.call(
        order_pb2_grpc.OrderServiceStub,
        "CancelOrder",
        order_pb2.CancelOrderRequest(request_id=new_id(), order_id=placed.order.order_id, reason="changed mind"),
    )
    assert cancelled.order.state == order_pb2.ORDER_STATE_CANCELLED
    with pytest.raises(Refused) as caught:
        await shop.call(
            order_pb2_grpc.OrderServiceStub,
            "PayOrder",
            order_pb2.PayOrderRequest(
                request_id=new_id(),
                order_id=placed.order.order_id,
                payments=[order_pb2.Payment(tender=order_pb2.TENDER_CARD)],
            ),
        )
    assert caught.value.reason == "ORDER_NOT_PAYABLE"

    async def back() -> bool:
        return (await shop.balance(member_id)).available_points == 300

    await eventually(back)


async def test_an_off_line_sale_is_a_fact_and_recorded_once(shop: Shop) -> None:
    member_id = await shop.member()
    sale = shop.sale(shop.basket((TEA, 1), member_id=member_id)).sale
    sale.occurred_at.GetCurrentTime()
    sale.basket.lines[0].price_source = order_pb2.PRICE_SOURCE_POS
    sale.basket.lines[0].shelf_minor = TEA_CENTS
    offline = order_pb2.OfflineSale(request_id=new_id(), sale=sale, charged_minor=[TEA_CENTS - 300])
    request = order_pb2.ReplayOfflineSalesRequest(store_id=STORE, sales=[offline])
    first = (await shop.call(order_pb2_grpc.PosServiceStub, "ReplayOfflineSales", request, caller=shop.till)).verdicts[
        0
    ]
    assert [each.reason for each in first.exceptions] == ["PRICE_DIFFERS"]
    assert (first.order.net_minor, first.duplicate) == (TEA_CENTS - 300, False)
    request.sales[0].request_id = new_id()
    again = (await shop.call(order_pb2_grpc.PosServiceStub, "ReplayOfflineSales", request, caller=shop.till)).verdicts[
        0
    ]
    assert (again.order.order_id, again.duplicate) == (first.order.order_id, True)
    await shop.settled(first.order.order_id)
    assert (await shop.balance(member_id)).available_points == (TEA_CENTS - 300) // 100


async def test_a_supplier_accepts_ships_and_is_paid_its_share(shop: Shop) -> None:
    order = await shop.sell(shop.basket((FLOWERS, 3), member_id=await shop.member()))

    async def requested() -> supplier_pb2.SupplierOrder | None:
        listed = await shop.call(
            supplier_pb2_grpc.SupplierServiceStub,
            "ListSupplierOrders",
            supplier_pb2.ListSupplierOrdersRequest(
                supplier_id="florist", state=supplier_pb2.SUPPLIER_ORDER_STATE_REQUESTED, page_size=500
            ),
            caller=shop.supplier,
        )
        return next((each for each in listed.supplier_orders if each.order_id == order.order_id), None)

    asked = await eventually(requested)
    accepted = await shop.call(
        supplier_pb2_grpc.SupplierServiceStub,
        "AcceptSupplierOrder",
        supplier_pb2.AcceptSupplierOrderRequest(
            request_id=new_id(),
            supplier_order_id=asked.supplier_order_id,
            lines=[supplier_pb2.SupplierUnits(line_id="1", quantity=2)],
        ),
        caller=shop.supplier,
    )
    assert accepted.supplier_order.state == supplier_pb2.SUPPLIER_ORDER_STATE_PARTLY_ACCEPTED
    shipped = await shop.call(
        supplier_pb2_grpc.SupplierServiceStub,
        "ShipParcel",
        supplier_pb2.ShipParcelRequest(request_id=new_id(), supplier_order_id=asked.supplier_order_id, carrier="SF"),
        caller=shop.supplier,
    )
    assert shipped.supplier_order.state == supplier_pb2.SUPPLIER_ORDER_STATE_SHIPPED

    async def refunded() -> order_pb2.Order | None:
        found = await shop.call(
            order_pb2_grpc.OrderServiceStub, "GetOrder", order_pb2.GetOrderRequest(order_id=order.order_id)
        )
        return found.order if found.order.refunded_minor == FLOWERS_CENTS else None

    await eventually(refunded)
    statement = await shop.call(
        supplier_pb2_grpc.SettlementServiceStub,
        "GetStatement",
        supplier_pb2.GetStatementRequest(party_kind=supplier_pb2.PARTY_KIND_SUPPLIER, party_id="florist"),
    )
    mine = [entry.amount_minor for entry in statement.entries if entry.order_id == order.order_id]
    assert sum(mine) == 2 * FLOWERS_CENTS * 70 // 100


async def test_a_till_sells_for_its_own_store_only(shop: Shop) -> None:
    sale = shop.sale(shop.basket((TEA, 1)))
    with pytest.raises(NotAllowed) as caught:
        await shop.call(order_pb2_grpc.PosServiceStub, "Sell", sale, caller=shop.other_till)
    assert (caught.value.reason, caught.value.metadata["field"]) == ("OUT_OF_SCOPE", "sale.basket.store_id")
    order = await shop.sell(shop.basket((TEA, 1)))
    with pytest.raises(DomainError) as hidden:
        await shop.call(
            order_pb2_grpc.OrderServiceStub,
            "GetOrder",
            order_pb2.GetOrderRequest(order_id=order.order_id),
            caller=shop.other_till,
        )
    assert hidden.value.reason == "ORDER_NOT_FOUND"
    assert OTHER_STORE != STORE


async def test_a_store_takes_goods_from_the_moment_it_is_made_and_sells_while_it_is_open(shop: Shop) -> None:
    name = f"new-{new_id()[-12:]}"

    async def put(*, active: bool) -> None:
        store = store_pb2.Store(store_id=name, display_name="New", active=active)
        request = store_pb2.BatchUpsertStoresRequest(request_id=new_id(), stores=[store])
        await shop.call(store_pb2_grpc.StoreServiceStub, "BatchUpsertStores", request)

    async def receive() -> None:
        document = catalogue_pb2.PostDocumentRequest(
            request_id=new_id(),
            kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
            store_id=name,
            lines=[catalogue_pb2.StockDocumentLine(sku=TEA, quantity=STOCK)],
        )
        await shop.call(catalogue_pb2_grpc.StockServiceStub, "PostDocument", document)

    async def sell() -> None:
        basket = shop.basket((TEA, 1))
        basket.store_id = name
        await shop.call(order_pb2_grpc.PosServiceStub, "Sell", shop.sale(basket))

    async def closed() -> bool:
        try:
            await sell()
        except Refused as refusal:
            return refusal.reason == "STORE_INACTIVE"
        return False

    for calling, field in ((receive, "store_id"), (sell, "sale.basket.store_id")):
        with pytest.raises(Missing) as missing:
            await calling()
        assert (missing.value.reason, missing.value.metadata["field"]) == ("STORE_NOT_FOUND", field)
    await put(active=False)
    # its opening stock
    await receive()
    assert await closed()
    await put(active=True)
    await sell()
    await put(active=False)
    # the event comes by itself, and an open store is remembered for seconds
    await eventually(closed)
    # what is counted out
    await receive()
