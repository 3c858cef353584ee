"""campaign's servicers over one migrated schema, called as the server calls them; each test has a tenant of its own."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from services.campaign import convert
from services.campaign.consumer import (
    LINE_REFUNDED,
    MEMBER_MERGED,
    ORDER_PAID,
    TENANT_CHANGED,
    MembersHandler,
    UsageHandler,
)
from services.campaign.domain.codes import CodeKeys
from services.campaign.servicer.coupons import CouponServicer
from services.campaign.servicer.promotions import PromotionServicer
from services.campaign.servicer.quotes import QuoteServicer
from services.campaign.store import audit as audit_store
from services.campaign.usecases.coupons import CouponDesk
from services.campaign.usecases.definitions import Definitions
from services.campaign.usecases.holds import HoldBook, HoldDesk, hold_batcher
from services.campaign.usecases.promotions import PromotionDesk
from services.campaign.usecases.quoting import Quoting, lookups
from services.campaign.usecases.sweeping import Sweeper
from services.campaign.usecases.usage import UsageRecorder
from services.console.stack.postgres import drop_database, ensure_database
from services.runtime.audit import AuditDesk, AuditServicer
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import FixedClock, SystemClock
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.events import Event
from services.runtime.ids import new_id
from services.runtime.migrations import migrate
from services.runtime.outbox import Outbox
from services.runtime.settings import Settings
from siyu.campaign.v1 import coupon_pb2, promotion_pb2
from siyu.commerce.v1 import events_pb2 as commerce_pb2
from siyu.common.v1 import audit_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2
from tests.conftest import ROLE_PASSWORD, with_database

NOW = SystemClock().now()
"""Both clocks stand here; the machine's own time, since an audit goes by the database's."""
PARTITIONS = 2
DATABASE = "siyu_campaign_tests"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def campaign_settings(postgres: str) -> AsyncIterator[Settings]:
    """A database with campaign's schema, shared by this folder's tests."""
    await drop_database(postgres, database=DATABASE)
    await ensure_database(postgres, database=DATABASE)
    settings = Settings(
        database_url=with_database(postgres, DATABASE), role_password=ROLE_PASSWORD, log_partitions=PARTITIONS
    )
    await migrate(settings, "campaign")
    yield settings
    await drop_database(postgres, database=DATABASE)


@dataclass(slots=True, kw_only=True)
class Campaign:
    """The whole service without its transport."""

    app: Database
    system: Database
    clock: FixedClock
    keys: CodeKeys
    promotions: PromotionServicer
    quotes: QuoteServicer
    coupons: CouponServicer
    audit: AuditServicer
    usage: UsageHandler
    members: MembersHandler
    sweeper: Sweeper


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def campaign(campaign_settings: Settings) -> AsyncIterator[Campaign]:
    """The service with a clock of the test's own, which stands still."""
    app = Database.open(campaign_settings, service="campaign", pool_size=10)
    system = Database.open(campaign_settings, service="campaign", role="system", pool_size=3)
    lanes = [await app.lane() for _ in range(2)]
    clock = FixedClock(NOW)
    keys = CodeKeys.derive("a secret of a test run")
    outbox = Outbox(encode=convert.recorded, partitions=PARTITIONS)
    looking_up = lookups(lanes, max_queue=4096)
    book = HoldBook(clock=clock, outbox=outbox)
    holding = hold_batcher(app, book, lanes=2, max_queue=4096)
    quoting = Quoting(lookups=looking_up, definitions=Definitions(database=app), keys=keys, clock=clock)
    coupon_desk = CouponDesk(database=app, keys=keys, clock=clock)
    yield Campaign(
        app=app,
        system=system,
        clock=clock,
        keys=keys,
        promotions=PromotionServicer(desk=PromotionDesk(database=app)),
        quotes=QuoteServicer(quoting=quoting),
        coupons=CouponServicer(desk=coupon_desk, holds=HoldDesk(batcher=holding, clock=clock)),
        audit=AuditServicer(desk=AuditDesk(books=audit_store, database=system)),
        usage=UsageHandler(recorder=UsageRecorder(outbox=outbox, book=book)),
        members=MembersHandler(),
        sweeper=Sweeper(database=system, book=book),
    )
    await looking_up.close()
    await holding.close()
    for lane in lanes:
        await lane.close()
    await app.close()
    await system.close()


@pytest.fixture
def brand(campaign: Campaign) -> "Brand":
    """A tenant of this test's own, with the clock set back."""
    campaign.clock.at = NOW
    return Brand(campaign=campaign, tenant_id=new_id())


@dataclass(slots=True, kw_only=True)
class Brand:
    """One tenant, and calls in it."""

    campaign: Campaign
    tenant_id: str

    def call(self, *, at: datetime = NOW, client_id: str = "commerce") -> Call:
        """A call of another service, at a business time."""
        return Call(
            tenant_id=self.tenant_id,
            client_id=client_id,
            actor=Actor(kind=ActorKind.SERVICE, id=client_id),
            now=at,
            time_zone="Asia/Shanghai",
            deadline_at=deadline_in(30),
        )

    async def promotion(self, promotion_id: str, kind: str, **given: Any) -> promotion_pb2.PutPromotionResponse:
        """Makes or replaces a promotion of a kind such as "ORDER_PERCENT"."""
        given = {"valid_from": stamp(NOW - timedelta(days=1)), "display_name": promotion_id} | given
        said = promotion_pb2.Promotion(
            promotion_id=promotion_id, kind=promotion_pb2.PromotionKind.Value(f"PROMOTION_KIND_{kind}"), **given
        )
        request = promotion_pb2.PutPromotionRequest(request_id=new_id(), promotion=said)
        return await self.campaign.promotions.put_promotion(request, self.call())

    async def member_prices(self, promotion_id: str, **prices: int) -> int:
        """Puts member prices, as SKU and amount off."""
        told = [promotion_pb2.MemberPrice(sku=sku, amount_off_minor=off) for sku, off in prices.items()]
        request = promotion_pb2.BatchPutMemberPricesRequest(request_id=new_id(), promotion_id=promotion_id, prices=told)
        return (await self.campaign.promotions.batch_put_member_prices(request, self.call())).prices

    async def read_promotion(self, promotion_id: str) -> promotion_pb2.GetPromotionResponse:
        """Reads a promotion."""
        request = promotion_pb2.GetPromotionRequest(promotion_id=promotion_id)
        return await self.campaign.promotions.get_promotion(request, self.call())

    async def template(self, template_id: str, **given: Any) -> coupon_pb2.PutTemplateResponse:
        """Makes or replaces a template: 100 off unless told otherwise."""
        given = {
            "display_name": template_id,
            "discount": coupon_pb2.COUPON_DISCOUNT_AMOUNT,
            "amount_minor": 100,
            "valid_from": stamp(NOW - timedelta(days=1)),
            "valid_until": stamp(NOW + timedelta(days=30)),
        } | given
        request = coupon_pb2.PutTemplateRequest(
            request_id=new_id(), template=coupon_pb2.CouponTemplate(template_id=template_id, **given)
        )
        return await self.campaign.coupons.put_template(request, self.call())

    async def read_template(self, template_id: str) -> coupon_pb2.GetTemplateResponse:
        """Reads a template."""
        request = coupon_pb2.GetTemplateRequest(template_id=template_id)
        return await self.campaign.coupons.get_template(request, self.call())

    async def issue(
        self, *items: coupon_pb2.IssueCoupon, request_id: str = "", at: datetime = NOW
    ) -> Sequence[coupon_pb2.IssueVerdict]:
        """Issues coupons."""
        request = coupon_pb2.BatchIssueCouponsRequest(request_id=request_id or new_id(), coupons=items)
        return (await self.campaign.coupons.batch_issue_coupons(request, self.call(at=at))).verdicts

    async def coupon(self, template_id: str, *, member_id: str = "", code: str = "") -> coupon_pb2.Coupon:
        """Issues one coupon."""
        (verdict,) = await self.issue(coupon_pb2.IssueCoupon(template_id=template_id, member_id=member_id, code=code))
        assert verdict.refusal_reason == ""
        return verdict.coupon

    async def coupons_of(self, member_id: str, **given: Any) -> coupon_pb2.ListCouponsResponse:
        """Lists a member's coupons."""
        request = coupon_pb2.ListCouponsRequest(member_id=member_id, **given)
        return await self.campaign.coupons.list_coupons(request, self.call())

    async def quote(
        self, *lines: promotion_pb2.QuoteLine, member_id: str = "", codes: Sequence[str] = (), **given: Any
    ) -> promotion_pb2.QuoteResponse:
        """Quotes a basket."""
        request = promotion_pb2.QuoteRequest(
            member_id=member_id, currency_code="CNY", lines=lines, coupon_codes=codes, **given
        )
        return await self.campaign.quotes.quote(request, self.call())

    async def hold(
        self,
        *,
        hold_id: str = "",
        coupons: Sequence[tuple[str, int]] = (),
        budgets: Sequence[tuple[str, int]] = (),
        at: datetime = NOW,
        request_id: str = "",
        **given: Any,
    ) -> coupon_pb2.BenefitsHold:
        """Holds coupons and budgets."""
        request = coupon_pb2.HoldBenefitsRequest(
            request_id=request_id or new_id(),
            hold_id=hold_id or new_id(),
            coupons=[promotion_pb2.CouponUse(coupon_id=name, amount_minor=amount) for name, amount in coupons],
            budgets=[promotion_pb2.BudgetUse(promotion_id=name, amount_minor=amount) for name, amount in budgets],
            **given,
        )
        return (await self.campaign.coupons.hold_benefits(request, self.call(at=at))).hold

    async def capture(self, hold_id: str, *, request_id: str = "") -> coupon_pb2.BenefitsHold:
        """Captures a hold."""
        request = coupon_pb2.CaptureBenefitsRequest(request_id=request_id or new_id(), hold_id=hold_id)
        return (await self.campaign.coupons.capture_benefits(request, self.call())).hold

    async def void(self, hold_id: str) -> coupon_pb2.BenefitsHold:
        """Voids a hold."""
        request = coupon_pb2.VoidBenefitsRequest(request_id=new_id(), hold_id=hold_id)
        return (await self.campaign.coupons.void_benefits(request, self.call())).hold

    async def take(self, *payloads: commerce_pb2.OrderPaid | commerce_pb2.LineRefunded) -> None:
        """Hands commerce's events to the usage queue, as one block."""
        events = [self._event(payload) for payload in payloads]
        call = self.call()

        async def work(connection: Connection) -> None:
            await self.campaign.usage.handle(connection, events, call)

        await self.campaign.app.run(self.tenant_id, work)

    async def follow(self, *payloads: identity_pb2.TenantChanged | identity_pb2.MemberMerged) -> None:
        """Hands identity's events to the members queue, as one block."""
        events = [self._event(payload) for payload in payloads]
        call = self.call()

        async def work(connection: Connection) -> None:
            await self.campaign.members.handle(connection, events, call)

        await self.campaign.app.run(self.tenant_id, work)

    async def sweep(self, *, after: timedelta = timedelta(0)) -> None:
        """Moves the machine's clock and sweeps."""
        self.campaign.clock.advance(after)
        await self.campaign.sweeper.sweep(self.call())

    async def audited(self) -> audit_pb2.AuditResponse:
        """The audit's answer."""
        return await self.campaign.audit.audit(audit_pb2.AuditRequest(), self.call())

    async def red(self) -> dict[str, str]:
        """The checks that do not hold, with what is wrong."""
        return {finding.check: finding.detail for finding in (await self.audited()).findings if not finding.ok}

    async def sent(self) -> list[tuple[str, str]]:
        """Types and coupons of the events that were sent, oldest first."""

        async def work(connection: Connection) -> list[tuple[str, str]]:
            rows = await raw(connection).fetch(
                "SELECT type, aggregate_id FROM outbox WHERE tenant_id = $1::uuid ORDER BY posted_at", self.tenant_id
            )
            return [(row["type"], row["aggregate_id"]) for row in rows]

        return await self.campaign.system.read(EVERY_TENANT, work)

    async def execute(self, statement: str, *args: object) -> None:
        """Changes rows behind the service's back."""

        async def work(connection: Connection) -> None:
            await raw(connection).execute(statement, *args)

        await self.campaign.system.run(self.tenant_id, work)

    def _event(self, payload: Any) -> Event:
        types = {
            commerce_pb2.OrderPaid: ORDER_PAID,
            commerce_pb2.LineRefunded: LINE_REFUNDED,
            identity_pb2.TenantChanged: TENANT_CHANGED,
            identity_pb2.MemberMerged: MEMBER_MERGED,
        }
        return Event(
            id=new_id(),
            type=types[type(payload)],
            tenant_id=self.tenant_id,
            aggregate_type="test",
            aggregate_id="test",
            version=1,
            occurred_at=NOW,
            posted_at=NOW,
            payload=payload.SerializeToString(),
            trace="",
        )


def stamp(at: datetime) -> Timestamp:
    """The time as the contract has it."""
    said = Timestamp()
    said.FromDatetime(at)
    return said


def line(sku: str, shelf_minor: int, *, quantity: int = 1, **given: Any) -> promotion_pb2.QuoteLine:
    """A basket line, named by its SKU."""
    return promotion_pb2.QuoteLine(line_id=sku, sku=sku, shelf_minor=shelf_minor, quantity=quantity, **given)


def share(source: str, source_id: str, amount_minor: int, *, coupon_id: str = "") -> promotion_pb2.LineDiscount:
    """A line's share of a discount."""
    return promotion_pb2.LineDiscount(
        source=promotion_pb2.DiscountSource.Value(f"DISCOUNT_SOURCE_{source}"),
        source_id=source_id,
        coupon_id=coupon_id,
        amount_minor=amount_minor,
    )


def paid(order_id: str, *shares: promotion_pb2.LineDiscount, **given: Any) -> commerce_pb2.OrderPaid:
    """An order that was paid, with all shares on one line."""
    lines = [commerce_pb2.PaidLine(line_id="1", discounts=shares)]
    return commerce_pb2.OrderPaid(order_id=order_id, lines=lines, occurred_at=stamp(NOW), **given)


def refunded(
    order_id: str, *shares: promotion_pb2.LineDiscount, refund_id: str = "", whole: bool = False
) -> commerce_pb2.LineRefunded:
    """A refund of an order."""
    lines = [commerce_pb2.RefundedUnits(line_id="1", discounts=shares)]
    return commerce_pb2.LineRefunded(
        order_id=order_id,
        refund_id=refund_id or new_id(),
        lines=lines,
        whole_order=whole,
        occurred_at=stamp(NOW),
        sold_at=stamp(NOW),
    )
