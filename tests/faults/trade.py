"""Trade that goes on while things break: tills that sell, burn, refund and repeat until each call is answered."""

import asyncio
import random
from dataclasses import dataclass, field

from services.console.audit import Auditor, Finding
from services.console.stack.local import LocalStack
from services.runtime.errors import DomainError
from siyu.commerce.v1 import order_pb2, order_pb2_grpc
from tests.e2e.shop import CUP, FLOWERS, TEA, Shop

TILLS = 6
MEMBERS = 12
OPENING_POINTS = 2_000
BURN_SHARE = 0.3
REFUND_SHARE = 0.25
SETTLE_S = 90.0
PAUSE_S = 0.02
# what a till may be told and go on; everything else is a fault
ORDINARY = frozenset({"INSUFFICIENT_POINTS", "OUT_OF_STOCK"})


@dataclass(slots=True)
class Trade:
    """What was acknowledged: the till heard it, so it must stand whatever is killed."""

    shop: Shop
    seed: str
    members: list[str] = field(default_factory=list)
    orders: dict[str, order_pb2.Order] = field(default_factory=dict)
    refunds: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        """Registers the members with points to burn."""
        self.members = [await self.shop.member(points=OPENING_POINTS) for _ in range(MEMBERS)]

    async def run(self) -> None:
        """Sells at every till until stopped."""
        await asyncio.gather(*(self._till(number) for number in range(TILLS)))

    def stop(self) -> None:
        """Lets every till finish its call and close."""
        self._stop.set()

    async def _till(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        while not self._stop.is_set():
            try:
                await self._sale(chance)
            except DomainError as error:
                if error.reason not in ORDINARY:
                    raise
                self.refused.append(error.reason)
            await asyncio.sleep(PAUSE_S)

    async def _sale(self, chance: random.Random) -> None:
        goods = [(sku, chance.randint(1, 3)) for sku in (TEA, CUP, FLOWERS) if chance.random() < 0.6] or [(TEA, 1)]
        burn = chance.choice((100, 250, 400)) if chance.random() < BURN_SHARE else 0
        order = await self.shop.sell(self.shop.basket(*goods, member_id=chance.choice(self.members), burn_points=burn))
        self.orders[order.order_id] = order
        if chance.random() < REFUND_SHARE:
            line = chance.choice(order.lines)
            request = order_pb2.RefundOrderRequest(
                request_id=f"refund-{order.order_id}",
                order_id=order.order_id,
                lines=[order_pb2.RefundLine(line_id=line.line_id, quantity=1, restock=True)],
            )
            try:
                reply = await self.shop.call(order_pb2_grpc.OrderServiceStub, "RefundOrder", request)
            except DomainError as error:
                # a supplier's silence may have refunded the unit first
                if error.reason != "UNITS_ALREADY_REFUNDED":
                    raise
            else:
                self.refunds[order.order_id] = reply.refund.amount_minor

    async def verify(self, stack: LocalStack) -> list[Finding]:
        """Checks that all that was acknowledged stands, and returns what the audit finds wrong."""
        for order_id, told in self.orders.items():
            await self.shop.settled(order_id)
            found = await self.shop.call(
                order_pb2_grpc.OrderServiceStub, "GetOrder", order_pb2.GetOrderRequest(order_id=order_id)
            )
            assert found.order.net_minor == told.net_minor
            assert found.order.state not in {order_pb2.ORDER_STATE_PENDING_PAYMENT, order_pb2.ORDER_STATE_CANCELLED}
            assert found.order.refunded_minor >= self.refunds.get(order_id, 0)
        auditor = Auditor(addresses=stack.addresses, client_secret=stack.client_secret("service:console"))
        return [each for each in await auditor.audit(self.shop.tenant_id, wait_s=SETTLE_S) if not each.ok]
