"""What a till does: it sells, asks what a customer may burn, refunds, and uploads what it sold without a link."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from services.console.demo import rules
from services.console.demo.brand import Brand
from services.console.demo.calls import Caller, Wire
from services.console.demo.dataset import Basket, Product
from services.console.demo.intake import accepted_lines, line_id, sku, store_id, units
from services.console.demo.opening import stamp
from services.console.demo.plan import RefundIntent
from services.console.demo.prices import charged_offline
from services.console.demo.seed import card_number
from services.runtime.clock import start_of_day
from siyu.commerce.v1 import order_pb2, order_pb2_grpc
from siyu.identity.v1 import member_pb2
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc

TILLS_A_STORE = 4
REFUND_HOUR = 8
SALES_AN_UPLOAD = 100
WAIT_MS = 5_000
UPLOAD_TIMEOUT_S = 60.0


def till_id(store: str, basket_id: int) -> str:
    """The till that sells the basket."""
    return f"{store}-{basket_id % TILLS_A_STORE + 1}"


@dataclass(slots=True)
class Tills:
    """All tills of the brand, each store with its own client. Remembers which order a basket became."""

    wire: Wire
    brand: Brand
    products: Mapping[int, Product]
    orders: dict[int, str] = field(default_factory=dict)
    stores: dict[int, int] = field(default_factory=dict)
    _callers: dict[int, Caller] = field(default_factory=dict)

    def caller(self, store: int) -> Caller:
        """The store's client."""
        if store not in self._callers:
            self._callers[store] = self.brand.caller(store_id(store))
        return self._callers[store]

    async def sell(self, basket: Basket, *, codes: Sequence[str], burns: bool) -> None:
        """One call to sell; before it, a look at the balance if the customer wants to burn."""
        caller = self.caller(basket.store_id)
        burn = await self._points_to_burn(basket, caller) if burns else 0
        request = order_pb2.SellRequest(
            request_id=f"sale-{basket.basket_id}", sale=self._sale(basket, codes=codes, burn_points=burn)
        )
        reply = await self.wire.call(self.wire.stub(order_pb2_grpc.PosServiceStub).Sell, request, caller=caller)
        self._remember(basket, reply.order)

    async def refund(self, intent: RefundIntent, number: int) -> str:
        """Units come back at eight in the morning; returns the order's id."""
        order_id = self.orders[intent.basket_id]
        morning = start_of_day(intent.when, rules.TIME_ZONE) + timedelta(hours=REFUND_HOUR)
        request = order_pb2.RefundOrderRequest(
            request_id=f"refund-{intent.basket_id}-{number}",
            order_id=order_id,
            lines=[
                order_pb2.RefundLine(line_id=str(line), quantity=quantity, restock=True)
                for line, quantity in intent.lines
            ],
            reason="changed their mind",
            occurred_at=stamp(morning),
        )
        stub = self.wire.stub(order_pb2_grpc.OrderServiceStub)
        await self.wire.call(stub.RefundOrder, request, caller=self.caller(self.stores[intent.basket_id]))
        return order_id

    async def upload(
        self, baskets: Sequence[Basket], discounts: Mapping[int, int], lists: Mapping[int, str]
    ) -> list[Any]:
        """Sends a store's off-line sales; returns the verdicts. `lists` tells which tills had the member prices."""
        store = baskets[0].store_id
        request = order_pb2.ReplayOfflineSalesRequest(
            store_id=store_id(store),
            sales=[
                order_pb2.OfflineSale(
                    request_id=f"offline-{basket.basket_id}",
                    sale=self._sale(basket, codes=(), burn_points=0),
                    charged_minor=charged_offline(
                        basket, discounts, self.products, has_list=lists[basket.basket_id] == "cached"
                    ),
                )
                for basket in baskets
            ],
        )
        stub = self.wire.stub(order_pb2_grpc.PosServiceStub)
        reply = await self.wire.call(
            stub.ReplayOfflineSales, request, caller=self.caller(store), timeout_s=UPLOAD_TIMEOUT_S
        )
        for basket, verdict in zip(baskets, reply.verdicts, strict=True):
            if verdict.HasField("order"):
                self._remember(basket, verdict.order)
        return list(reply.verdicts)

    async def settle(self, basket_id: int) -> None:
        """Returns when loyalty, campaign and fulfilment have done their part of the basket's order."""
        stub = self.wire.stub(order_pb2_grpc.OrderServiceStub)
        request = order_pb2.WaitForOrderRequest(order_id=self.orders[basket_id], timeout_ms=WAIT_MS)
        while True:
            reply = await self.wire.call(stub.WaitForOrder, request, caller=self.caller(self.stores[basket_id]))
            if reply.settled:
                return

    async def _points_to_burn(self, basket: Basket, caller: Caller) -> int:
        reply = await self.wire.call(
            self.wire.stub(points_pb2_grpc.PointsServiceStub).GetBalance,
            points_pb2.GetBalanceRequest(
                member_id=self.brand.members[basket.household_id], point_currency=rules.POINT_CURRENCY
            ),
            caller=caller,
        )
        return int(
            min(reply.available_points // rules.BURN_STEP_POINTS * rules.BURN_STEP_POINTS, rules.BURN_MAX_POINTS)
        )

    def _sale(self, basket: Basket, *, codes: Sequence[str], burn_points: int) -> order_pb2.Sale:
        return order_pb2.Sale(
            till_id=till_id(store_id(basket.store_id), basket.basket_id),
            sale_number=str(basket.basket_id),
            occurred_at=stamp(basket.at),
            basket=order_pb2.Basket(
                store_id=store_id(basket.store_id),
                channel="pos",
                identifier=member_pb2.Identifier(
                    type=member_pb2.IDENTIFIER_TYPE_CARD, value=card_number(basket.household_id)
                ),
                lines=[
                    order_pb2.BasketLine(
                        line_id=line_id(line),
                        sku=sku(line.product_id),
                        quantity=units(line),
                        price_source=order_pb2.PRICE_SOURCE_POS,
                        shelf_minor=line.shelf_cents,
                    )
                    for line in accepted_lines(basket)
                ],
                coupon_codes=codes,
                burn_points=burn_points,
                point_currency=rules.POINT_CURRENCY,
                currency_code=rules.CURRENCY,
            ),
            # the card pays what points leave
            payments=[order_pb2.Payment(tender=order_pb2.TENDER_CARD)],
        )

    def _remember(self, basket: Basket, order: order_pb2.Order) -> None:
        self.orders[basket.basket_id] = order.order_id
        self.stores[basket.basket_id] = basket.store_id
