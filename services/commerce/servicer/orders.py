"""OrderService."""

from dataclasses import dataclass
from typing import Final

from services.commerce.convert import orders as convert
from services.commerce.domain.orders import Order
from services.commerce.store.order_lists import Mark
from services.commerce.usecases import placing, reading, refunding
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.ids import OrderId
from services.runtime.pages import id_in, key_of, time_in, token_after
from siyu.commerce.v1 import order_pb2

SERVICE = order_pb2.DESCRIPTOR.services_by_name["OrderService"]
DEFAULT_ORDERS: Final = 20
DEFAULT_WAIT_MS: Final = 2_000
_REFUNDS = rule_of(SERVICE.methods_by_name["RefundOrder"]).family
assert rule_of(SERVICE.methods_by_name["PlaceOrder"]).family == placing.FAMILY


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderServicer:
    """Serves OrderService; `partitions` is the number of commerce's log."""

    shop: Shop
    partitions: int

    async def quote_order(self, request: order_pb2.QuoteOrderRequest, call: Call) -> order_pb2.QuoteOrderResponse:
        """Prices a basket."""
        priced = await placing.quote(
            self.shop, call, convert.basket(request.basket), occurred_at=convert.occurred(request)
        )
        return convert.quoted(priced)

    async def place_order(self, request: order_pb2.PlaceOrderRequest, call: Call) -> order_pb2.PlaceOrderResponse:
        """Places an order and holds everything for it."""
        once = idempotency.once(
            call, family=placing.FAMILY, request=request, encode=convert.placed_reply, keep_refusals=True
        )
        reply = await placing.place(self.shop, call, convert.placing(request), once)
        return order_pb2.PlaceOrderResponse.FromString(reply)

    async def pay_order(self, request: order_pb2.PayOrderRequest, call: Call) -> order_pb2.PayOrderResponse:
        """Pays a placed order in full."""
        once = idempotency.once(
            call, family=placing.FAMILY, request=request, encode=convert.paid_reply, keep_refusals=True
        )
        order_id = OrderId(request.order_id.lower())
        reply = await placing.pay(self.shop, call, order_id, convert.payments(request.payments), once)
        return order_pb2.PayOrderResponse.FromString(reply)

    async def cancel_order(self, request: order_pb2.CancelOrderRequest, call: Call) -> order_pb2.CancelOrderResponse:
        """Cancels an order that is not paid."""
        once = idempotency.once(
            call, family=placing.FAMILY, request=request, encode=convert.cancelled_reply, keep_refusals=True
        )
        order_id = OrderId(request.order_id.lower())
        reply = await placing.cancel(self.shop, call, order_id, reason=request.reason, once=once)
        return order_pb2.CancelOrderResponse.FromString(reply)

    async def refund_order(self, request: order_pb2.RefundOrderRequest, call: Call) -> order_pb2.RefundOrderResponse:
        """Refunds units of lines."""
        once = idempotency.once(
            call, family=_REFUNDS, request=request, encode=convert.refunded_reply, keep_refusals=True
        )
        reply = await refunding.refund(self.shop, call, convert.refunding(request), once)
        return order_pb2.RefundOrderResponse.FromString(reply)

    async def get_order(self, request: order_pb2.GetOrderRequest, call: Call) -> order_pb2.GetOrderResponse:
        """Reads an order with its refunds."""
        found = await reading.order(self.shop, call, OrderId(request.order_id.lower()))
        return order_pb2.GetOrderResponse(
            order=convert.order_message(found.order),
            refunds=[convert.refund_message(refund, found.order.payments) for refund in found.refunds],
        )

    async def list_orders(self, request: order_pb2.ListOrdersRequest, call: Call) -> order_pb2.ListOrdersResponse:
        """Lists orders, newest first."""
        limit = request.page_size or DEFAULT_ORDERS
        found = await reading.page(
            self.shop,
            call,
            store_id=request.store_id,
            member_id=request.member_id.lower(),
            after=_mark(request.page_token),
            limit=limit,
        )
        return order_pb2.ListOrdersResponse(
            orders=[convert.order_message(order) for order in found],
            next_page_token=_token(found[-1]) if len(found) == limit else "",
        )

    async def wait_for_order(
        self, request: order_pb2.WaitForOrderRequest, call: Call
    ) -> order_pb2.WaitForOrderResponse:
        """Waits for those who follow by event."""
        still_open = await reading.wait_for(
            self.shop,
            call,
            OrderId(request.order_id.lower()),
            timeout_s=(request.timeout_ms or DEFAULT_WAIT_MS) / 1000,
            partitions=self.partitions,
        )
        return order_pb2.WaitForOrderResponse(settled=not still_open, open=still_open)


def _token(order: Order) -> str:
    return token_after(f"{order.occurred_at.isoformat()} {order.order_id}")


def _mark(token: str) -> Mark | None:
    key = key_of(token)
    if not key:
        return None
    at, _, order_id = key.partition(" ")
    return Mark(occurred_at=time_in(at), order_id=OrderId(id_in(order_id)))
