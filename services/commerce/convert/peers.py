"""Calls to identity, campaign and loyalty, in commerce's own words; what they refuse is raised as it came."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from services.commerce.convert.orders import stamp
from services.commerce.domain.freezing import PointsValue
from services.commerce.domain.orders import Discount, DiscountSource
from services.commerce.domain.saga import BudgetUse, CouponUse, Step, request_id_of
from services.commerce.domain.stores import Store
from services.commerce.usecases.peers import (
    EarningLine,
    Identifier,
    Peers,
    Programme,
    Quote,
    QuoteBasket,
)
from services.runtime.call import Call
from services.runtime.channels import Channels
from services.runtime.errors import Missing
from services.runtime.ids import MemberId, StoreId
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc, promotion_pb2, promotion_pb2_grpc
from siyu.common.v1 import feed_pb2, feed_pb2_grpc
from siyu.identity.v1 import member_pb2, member_pb2_grpc, store_pb2, store_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc

PROGRAMME_CACHED_S: Final = 5.0
"""A new version of a programme is the value of points at the till this much later; orders keep what they were given."""
MAX_PROGRAMMES: Final = 10_000
STORE_TIMEOUT_S: Final = 1.0
"""identity reads a store by its key; who asks for one waits no longer, whatever its own deadline."""
FOLLOWERS: Final = (("loyalty", "accrual"), ("campaign", "usage"))


def over(channels: Channels) -> Peers:
    """The peers behind the process's channels."""
    return Peers(
        members=IdentityMembers(channels),
        stores=IdentityStores(channels),
        offers=CampaignOffers(channels),
        points=LoyaltyPoints(channels),
        followers=FeedFollowers(channels),
    )


@dataclass(slots=True)
class IdentityMembers:
    """MemberService."""

    channels: Channels
    _stub: "member_pb2_grpc.MemberServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        """The channel connects when first used."""
        self._stub = self.channels.stub("identity", member_pb2_grpc.MemberServiceStub)

    async def resolve(self, call: Call, identifier: Identifier) -> MemberId:
        """See peers.Members."""
        request = member_pb2.ResolveMemberRequest(
            identifier=member_pb2.Identifier(
                type=member_pb2.IdentifierType.ValueType(identifier.type),
                issuer=identifier.issuer,
                value=identifier.value,
            )
        )
        reply = await self.channels.invoke(self._stub.ResolveMember, request, call)
        return MemberId(reply.member_id)

    async def survivor(self, call: Call, member_id: MemberId) -> MemberId:
        """See peers.Members."""
        request = member_pb2.GetMemberRequest(member_id=member_id)
        reply = await self.channels.invoke(self._stub.GetMember, request, call)
        return MemberId(reply.member.member_id)


@dataclass(slots=True)
class IdentityStores:
    """StoreService."""

    channels: Channels
    _stub: "store_pb2_grpc.StoreServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        """The channel connects when first used."""
        self._stub = self.channels.stub("identity", store_pb2_grpc.StoreServiceStub)

    async def find(self, call: Call, store_id: StoreId) -> Store | None:
        """See peers.Stores."""
        request = store_pb2.GetStoreRequest(store_id=store_id)
        try:
            reply = await self.channels.invoke(self._stub.GetStore, request, call, timeout_s=STORE_TIMEOUT_S)
        except Missing:
            return None
        # an identity of the build before tells no version; any event is later than that
        return Store(store_id=StoreId(reply.store.store_id), active=reply.store.active, version=reply.store.version)


@dataclass(slots=True)
class CampaignOffers:
    """QuoteService and CouponService."""

    channels: Channels
    _quotes: "promotion_pb2_grpc.QuoteServiceAsyncStub" = field(init=False)
    _coupons: "coupon_pb2_grpc.CouponServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        """The channel connects when first used."""
        self._quotes = self.channels.stub("campaign", promotion_pb2_grpc.QuoteServiceStub)
        self._coupons = self.channels.stub("campaign", coupon_pb2_grpc.CouponServiceStub)

    async def quote(self, call: Call, basket: QuoteBasket) -> Quote:
        """See peers.Offers."""
        request = promotion_pb2.QuoteRequest(
            member_id=basket.member_id,
            store_id=basket.store_id,
            channel=basket.channel,
            occurred_at=stamp(basket.occurred_at),
            currency_code=basket.currency_code,
            lines=[
                promotion_pb2.QuoteLine(
                    line_id=line.line_id,
                    sku=line.sku,
                    category=line.category,
                    quantity=line.quantity,
                    price_quantity=line.price_quantity,
                    shelf_minor=line.shelf_minor,
                )
                for line in basket.lines
            ],
            coupon_codes=basket.coupon_codes,
        )
        reply: promotion_pb2.QuoteResponse = await self.channels.invoke(self._quotes.Quote, request, call)
        return _quote(reply)

    async def hold(self, call: Call, step: Step, *, occurred_at: datetime) -> None:
        """See peers.Offers."""
        request = coupon_pb2.HoldBenefitsRequest(
            request_id=request_id_of(step.order_id, step.kind, "hold"),
            hold_id=step.hold_id,
            member_id=step.member_id,
            order_id=step.order_id,
            coupons=[
                promotion_pb2.CouponUse(coupon_id=use.coupon_id, amount_minor=use.amount_minor) for use in step.coupons
            ],
            budgets=[
                promotion_pb2.BudgetUse(promotion_id=use.promotion_id, amount_minor=use.amount_minor)
                for use in step.budgets
            ],
            ttl_s=step.ttl_s,
            issued_at=stamp(step.issued_at),
            occurred_at=stamp(occurred_at),
        )
        await self.channels.invoke(self._coupons.HoldBenefits, request, call)

    async def capture(self, call: Call, step: Step) -> None:
        """See peers.Offers."""
        request = coupon_pb2.CaptureBenefitsRequest(
            request_id=request_id_of(step.order_id, step.kind, "capture"), hold_id=step.hold_id
        )
        await self.channels.invoke(self._coupons.CaptureBenefits, request, call)

    async def void(self, call: Call, step: Step) -> None:
        """See peers.Offers."""
        request = coupon_pb2.VoidBenefitsRequest(
            request_id=request_id_of(step.order_id, step.kind, "void"), hold_id=step.hold_id
        )
        await self.channels.invoke(self._coupons.VoidBenefits, request, call)


@dataclass(slots=True)
class LoyaltyPoints:
    """PointsService and ProgrammeService."""

    channels: Channels
    _points: "points_pb2_grpc.PointsServiceAsyncStub" = field(init=False)
    _programmes: "programme_pb2_grpc.ProgrammeServiceAsyncStub" = field(init=False)
    _known: dict[tuple[str, str], tuple[Programme | None, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """The channel connects when first used."""
        self._points = self.channels.stub("loyalty", points_pb2_grpc.PointsServiceStub)
        self._programmes = self.channels.stub("loyalty", programme_pb2_grpc.ProgrammeServiceStub)

    async def programme(self, call: Call, point_currency: str) -> Programme | None:
        """See peers.Points."""
        key = (call.tenant_id, point_currency)
        known, until = self._known.get(key, (None, 0.0))
        if until > time.monotonic():
            return known
        request = programme_pb2.GetProgrammeRequest(point_currency=point_currency)
        try:
            reply = await self.channels.invoke(self._programmes.GetProgramme, request, call)
        except Missing:
            found = None
        else:
            value = PointsValue(
                tender_value_minor=reply.programme.tender_value_minor,
                points_per_value=reply.programme.points_per_value,
            )
            found = Programme(value=value, return_window_days=reply.programme.return_window_days)
        if len(self._known) >= MAX_PROGRAMMES:
            self._known.clear()
        self._known[key] = (found, time.monotonic() + PROGRAMME_CACHED_S)
        return found

    async def earned(
        self,
        call: Call,
        *,
        member_id: MemberId,
        point_currency: str,
        lines: Sequence[EarningLine],
        occurred_at: datetime,
        store_id: str,
    ) -> int:
        """See peers.Points."""
        request = points_pb2.QuotePointsRequest(
            member_id=member_id,
            point_currency=point_currency,
            lines=[
                points_pb2.PointsLine(
                    line_id=line.line_id,
                    sku=line.sku,
                    category=line.category,
                    quantity=line.quantity,
                    accrual_base_minor=line.accrual_base_minor,
                )
                for line in lines
            ],
            occurred_at=stamp(occurred_at),
            store_id=store_id,
        )
        reply = await self.channels.invoke(self._points.QuotePoints, request, call)
        return int(reply.points)

    async def available(self, call: Call, *, member_id: MemberId, point_currency: str) -> int:
        """See peers.Points."""
        request = points_pb2.GetBalanceRequest(member_id=member_id, point_currency=point_currency)
        reply = await self.channels.invoke(self._points.GetBalance, request, call)
        return int(reply.available_points)

    async def hold(self, call: Call, step: Step) -> None:
        """See peers.Points."""
        request = points_pb2.HoldPointsRequest(
            request_id=request_id_of(step.order_id, step.kind, "hold"),
            hold_id=step.hold_id,
            member_id=step.member_id,
            point_currency=step.point_currency,
            points=step.points,
            ttl_s=step.ttl_s,
            issued_at=stamp(step.issued_at),
            order_id=step.order_id,
        )
        await self.channels.invoke(self._points.HoldPoints, request, call)

    async def capture(self, call: Call, step: Step) -> None:
        """See peers.Points."""
        request = points_pb2.CaptureHoldRequest(
            request_id=request_id_of(step.order_id, step.kind, "capture"), hold_id=step.hold_id
        )
        await self.channels.invoke(self._points.CaptureHold, request, call)

    async def void(self, call: Call, step: Step) -> None:
        """See peers.Points."""
        request = points_pb2.VoidHoldRequest(
            request_id=request_id_of(step.order_id, step.kind, "void"), hold_id=step.hold_id
        )
        await self.channels.invoke(self._points.VoidHold, request, call)


@dataclass(slots=True)
class FeedFollowers:
    """The FeedService of those who consume commerce's events."""

    channels: Channels

    async def behind(self, call: Call, *, partition: int, seq: int) -> tuple[str, ...]:
        """See peers.Followers."""
        request = feed_pb2.GetPositionsRequest(producer=self.channels.service, partition=partition)
        replies = await asyncio.gather(
            *(
                self.channels.invoke(
                    self.channels.stub(service, feed_pb2_grpc.FeedServiceStub).GetPositions, request, call
                )
                for service, _ in FOLLOWERS
            )
        )
        return tuple(
            f"{service}/{queue}"
            for (service, queue), reply in zip(FOLLOWERS, replies, strict=True)
            if {position.queue: position.seq for position in reply.positions}.get(queue, 0) < seq
        )


def _quote(reply: promotion_pb2.QuoteResponse) -> Quote:
    return Quote(
        shares=tuple(
            tuple(
                (
                    Discount(
                        source=DiscountSource(share.source),
                        source_id=share.source_id,
                        coupon_id=share.coupon_id,
                        funder=share.funder,
                    ),
                    share.amount_minor,
                )
                for share in line.discounts
            )
            for line in reply.lines
        ),
        candidates=tuple(
            (candidate.source, candidate.source_id, candidate.amount_minor, candidate.rejection_reason)
            for candidate in reply.candidates
        ),
        coupons=tuple(CouponUse(coupon_id=use.coupon_id, amount_minor=use.amount_minor) for use in reply.coupons),
        budgets=tuple(BudgetUse(promotion_id=use.promotion_id, amount_minor=use.amount_minor) for use in reply.budgets),
    )
