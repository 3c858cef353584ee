"""Valid calls of commerce's catalogue, stock, orders and tills."""

from services.runtime.ids import new_id
from siyu.commerce.v1 import catalogue_pb2, order_pb2, order_pb2_grpc
from tests.e2e.shop import STORE, TEA, Shop
from tests.e2e.valid_calls.table import Valid, calls, changed


@calls("CatalogueService.BatchUpsertProducts")
async def batch_upsert_products(_shop: Shop) -> Valid:
    request = catalogue_pb2.BatchUpsertProductsRequest(
        request_id=new_id(), products=[catalogue_pb2.Product(sku="valid", display_name="Valid")]
    )
    other = changed(request)
    other.products[0].display_name = "Other"
    return Valid(request=request, other=other)


@calls("CatalogueService.BatchSetPrices")
async def batch_set_prices(_shop: Shop) -> Valid:
    price = catalogue_pb2.ListPrice(sku=TEA, store_id=STORE, channel="valid", price_minor=100)
    request = catalogue_pb2.BatchSetPricesRequest(request_id=new_id(), prices=[price])
    other = changed(request)
    other.prices[0].price_minor = 101
    return Valid(request=request, other=other)


@calls("StockService.PostDocument")
async def post_document(_shop: Shop) -> Valid:
    request = catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
        store_id=STORE,
        lines=[catalogue_pb2.StockDocumentLine(sku=TEA, quantity=1)],
    )
    return Valid(request=request, other=changed(request, reason="other"))


@calls("OrderService.PlaceOrder")
async def place_order(shop: Shop) -> Valid:
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=shop.basket((TEA, 1)))
    return Valid(request=request, other=changed(request, payment_ttl_s=60))


async def placed(shop: Shop) -> str:
    """An order that waits for payment."""
    request = (await place_order(shop)).request
    reply = await shop.call(order_pb2_grpc.OrderServiceStub, "PlaceOrder", request)
    return str(reply.order.order_id)


@calls("OrderService.PayOrder")
async def pay_order(shop: Shop) -> Valid:
    request = order_pb2.PayOrderRequest(
        request_id=new_id(), order_id=await placed(shop), payments=[order_pb2.Payment(tender=order_pb2.TENDER_CARD)]
    )
    other = changed(request)
    other.payments[0].tender = order_pb2.TENDER_CASH
    return Valid(request=request, other=other)


@calls("OrderService.CancelOrder")
async def cancel_order(shop: Shop) -> Valid:
    request = order_pb2.CancelOrderRequest(request_id=new_id(), order_id=await placed(shop))
    return Valid(request=request, other=changed(request, reason="other"))


@calls("OrderService.RefundOrder")
async def refund_order(shop: Shop) -> Valid:
    order = await shop.sell(shop.basket((TEA, 3)))
    request = order_pb2.RefundOrderRequest(
        request_id=new_id(), order_id=order.order_id, lines=[order_pb2.RefundLine(line_id="1", quantity=1)]
    )
    other = changed(request)
    other.lines[0].quantity = 2
    return Valid(request=request, other=other)


@calls("PosService.Sell")
async def sell(shop: Shop) -> Valid:
    request = shop.sale(shop.basket((TEA, 1)))
    other = changed(request)
    other.sale.sale_number = f"other-{new_id()}"
    return Valid(request=request, other=other, caller=shop.till)


@calls("PosService.ReplayOfflineSales")
async def replay_offline_sales(shop: Shop) -> Valid:
    sale = shop.sale(shop.basket((TEA, 1))).sale
    sale.occurred_at.GetCurrentTime()
    request = order_pb2.ReplayOfflineSalesRequest(
        store_id=STORE, sales=[order_pb2.OfflineSale(request_id=new_id(), sale=sale, charged_minor=[4_300])]
    )
    other = changed(request)
    other.sales[0].sale.sale_number = f"other-{new_id()}"
    return Valid(request=request, other=other, caller=shop.till)


@calls("PosService.ResolveException")
async def resolve_exception(shop: Shop) -> Valid:
    request = (await replay_offline_sales(shop)).request
    request.sales[0].charged_minor[0] = 4_200
    replayed = await shop.call(order_pb2_grpc.PosServiceStub, "ReplayOfflineSales", request, caller=shop.till)
    resolve = order_pb2.ResolveExceptionRequest(
        request_id=new_id(), exception_id=replayed.verdicts[0].exceptions[0].exception_id, note="agreed with the guest"
    )
    return Valid(request=resolve, other=changed(resolve, note="other"))
