"""A tenant with a programme, and the desks over a database of the test's own."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest_asyncio

from services.loyalty import convert
from services.loyalty.domain.accrual import Line
from services.loyalty.domain.grants import GrantKind, Grants, GrantsAsked
from services.loyalty.domain.orders import PaidOrder, Refund, RefundedUnits
from services.loyalty.domain.points import Accrued
from services.loyalty.domain.programme import EarnRule, ExpiryClass, Programme, Tier, TierWindow
from services.loyalty.domain.requests import HoldAsked, ResolveAsked
from services.loyalty.store import audit as audit_store
from services.loyalty.store import programmes
from services.loyalty.store.orders import SELLER
from services.loyalty.usecases.members import MemberFollowing, MergedMembers
from services.loyalty.usecases.orders import OrderPosting
from services.loyalty.usecases.points import PointsDesk, batchers
from services.loyalty.usecases.programmes import ProgrammeBook
from services.loyalty.usecases.sweeps import Sweeper
from services.loyalty.usecases.tiers import TierDesk, TierEnding
from services.runtime import tenants
from services.runtime.audit import AuditDesk
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import FixedClock
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.settings import Settings
from services.runtime.tenants import Tenant
from siyu.loyalty.v1 import events_pb2

NOON = datetime(2026, 1, 1, 4, tzinfo=UTC)
"""Noon in Shanghai."""
MACHINE = datetime(2026, 6, 1, tzinfo=UTC)
CURRENCY = "points"

PROGRAMME = Programme(
    point_currency=CURRENCY,
    display_name="Points",
    expiry_classes=(ExpiryClass(class_id="year", days=365), ExpiryClass(class_id="bonus", days=7)),
    return_window_days=0,
    grace_days=30,
    earn_rules=(
        EarnRule(rule_id="base", points=Decimal(1), per_minor=100, expiry_class="year", tier_multiplied=True),
        EarnRule(
            rule_id="dairy",
            points=Decimal("0.5"),
            per_minor=100,
            expiry_class="bonus",
            funder="dairy-co",
            categories=frozenset({"dairy"}),
        ),
    ),
    tiers=(
        Tier(tier_id="base"),
        Tier(tier_id="silver", multiplier=Decimal("1.5"), amount_minor=50_000),
        Tier(tier_id="gold", multiplier=Decimal(2), amount_minor=200_000),
    ),
    tier_window=TierWindow(rolling_days=90),
)


@dataclass(slots=True, kw_only=True)
class House:
    """Loyalty without its doors: desks, queues and the sweeper, at a business time that the test moves."""

    database: Database
    system: Database
    clock: FixedClock
    points: PointsDesk
    posting: OrderPosting
    following: MemberFollowing
    sweeper: Sweeper
    tiers: TierDesk
    audit_desk: AuditDesk
    tenant_id: str
    now: datetime = NOON
    orders: dict[str, PaidOrder] = field(default_factory=dict)

    def call(self, *, client_id: str = "till-1", time_zone: str = "Asia/Shanghai") -> Call:
        """A call at the current business time."""
        return Call(
            tenant_id=self.tenant_id,
            client_id=client_id,
            actor=Actor(kind=ActorKind.BACKEND, id=client_id),
            now=self.now,
            time_zone=time_zone,
            deadline_at=deadline_in(30),
        )

    async def publish(self, programme: Programme = PROGRAMME, *, effective_at: datetime | None = None) -> None:
        """Publishes a version, in force from now if nothing else is said."""

        async def work(connection: Any) -> None:
            await programmes.publish(connection, self.tenant_id, programme, effective_at=effective_at or self.now)

        await self.database.run(self.tenant_id, work)

    async def advance(self, **by: float) -> None:
        """Moves the tenant's test clock."""
        self.now += timedelta(**by)

        async def work(connection: Any) -> None:
            await tenants.apply(connection, self.tenant(version=int(self.now.timestamp())))

        await self.database.run(self.tenant_id, work)

    def tenant(self, *, version: int) -> Tenant:
        """The tenant at its business time."""
        return Tenant(
            id=self.tenant_id,
            time_zone="Asia/Shanghai",
            currency_code="CNY",
            test_clock_at=self.now,
            version=version,
        )

    async def pay(self, member_id: str, *bases: int, category: str = "", quantity: int = 1, **told: Any) -> PaidOrder:
        """An order of lines with these bases, paid and posted."""
        order = PaidOrder(
            order_id=new_id(),
            member_id=member_id,
            point_currency=CURRENCY,
            store_id="s1",
            channel="pos",
            occurred_at=told.pop("occurred_at", self.now),
            lines=tuple(
                Line(line_id=str(i), category=category, quantity=quantity, base_minor=base)
                for i, base in enumerate(bases)
            ),
            burnt_points=told.pop("burnt_points", 0),
            hold_id=told.pop("hold_id", ""),
            offline_burnt_points=told.pop("offline_burnt_points", 0),
        )
        self.orders[order.order_id] = order
        await self.post(order)
        return order

    async def refund(self, order: PaidOrder, *lines: tuple[str, int, int], whole_order: bool = False) -> None:
        """A refund of (line, units, points that go back)."""
        await self.post(self.refund_of(order, *lines, whole_order=whole_order))

    def refund_of(self, order: PaidOrder, *lines: tuple[str, int, int], whole_order: bool = False) -> Refund:
        """The refund as commerce would tell it."""
        return Refund(
            order_id=order.order_id,
            refund_id=new_id(),
            member_id=order.member_id,
            point_currency=CURRENCY,
            occurred_at=self.now,
            lines=tuple(
                RefundedUnits(line_id=line, quantity=units, returned_points=points) for line, units, points in lines
            ),
            whole_order=whole_order,
        )

    async def post(self, *facts: Any) -> None:
        """Posts facts in one transaction, as the queue does."""
        call = self.call(client_id="loyalty.accrual")
        await self.database.run(self.tenant_id, lambda connection: self.posting.post(connection, call, facts))

    async def merge(self, survivor: str, alias: str, *, merge_id: str = "") -> None:
        """Follows a merge of members, as the queue does."""
        call = self.call(client_id="loyalty.members")
        merge = MergedMembers(merge_id=merge_id or new_id(), member_id=survivor, alias_id=alias)
        await self.database.run(self.tenant_id, lambda connection: self.following.follow(connection, call, [merge]))

    async def grant(self, member_id: str, points: int, **asked: Any) -> Any:
        """A grant of points."""
        return await self.points.accrue(self.call(), grant(member_id, points, **asked))

    async def grant_all(self, asked: Iterable[GrantsAsked], call: Call | None = None) -> list[Accrued | DomainError]:
        """The verdicts of grants that one call asks for."""
        return (await self.points.accrue_many(call or self.call(), bundled(asked))).verdicts()

    async def ready(self, asked: Iterable[GrantsAsked]) -> Grants:
        """Grants that are ready to be posted, for one partition, and of which nothing is told."""
        bundle = bundled(asked)
        return Grants(
            asked=bundle,
            terms={number: await self.points.book.terms(self.call(), kind) for number, kind in enumerate(bundle.kinds)},
            entry_ids=[new_id() for _ in bundle.which],
            partitions=[0 for _ in bundle.which],
            event_parts=[b"" for _ in bundle.which],
            now=self.now,
            trace="",
        )

    def hold_asked(self, member_id: str, points: int, hold_id: str = "", **asked: Any) -> HoldAsked:
        """A hold as it is asked for."""
        return replace(
            HoldAsked(
                client_id=SELLER,
                request_id=new_id(),
                fingerprint=b"hold",
                hold_id=hold_id or new_id(),
                member_id=member_id,
                point_currency=CURRENCY,
                points=points,
                expires_at=self.clock.now() + timedelta(minutes=15),
                order_id="",
                is_too_old=False,
                now=self.now,
            ),
            **asked,
        )

    async def hold(self, member_id: str, points: int, hold_id: str = "", **asked: Any) -> Any:
        """Holds points."""
        return await self.points.hold(self.call(), self.hold_asked(member_id, points, hold_id, **asked))

    def resolve_asked(self, hold_id: str, *, is_capture: bool = True, points: int = 0, **asked: Any) -> ResolveAsked:
        """A capture or void as it is asked for."""
        return replace(
            ResolveAsked(
                client_id=SELLER,
                request_id=new_id(),
                fingerprint=b"resolve",
                hold_id=hold_id,
                is_capture=is_capture,
                points=points,
                now=self.now,
            ),
            **asked,
        )

    async def resolve(self, hold_id: str, **asked: Any) -> Any:
        """Captures or voids."""
        return await self.points.resolve(self.call(), self.resolve_asked(hold_id, **asked))

    async def balance(self, member_id: str) -> tuple[int, int, int, int]:
        """(available, pending, held, debt)."""
        found = await self.points.balance(self.call(), member_id=member_id, point_currency=CURRENCY)
        return found.available_points, found.pending_points, found.held_points, found.debt_points

    async def tier(self, member_id: str) -> str:
        """The member's tier."""
        return (await self.tiers.get(self.call(), member_id=member_id, point_currency=CURRENCY)).standing.tier_id

    async def audit(self) -> dict[str, str]:
        """The checks that fail, with their details."""
        audited = await self.audit_desk.audit(self.call(), prefix="")
        return {finding.check: finding.detail for finding in audited.findings if not finding.ok}

    async def posted(self, order_id: str) -> list[tuple[int, int, int]]:
        """(earned, given back, shortfall) of each event that told of the order, in its order."""

        async def work(connection: Connection) -> list[bytes]:
            rows = await raw(connection).fetch(
                "SELECT payload FROM outbox WHERE tenant_id = $1::uuid AND aggregate_id = $2 ORDER BY version",
                self.tenant_id,
                order_id,
            )
            return [row[0] for row in rows]

        payloads = await self.system.read(self.tenant_id, work)
        events = [events_pb2.PointsPosted.FromString(payload) for payload in payloads]
        return [(event.earned_points, event.given_back_points, event.shortfall_points) for event in events]

    async def somebody_waits(self) -> None:
        """Returns when a connection of this database waits for a row."""

        async def waits(connection: Connection) -> bool:
            found: bool = await raw(connection).fetchval(
                "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
                " WHERE NOT granted AND datname = current_database())"
            )
            return found

        async with asyncio.timeout(5):
            while not await self.system.read(EVERY_TENANT, waits):
                await asyncio.sleep(0.01)

    async def figures(self) -> dict[str, int]:
        """The audit's figures."""
        return (await self.audit_desk.audit(self.call(), prefix="loyalty.")).figures


def grant(member_id: str, points: int, **asked: Any) -> GrantsAsked:
    """One grant as it is asked for: of points for a member, and whatever is told of its request or its kind."""
    request_id, fingerprint = asked.pop("request_id", None) or new_id(), asked.pop("fingerprint", b"grant")
    kind = GrantKind(
        point_currency=CURRENCY,
        expiry_class="",
        funder="",
        reason="goodwill",
        occurred_at=None,
        store_id="",
        channel="",
    )._replace(**asked)
    return GrantsAsked(
        request_ids=[request_id],
        fingerprints=[fingerprint],
        member_ids=[member_id],
        points=[points],
        which=[0],
        kinds=[kind],
    )


def bundled(asked: Iterable[GrantsAsked]) -> GrantsAsked:
    """Grants that are asked for by one call."""
    bundle = GrantsAsked(request_ids=[], fingerprints=[], member_ids=[], points=[], which=[], kinds=[])
    for each in asked:
        bundle.which.extend(kind + len(bundle.kinds) for kind in each.which)
        bundle.request_ids.extend(each.request_ids)
        bundle.fingerprints.extend(each.fingerprints)
        bundle.member_ids.extend(each.member_ids)
        bundle.points.extend(each.points)
        bundle.kinds.extend(each.kinds)
    return bundle


@pytest_asyncio.fixture(loop_scope="session")
async def house(database_url: str) -> AsyncIterator[House]:
    """Loyalty over a database of its own, with one tenant on a test clock and the programme published."""
    settings = Settings(database_url=database_url, role_password="roles-of-a-test-run")
    database = Database.open(settings, service="loyalty")
    system = Database.open(settings, service="loyalty", role="system")
    clock = FixedClock(MACHINE)
    lanes = [await database.lane() for _ in range(5)]
    batches = batchers(
        writing=lanes[:1], bundling=lanes[1:2], holding=lanes[2:4], reading=lanes[4:], clock=clock, partitions=4
    )
    book = ProgrammeBook(database)
    outbox = Outbox(encode=convert.recorded, partitions=4)
    made = House(
        database=database,
        system=system,
        clock=clock,
        points=PointsDesk(database=database, book=book, lanes=batches, partitions=4, event_parts=convert.granted_parts),
        posting=OrderPosting(outbox=outbox),
        following=MemberFollowing(outbox=outbox),
        sweeper=Sweeper(database=system, tiers=TierEnding(outbox=outbox), clock=clock),
        tiers=TierDesk(database=database, book=book),
        audit_desk=AuditDesk(books=audit_store, database=system, clock=clock),
        tenant_id=new_id(),
    )
    await made.advance()
    await made.publish()
    yield made
    await batches.close()
    for lane in lanes:
        await lane.close()
    await database.close()
    await system.close()
