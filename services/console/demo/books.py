"""Reads what Siyu has in its books, order by order and member by member: the report sees nothing else."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.console.demo import rules
from services.console.demo.calls import Caller, Wire
from services.console.demo.intake import store_id
from siyu.campaign.v1 import promotion_pb2
from siyu.commerce.v1 import order_pb2, order_pb2_grpc, supplier_pb2, supplier_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc

ORDERS_A_PAGE = 100
ENTRIES_A_PAGE = 200
SUPPLIER_ORDERS_A_PAGE = 500
READS_AT_ONCE = 16

Item = TypeVar("Item")
LineFigures = tuple[int, int, int, int, int]
"""A line's shelf price, net price, part paid with points (all cents), burnt points, and units that came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedOrder:
    """An order as commerce has it; money in cents. Discounts by source; coupons by template."""

    shelf: int
    net: int
    refunded: int
    burnt: int
    quoted: int
    by_source: dict[str, int]
    coupons: dict[str, int]
    lines: dict[str, LineFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedMember:
    """A member's points as loyalty has them, and what its entries sum to by kind."""

    available: int
    pending: int
    held: int
    debt: int
    tier: str
    by_kind: dict[str, int]


@dataclass(slots=True)
class Books:
    """Everything that is compared. Orders by the basket's number, members by the household's, parties by kind/id."""

    orders: dict[int, BookedOrder] = field(default_factory=dict)
    members: dict[int, BookedMember] = field(default_factory=dict)
    parties: dict[str, tuple[int, int]] = field(default_factory=dict)
    supplier_states: Counter[str] = field(default_factory=Counter)


class Reader:
    """Reads as the brand's head office."""

    def __init__(self, wire: Wire, admin: Caller) -> None:
        """`admin` may read orders, points, tiers and settlement."""
        self._wire = wire
        self._admin = admin

    async def read(self, *, stores: Iterable[int], members: dict[int, str], parties: Iterable[str]) -> Books:
        """All orders of the stores, all members, all parties' statements, all supplier orders."""
        books = Books()

        async def store(number: int) -> None:
            books.orders.update(await self._orders_of(number))

        async def member(pair: tuple[int, str]) -> None:
            books.members[pair[0]] = await self._member(pair[1])

        async def party(name: str) -> None:
            books.parties[name] = await self._statement(name)

        await _each(list(stores), store)
        await _each(sorted(members.items()), member)
        await _each(sorted(parties), party)
        for supplier in rules.SUPPLIERS:
            books.supplier_states.update(await self._supplier_states(supplier.supplier_id))
        return books

    async def _orders_of(self, number: int) -> dict[int, BookedOrder]:
        stub = self._wire.stub(order_pb2_grpc.OrderServiceStub)
        found: dict[int, BookedOrder] = {}
        page_token = ""
        while True:
            reply = await self._wire.call(
                stub.ListOrders,
                order_pb2.ListOrdersRequest(store_id=store_id(number), page_size=ORDERS_A_PAGE, page_token=page_token),
                caller=self._admin,
            )
            for order in reply.orders:
                found[int(order.sale_number)] = booked(order)
            page_token = reply.next_page_token
            if not page_token:
                return found

    async def _member(self, member_id: str) -> BookedMember:
        points = self._wire.stub(points_pb2_grpc.PointsServiceStub)
        name = {"member_id": member_id, "point_currency": rules.POINT_CURRENCY}
        # first the balance: it posts what is due by the clock, so that the entries tell it
        balance = await self._wire.call(points.GetBalance, points_pb2.GetBalanceRequest(**name), caller=self._admin)
        by_kind: Counter[str] = Counter()
        page_token = ""
        while True:
            reply = await self._wire.call(
                points.ListEntries,
                points_pb2.ListEntriesRequest(**name, page_size=ENTRIES_A_PAGE, page_token=page_token),
                caller=self._admin,
            )
            for entry in reply.entries:
                kind = points_pb2.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_")
                by_kind[kind] += entry.points + entry.pending_points
            page_token = reply.next_page_token
            if not page_token:
                break
        tier = await self._wire.call(
            self._wire.stub(programme_pb2_grpc.TierServiceStub).GetTier,
            programme_pb2.GetTierRequest(**name),
            caller=self._admin,
        )
        return BookedMember(
            available=balance.available_points,
            pending=balance.pending_points,
            held=balance.held_points,
            debt=balance.debt_points,
            tier=tier.tier_id,
            by_kind=dict(by_kind),
        )

    async def _statement(self, party: str) -> tuple[int, int]:
        kind, _, party_id = party.partition("/")
        reply = await self._wire.call(
            self._wire.stub(supplier_pb2_grpc.SettlementServiceStub).GetStatement,
            supplier_pb2.GetStatementRequest(
                party_kind=supplier_pb2.PartyKind.Value(f"PARTY_KIND_{kind}"), party_id=party_id, page_size=1
            ),
            caller=self._admin,
        )
        return reply.earned_minor, reply.reversed_minor

    async def _supplier_states(self, supplier_id: str) -> Counter[str]:
        states: Counter[str] = Counter()
        page_token = ""
        while True:
            reply = await self._wire.call(
                self._wire.stub(supplier_pb2_grpc.SupplierServiceStub).ListSupplierOrders,
                supplier_pb2.ListSupplierOrdersRequest(
                    supplier_id=supplier_id, page_size=SUPPLIER_ORDERS_A_PAGE, page_token=page_token
                ),
                caller=self._admin,
            )
            for order in reply.supplier_orders:
                name = supplier_pb2.SupplierOrderState.Name(order.state)
                states[name.removeprefix("SUPPLIER_ORDER_STATE_").lower().replace("_", " ")] += 1
            page_token = reply.next_page_token
            if not page_token:
                return states


def booked(order: order_pb2.Order) -> BookedOrder:
    """The figures of an order that are compared."""
    by_source: Counter[str] = Counter()
    coupons: Counter[str] = Counter()
    for line in order.lines:
        for discount in line.discounts:
            source = promotion_pb2.DiscountSource.Name(discount.source).removeprefix("DISCOUNT_SOURCE_")
            by_source[source] += discount.amount_minor
            if discount.source == promotion_pb2.DISCOUNT_SOURCE_COUPON:
                coupons[discount.source_id] += discount.amount_minor
    return BookedOrder(
        shelf=order.shelf_minor,
        net=order.net_minor,
        refunded=order.refunded_minor,
        burnt=order.burnt_points,
        quoted=order.quoted_points,
        by_source=dict(by_source),
        coupons=dict(coupons),
        lines={
            line.line_id: (
                line.shelf_minor,
                line.net_minor,
                line.points_tender_minor,
                line.burnt_points,
                line.refunded_quantity,
            )
            for line in order.lines
        },
    )


async def _each(items: Sequence[Item], work: Callable[[Item], Awaitable[None]]) -> None:
    waiting = list(reversed(items))

    async def some() -> None:
        while waiting:
            await work(waiting.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(READS_AT_ONCE, len(waiting))):
            group.create_task(some())
