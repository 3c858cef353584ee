"""Valid calls of commerce's suppliers, their orders and statements."""

from datetime import UTC, datetime, timedelta

from services.runtime.ids import new_id
from siyu.commerce.v1 import (
    catalogue_pb2,
    catalogue_pb2_grpc,
    order_pb2,
    order_pb2_grpc,
    statement_pb2,
    statement_pb2_grpc,
    supplier_pb2,
    supplier_pb2_grpc,
)
from tests.e2e.shop import FLOWERS, STORE, TEA, Shop, at, eventually
from tests.e2e.valid_calls.table import YESTERDAY, Valid, calls, changed


@calls("SupplierService.PutSupplyPolicy")
async def put_supply_policy(_shop: Shop) -> Valid:
    request = supplier_pb2.PutSupplyPolicyRequest(request_id=new_id(), on_unfilled=supplier_pb2.ON_UNFILLED_REFUND)
    return Valid(request=request, other=changed(request, on_unfilled=supplier_pb2.ON_UNFILLED_REROUTE))


@calls("SupplierService.PutSources")
async def put_sources(_shop: Shop) -> Valid:
    request = supplier_pb2.PutSourcesRequest(
        request_id=new_id(), sku=TEA, sources=[supplier_pb2.Source(supplier_id="florist", cost_minor=100)]
    )
    other = changed(request)
    other.sources[0].cost_minor = 101
    return Valid(request=request, other=other)


@calls("SupplierService.PutSupplier")
async def put_supplier(_shop: Shop) -> Valid:
    request = supplier_pb2.PutSupplierRequest(
        request_id=new_id(), supplier=supplier_pb2.Supplier(supplier_id="valid", display_name="Valid")
    )
    other = changed(request)
    other.supplier.display_name = "Other"
    return Valid(request=request, other=other)


async def requested(shop: Shop) -> str:
    """A supplier order that waits for the florist's answer."""
    order = await shop.sell(shop.basket((FLOWERS, 2)))

    async def asked() -> str:
        listed = await shop.call(
            supplier_pb2_grpc.SupplierServiceStub,
            "ListSupplierOrders",
            supplier_pb2.ListSupplierOrdersRequest(
                supplier_id="florist", state=supplier_pb2.SUPPLIER_ORDER_STATE_REQUESTED, page_size=500
            ),
        )
        return next((each.supplier_order_id for each in listed.supplier_orders if each.order_id == order.order_id), "")

    return str(await eventually(asked))


@calls("SupplierService.AcceptSupplierOrder")
async def accept_supplier_order(shop: Shop) -> Valid:
    request = supplier_pb2.AcceptSupplierOrderRequest(request_id=new_id(), supplier_order_id=await requested(shop))
    other = changed(request)
    other.lines.add(line_id="1", quantity=1)
    return Valid(request=request, other=other, caller=shop.supplier)


@calls("SupplierService.RejectSupplierOrder")
async def reject_supplier_order(shop: Shop) -> Valid:
    request = supplier_pb2.RejectSupplierOrderRequest(request_id=new_id(), supplier_order_id=await requested(shop))
    return Valid(request=request, other=changed(request, reason="other"), caller=shop.supplier)


@calls("SupplierService.ShipParcel")
async def ship_parcel(shop: Shop) -> Valid:
    supplier_order_id = await requested(shop)
    await shop.call(
        supplier_pb2_grpc.SupplierServiceStub,
        "AcceptSupplierOrder",
        supplier_pb2.AcceptSupplierOrderRequest(request_id=new_id(), supplier_order_id=supplier_order_id),
        caller=shop.supplier,
    )
    request = supplier_pb2.ShipParcelRequest(request_id=new_id(), supplier_order_id=supplier_order_id, carrier="SF")
    return Valid(request=request, other=changed(request, carrier="YTO"), caller=shop.supplier)


@calls("SupplierService.DeliverParcel")
async def deliver_parcel(shop: Shop) -> Valid:
    shipped = await shop.call(
        supplier_pb2_grpc.SupplierServiceStub,
        "ShipParcel",
        (await ship_parcel(shop)).request,
        caller=shop.supplier,
    )
    request = supplier_pb2.DeliverParcelRequest(
        request_id=new_id(),
        supplier_order_id=shipped.supplier_order.supplier_order_id,
        parcel_no=shipped.parcel_no,
    )
    return Valid(request=request, other=changed(request, parcel_no=1_000_000), caller=shop.supplier)


async def payable(shop: Shop) -> statement_pb2.CloseStatementRequest:
    """The statement of a supplier of its own: what it sold long ago has arrived, and its return window is over."""
    name = f"grower-{new_id()[-12:]}"
    stub, now = supplier_pb2_grpc.SupplierServiceStub, datetime.now(UTC)
    supplier = supplier_pb2.Supplier(supplier_id=name, display_name="Grower")
    await shop.call(stub, "PutSupplier", supplier_pb2.PutSupplierRequest(request_id=new_id(), supplier=supplier))
    await shop.call(
        supplier_pb2_grpc.SettlementServiceStub,
        "PublishSplitRule",
        supplier_pb2.PublishSplitRuleRequest(
            request_id=new_id(),
            supplier_id=name,
            shares=[supplier_pb2.SplitShare(party=supplier_pb2.PARTY_KIND_SUPPLIER, percent="100")],
        ),
    )
    await shop.call(
        catalogue_pb2_grpc.CatalogueServiceStub,
        "BatchUpsertProducts",
        catalogue_pb2.BatchUpsertProductsRequest(
            request_id=new_id(), products=[catalogue_pb2.Product(sku=name, display_name="Seeds", supplier_id=name)]
        ),
    )
    basket = shop.basket((name, 2))
    basket.lines[0].price_source, basket.lines[0].shelf_minor = order_pb2.PRICE_SOURCE_POS, 1_000
    sale = shop.sale(basket, occurred_at=at(now - timedelta(days=9))).sale
    sold = order_pb2.ReplayOfflineSalesRequest(
        store_id=STORE, sales=[order_pb2.OfflineSale(request_id=new_id(), sale=sale, charged_minor=[1_000])]
    )
    (verdict,) = (await shop.call(order_pb2_grpc.PosServiceStub, "ReplayOfflineSales", sold, caller=shop.till)).verdicts
    order = verdict.order

    async def asked() -> str:
        request = supplier_pb2.ListSupplierOrdersRequest(
            supplier_id=name, state=supplier_pb2.SUPPLIER_ORDER_STATE_REQUESTED
        )
        return next(
            (each.supplier_order_id for each in (await shop.call(stub, "ListSupplierOrders", request)).supplier_orders),
            "",
        )

    named = {"supplier_order_id": str(await eventually(asked))}
    await shop.call(stub, "AcceptSupplierOrder", supplier_pb2.AcceptSupplierOrderRequest(request_id=new_id(), **named))
    shipped = await shop.call(stub, "ShipParcel", supplier_pb2.ShipParcelRequest(request_id=new_id(), **named))
    await shop.call(
        stub,
        "DeliverParcel",
        supplier_pb2.DeliverParcelRequest(request_id=new_id(), parcel_no=shipped.parcel_no, **named),
    )

    async def closed() -> bool:
        found = await shop.call(
            order_pb2_grpc.OrderServiceStub, "GetOrder", order_pb2.GetOrderRequest(order_id=order.order_id)
        )
        return bool(found.order.state == order_pb2.ORDER_STATE_CLOSED)

    await eventually(closed)
    return statement_pb2.CloseStatementRequest(
        request_id=new_id(),
        party_kind=supplier_pb2.PARTY_KIND_SUPPLIER,
        party_id=name,
        to_day=(YESTERDAY - timedelta(days=1)).date().isoformat(),
    )


@calls("StatementService.CloseStatement")
async def close_statement(shop: Shop) -> Valid:
    request = await payable(shop)
    return Valid(request=request, other=changed(request, party_id="florist"))


@calls("StatementService.RecordPayout")
async def record_payout(shop: Shop) -> Valid:
    closed = await shop.call(statement_pb2_grpc.StatementServiceStub, "CloseStatement", await payable(shop))
    assert closed.statement.payable_minor == 1_000
    request = statement_pb2.RecordPayoutRequest(
        request_id=new_id(),
        statement_id=closed.statement.statement_id,
        payout_state=statement_pb2.PAYOUT_STATE_PAID,
        reference="valid",
    )
    return Valid(request=request, other=changed(request, reference="other"))


@calls("SettlementService.PublishSplitRule")
async def publish_split_rule(_shop: Shop) -> Valid:
    shares = ((supplier_pb2.PARTY_KIND_SUPPLIER, "70"), (supplier_pb2.PARTY_KIND_BRAND, "30"))
    request = supplier_pb2.PublishSplitRuleRequest(
        request_id=new_id(),
        supplier_id="florist",
        shares=[supplier_pb2.SplitShare(party=party, percent=percent) for party, percent in shares],
    )
    other = changed(request)
    other.shares[0].percent, other.shares[1].percent = "60", "40"
    return Valid(request=request, other=other)
