"""Reads what Siyu has in its books, order by order and member by member: the report sees nothing else."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.console.demo import rules
from services.console.demo.calls import Caller, Wire
from services.console.demo.tills import till_id
from siyu.campaign.v1 import promotion_pb2
from siyu.commerce.v1 import order_pb2, order_pb2_grpc, supplier_pb2, supplier_pb2_grpc
from siyu.identity.v1 import store_pb2, store_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc

STORES_A_PAGE = 500
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
    """A member's points as loyalty has them, and what its entries sum to by kind.

    `welcome` and `by_hand` are of what was earned: the demo's welcome, and what somebody granted since."""

    available: int
    pending: int
    held: int
    debt: int
    tier: str
    by_kind: dict[str, int]
    welcome: int = 0
    by_hand: int = 0

    @property
    def taken_back(self) -> int:
        """Points that refunds took back, those included that the member did not have any more, and owed."""
        # an entry tells what it does to points: of a debt 0, and of its repayment what was repaid
        return self.debt - self.by_kind.get("REPAY", 0) - self.by_kind.get("TAKE_BACK", 0)

    @property
    def gained(self) -> int:
        """Earned less burnt, plus given back, less taken back, less expired: available, held and pending, less owed."""
        kinds = self.by_kind
        moved = sum(kinds.get(kind, 0) for kind in ("EARN", "BURN", "GIVE_BACK", "EXPIRE"))
        return moved - self.taken_back


@dataclass(slots=True)
class Books:
    """Everything that is compared. Orders by the basket's number, members by the household's, parties by kind/id.

    What somebody sold by hand since the replay stands apart: `own_sales` and their cents, the households that bought
    (or were granted points), and whether suppliers' goods were among it."""

    orders: dict[int, BookedOrder] = field(default_factory=dict)
    sold_twice: int = 0
    own_sales: int = 0
    own_net: int = 0
    own_households: set[int] = field(default_factory=set)
    own_supplied: bool = False
    members: dict[int, BookedMember] = field(default_factory=dict)
    parties: dict[str, tuple[int, int]] = field(default_factory=dict)
    supplier_states: Counter[str] = field(default_factory=Counter)


class Reader:
    """Reads as the brand's head office."""

    def __init__(self, wire: Wire, admin: Caller) -> None:
        """`admin` may read orders, points, tiers and settlement."""
        self._wire = wire
        self._admin = admin

    async def read(self, *, sales: Collection[int], members: dict[int, str], parties: Iterable[str]) -> Books:
        """All orders of all stores, all members, all parties' statements, all supplier orders.

        `sales` are the baskets of the files; an order that is none of them was sold by hand."""
        books = Books()
        household_of = {member_id: household for household, member_id in members.items()}

        async def store(store_id: str) -> None:
            async for order in self._orders_of(store_id):
                basket = basket_of(order)
                if basket is None or basket not in sales:
                    books.own_sales += 1
                    books.own_net += order.net_minor
                    books.own_supplied |= any(line.supplier_id for line in order.lines)
                    if order.member_id in household_of:
                        books.own_households.add(household_of[order.member_id])
                elif basket in books.orders:
                    books.sold_twice += 1
                else:
                    books.orders[basket] = booked(order)

        async def member(pair: tuple[int, str]) -> None:
            books.members[pair[0]] = await self._member(pair[1])
            if books.members[pair[0]].by_hand:
                books.own_households.add(pair[0])

        async def party(name: str) -> None:
            books.parties[name] = await self._statement(name)

        await _each(await self._stores(), store)
        await _each(sorted(members.items()), member)
        await _each(sorted(parties), party)
        for supplier in rules.SUPPLIERS:
            books.supplier_states.update(await self._supplier_states(supplier.supplier_id))
        return books

    async def _stores(self) -> list[str]:
        """All of them: somebody may have opened another since the replay."""
        stub = self._wire.stub(store_pb2_grpc.StoreServiceStub)
        found: list[str] = []
        page_token = ""
        while True:
            request = store_pb2.ListStoresRequest(page_size=STORES_A_PAGE, page_token=page_token)
            reply = await self._wire.call(stub.ListStores, request, caller=self._admin)
            found += [store.store_id for store in reply.stores]
            page_token = reply.next_page_token
            if not page_token:
                return found

    async def _orders_of(self, store_id: str) -> AsyncIterator[order_pb2.Order]:
        stub = self._wire.stub(order_pb2_grpc.OrderServiceStub)
        page_token = ""
        while True:
            reply = await self._wire.call(
                stub.ListOrders,
                order_pb2.ListOrdersRequest(store_id=store_id, page_size=ORDERS_A_PAGE, page_token=page_token),
                caller=self._admin,
            )
            for order in reply.orders:
                yield order
            page_token = reply.next_page_token
            if not page_token:
                return

    async def _member(self, member_id: str) -> BookedMember:
        points = self._wire.stub(points_pb2_grpc.PointsServiceStub)
        name = {"member_id": member_id, "point_currency": rules.POINT_CURRENCY}
        # first the balance: it posts what is due by the clock, so that the entries tell it
        balance = await self._wire.call(points.GetBalance, points_pb2.GetBalanceRequest(**name), caller=self._admin)
        by_kind: Counter[str] = Counter()
        granted: Counter[bool] = Counter()
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
                if kind == "EARN" and not entry.order_id:
                    granted[entry.why == rules.WELCOME] += entry.points + entry.pending_points
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
            welcome=granted[True],
            by_hand=granted[False],
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


def basket_of(order: order_pb2.Order) -> int | None:
    """The basket of the files that a till of the replay sold as this order; None if it was somebody else's."""
    if not re.fullmatch(r"[0-9]{1,18}", order.sale_number):
        return None
    basket = int(order.sale_number)
    return basket if order.till_id == till_id(order.store_id, basket) else None


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
