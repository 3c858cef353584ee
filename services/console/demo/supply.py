"""The suppliers' side: in the evening each answers what it was asked that day, and sends its parcels, some late."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from services.console.demo import rules
from services.console.demo.calls import Caller, Wire
from services.console.demo.plan import SupplierIntent
from services.console.demo.tills import Tills
from siyu.commerce.v1 import supplier_pb2, supplier_pb2_grpc

PAGE = 500
POLL_S = 0.05
ASKED_WITHIN_S = 60.0
HOUSEHOLDS_AT_ONCE = 16


class NeverAsked(Exception):
    """A supplier was not asked for goods that were sold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a supplier is expected to be asked for: its part of a basket."""

    basket_id: int
    household_id: int
    supplier_id: str
    intent: SupplierIntent


@dataclass(slots=True)
class Suppliers:
    """Simulates the suppliers by the plan."""

    wire: Wire
    tills: Tills
    callers: Mapping[str, Caller]
    answers: Counter[str] = field(default_factory=Counter)
    late: dict[date, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    async def evening(self, day: date, requests: Sequence[Request]) -> list[int]:
        """Answers the day's requests, a household's one after the other, and ships what was promised for today.

        Returns the baskets that were answered last, as many as are answered at once.
        """
        asked = await self._asked(requests)
        households: dict[int, list[Request]] = defaultdict(list)
        for request in requests:
            households[request.household_id].append(request)
        latest: deque[int] = deque(maxlen=HOUSEHOLDS_AT_ONCE)
        room = asyncio.Semaphore(HOUSEHOLDS_AT_ONCE)

        async def answer_all(own: list[Request]) -> None:
            async with room:
                for request in own:
                    await self._answer(request, asked[request.basket_id, request.supplier_id], day)
                    latest.append(request.basket_id)

        async with asyncio.TaskGroup() as group:
            for own in households.values():
                group.create_task(answer_all(own))
        for supplier_id, supplier_order_id in self.late.pop(day, []):
            await self._ship(supplier_id, supplier_order_id)
        return list(latest)

    async def _asked(self, requests: Sequence[Request]) -> dict[tuple[int, str], str]:
        """The supplier orders of the requests, by basket and supplier; waits until all have come."""
        wanted = {(self.tills.orders[each.basket_id], each.supplier_id): each.basket_id for each in requests}
        found: dict[tuple[int, str], str] = {}
        for _ in range(int(ASKED_WITHIN_S / POLL_S)):
            for supplier_id in sorted({supplier for _, supplier in wanted}):
                for order in await self._open(supplier_id):
                    basket_id = wanted.get((order.order_id, supplier_id))
                    if basket_id is not None:
                        found[basket_id, supplier_id] = order.supplier_order_id
            if len(found) == len(wanted):
                return found
            await asyncio.sleep(POLL_S)
        raise NeverAsked(f"{len(wanted) - len(found)} supplier orders did not come within {ASKED_WITHIN_S:.0f} s")

    async def _open(self, supplier_id: str) -> list[supplier_pb2.SupplierOrder]:
        stub = self.wire.stub(supplier_pb2_grpc.SupplierServiceStub)
        orders: list[supplier_pb2.SupplierOrder] = []
        page_token = ""
        while True:
            reply = await self.wire.call(
                stub.ListSupplierOrders,
                supplier_pb2.ListSupplierOrdersRequest(
                    supplier_id=supplier_id,
                    state=supplier_pb2.SUPPLIER_ORDER_STATE_REQUESTED,
                    page_size=PAGE,
                    page_token=page_token,
                ),
                caller=self.callers[supplier_id],
            )
            orders.extend(reply.supplier_orders)
            page_token = reply.next_page_token
            if not page_token:
                return orders

    async def _answer(self, request: Request, supplier_order_id: str, day: date) -> None:
        intent, supplier_id = request.intent, request.supplier_id
        stub = self.wire.stub(supplier_pb2_grpc.SupplierServiceStub)
        self.answers[intent.answer] += 1
        if intent.answer == "reject":
            await self.wire.call(
                stub.RejectSupplierOrder,
                supplier_pb2.RejectSupplierOrderRequest(
                    request_id=f"reject-{supplier_order_id}", supplier_order_id=supplier_order_id, reason="sold out"
                ),
                caller=self.callers[supplier_id],
            )
            return
        await self.wire.call(
            stub.AcceptSupplierOrder,
            supplier_pb2.AcceptSupplierOrderRequest(
                request_id=f"accept-{supplier_order_id}",
                supplier_order_id=supplier_order_id,
                lines=[
                    supplier_pb2.SupplierUnits(line_id=str(number), quantity=quantity)
                    for number, quantity in intent.lines
                ],
            ),
            caller=self.callers[supplier_id],
        )
        if intent.answer == "late":
            self.late[day + timedelta(days=rules.SUPPLIER_LATE_DAYS)].append((supplier_id, supplier_order_id))
        else:
            await self._ship(supplier_id, supplier_order_id)

    async def _ship(self, supplier_id: str, supplier_order_id: str) -> None:
        stub = self.wire.stub(supplier_pb2_grpc.SupplierServiceStub)
        await self.wire.call(
            stub.ShipParcel,
            supplier_pb2.ShipParcelRequest(
                request_id=f"ship-{supplier_order_id}",
                supplier_order_id=supplier_order_id,
                carrier="Parcel post",
                tracking_number=f"P{supplier_order_id[-12:]}",
            ),
            caller=self.callers[supplier_id],
        )
