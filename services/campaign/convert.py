"""proto <-> domain, and events as they are stored."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.campaign.domain.benefits import (
    DEFAULT_TIME_TO_LIVE,
    BenefitsHold,
    BudgetUse,
    CouponUse,
    HoldKey,
    ToHold,
)
from services.campaign.domain.choice import Source
from services.campaign.domain.coupons import Coupon, CouponDiscount, CouponState, Template, ToIssue
from services.campaign.domain.events import CouponReturned, CouponUsed, Event
from services.campaign.domain.pricing import Line, Price, PricedLine
from services.campaign.domain.promotions import ZERO, MemberPrice, Promotion, PromotionKind
from services.campaign.domain.usage import Given, PaidOrder, Refund, UsageSource, summed
from services.campaign.usecases.coupons import Issued, PutTemplate, ReadTemplate
from services.campaign.usecases.promotions import PutPromotion, ReadPromotion
from services.campaign.usecases.quoting import ToQuote
from services.runtime.holds import HoldState, check_issued
from services.runtime.ids import CouponId, HoldId, MemberId, PromotionId, TemplateId
from services.runtime.outbox import Recorded
from services.runtime.tenants import Tenant
from siyu.campaign.v1 import coupon_pb2, events_pb2, promotion_pb2
from siyu.commerce.v1 import events_pb2 as commerce_pb2
from siyu.common.v1 import hold_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2

_KINDS: dict[promotion_pb2.PromotionKind.ValueType, PromotionKind] = {
    promotion_pb2.PROMOTION_KIND_MEMBER_PRICE: PromotionKind.MEMBER_PRICE,
    promotion_pb2.PROMOTION_KIND_LINE_PERCENT: PromotionKind.LINE_PERCENT,
    promotion_pb2.PROMOTION_KIND_LINE_AMOUNT: PromotionKind.LINE_AMOUNT,
    promotion_pb2.PROMOTION_KIND_ORDER_PERCENT: PromotionKind.ORDER_PERCENT,
    promotion_pb2.PROMOTION_KIND_ORDER_AMOUNT: PromotionKind.ORDER_AMOUNT,
}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}
_DISCOUNTS: dict[coupon_pb2.CouponDiscount.ValueType, CouponDiscount] = {
    coupon_pb2.COUPON_DISCOUNT_AMOUNT: CouponDiscount.AMOUNT,
    coupon_pb2.COUPON_DISCOUNT_PERCENT: CouponDiscount.PERCENT,
}
_DISCOUNT_NUMBERS = {discount: number for number, discount in _DISCOUNTS.items()}
_COUPON_STATES: dict[CouponState, coupon_pb2.CouponState.ValueType] = {
    CouponState.ISSUED: coupon_pb2.COUPON_STATE_ISSUED,
    CouponState.HELD: coupon_pb2.COUPON_STATE_HELD,
    CouponState.USED: coupon_pb2.COUPON_STATE_USED,
}
_HOLD_STATES: dict[HoldState, hold_pb2.HoldState.ValueType] = {
    HoldState.HELD: hold_pb2.HOLD_STATE_HELD,
    HoldState.CAPTURED: hold_pb2.HOLD_STATE_CAPTURED,
    HoldState.VOIDED: hold_pb2.HOLD_STATE_VOIDED,
    HoldState.EXPIRED: hold_pb2.HOLD_STATE_EXPIRED,
}
_OURS = frozenset(
    {
        promotion_pb2.DISCOUNT_SOURCE_LINE_PROMOTION,
        promotion_pb2.DISCOUNT_SOURCE_ORDER_PROMOTION,
        promotion_pb2.DISCOUNT_SOURCE_COUPON,
    }
)
_SOURCES: dict[Source, promotion_pb2.DiscountSource.ValueType] = {
    Source.LINE_PROMOTION: promotion_pb2.DISCOUNT_SOURCE_LINE_PROMOTION,
    Source.ORDER_PROMOTION: promotion_pb2.DISCOUNT_SOURCE_ORDER_PROMOTION,
    Source.COUPON: promotion_pb2.DISCOUNT_SOURCE_COUPON,
}


def instant(at: Timestamp) -> datetime:
    """The time in UTC, to the microsecond."""
    return at.ToDatetime(tzinfo=UTC)


def timestamp(at: datetime) -> Timestamp:
    """The time as the contract has it."""
    said = Timestamp()
    said.FromDatetime(at)
    return said


def _optional(message: Message, name: str) -> datetime | None:
    return instant(getattr(message, name)) if message.HasField(name) else None


def _percent(said: str) -> Decimal:
    return Decimal(said) if said else ZERO


def _percent_text(percent: Decimal) -> str:
    """Without an exponent or trailing zeros; empty for none."""
    return f"{percent.normalize():f}" if percent else ""


# --- promotions ------------------------------------------------------------------------------------------------------


def promotion(said: promotion_pb2.Promotion) -> Promotion:
    """The promotion as it was sent."""
    return Promotion(
        promotion_id=PromotionId(said.promotion_id),
        display_name=said.display_name,
        kind=_KINDS[said.kind],
        valid_from=instant(said.valid_from),
        valid_until=_optional(said, "valid_until"),
        priority=said.priority,
        exclusivity_group=said.exclusivity_group,
        percent=_percent(said.percent),
        amount_minor=said.amount_minor,
        threshold_minor=said.threshold_minor,
        skus=frozenset(said.skus),
        categories=frozenset(said.categories),
        store_ids=frozenset(said.store_ids),
        members_only=said.members_only,
        funder=said.funder,
        budget_minor=said.budget_minor,
    )


def promotion_message(known: Promotion) -> promotion_pb2.Promotion:
    """The promotion as it is told; sets come sorted."""
    return promotion_pb2.Promotion(
        promotion_id=known.promotion_id,
        display_name=known.display_name,
        kind=_KIND_NUMBERS[known.kind],
        valid_from=timestamp(known.valid_from),
        valid_until=None if known.valid_until is None else timestamp(known.valid_until),
        priority=known.priority,
        exclusivity_group=known.exclusivity_group,
        percent=_percent_text(known.percent),
        amount_minor=known.amount_minor,
        threshold_minor=known.threshold_minor,
        skus=sorted(known.skus),
        categories=sorted(known.categories),
        store_ids=sorted(known.store_ids),
        members_only=known.members_only,
        funder=known.funder,
        budget_minor=known.budget_minor,
    )


def put_promotion_reply(done: PutPromotion) -> bytes:
    """The reply as it is stored."""
    reply = promotion_pb2.PutPromotionResponse(promotion=promotion_message(done.promotion), version=done.version)
    return reply.SerializeToString(deterministic=True)


def read_promotion_reply(found: ReadPromotion) -> promotion_pb2.GetPromotionResponse:
    """The promotion with its uses."""
    return promotion_pb2.GetPromotionResponse(
        promotion=promotion_message(found.promotion),
        given_minor=found.use.given_minor,
        held_minor=found.use.held_minor,
        version=found.version,
    )


def member_prices(said: Iterable[promotion_pb2.MemberPrice]) -> list[MemberPrice]:
    """The prices as they were sent."""
    return [MemberPrice(sku=price.sku, amount_off_minor=price.amount_off_minor) for price in said]


def put_prices_reply(prices: int) -> bytes:
    """The reply as it is stored."""
    return promotion_pb2.BatchPutMemberPricesResponse(prices=prices).SerializeToString(deterministic=True)


# --- quotes ----------------------------------------------------------------------------------------------------------


def to_quote(said: promotion_pb2.QuoteRequest) -> ToQuote:
    """The basket as it was sent."""
    return ToQuote(
        lines=tuple(
            Line(
                line_id=line.line_id,
                sku=line.sku,
                category=line.category,
                quantity=line.quantity,
                price_quantity=line.price_quantity or 1,
                shelf_minor=line.shelf_minor,
            )
            for line in said.lines
        ),
        member_id=said.member_id.lower(),
        store_id=said.store_id,
        at=_optional(said, "occurred_at"),
        codes=tuple(said.coupon_codes),
    )


def quote_reply(price: Price) -> promotion_pb2.QuoteResponse:
    """The price, explained."""
    return promotion_pb2.QuoteResponse(
        lines=[_quoted_line(line) for line in price.lines],
        candidates=[
            promotion_pb2.Candidate(
                source=_SOURCES[verdict.source],
                source_id=verdict.source_id,
                amount_minor=verdict.amount_minor,
                rejection_reason=verdict.rejection,
            )
            for verdict in price.verdicts
        ],
        shelf_minor=price.shelf_minor,
        discount_minor=price.discount_minor,
        net_minor=price.net_minor,
        coupons=[promotion_pb2.CouponUse(coupon_id=name, amount_minor=amount) for name, amount in price.coupons],
        budgets=[promotion_pb2.BudgetUse(promotion_id=name, amount_minor=amount) for name, amount in price.budgets],
    )


def _quoted_line(line: PricedLine) -> promotion_pb2.QuotedLine:
    return promotion_pb2.QuotedLine(
        line_id=line.line_id,
        shelf_minor=line.shelf_minor,
        discounts=[
            promotion_pb2.LineDiscount(
                source=_SOURCES[share.source],
                source_id=share.source_id,
                coupon_id=share.coupon_id,
                amount_minor=share.amount_minor,
                funder=share.funder,
            )
            for share in line.shares
        ],
        net_minor=line.net_minor,
    )


# --- coupons ---------------------------------------------------------------------------------------------------------


def template(said: coupon_pb2.CouponTemplate) -> Template:
    """The template as it was sent."""
    return Template(
        template_id=TemplateId(said.template_id),
        display_name=said.display_name,
        discount=_DISCOUNTS[said.discount],
        valid_from=instant(said.valid_from),
        valid_until=instant(said.valid_until),
        amount_minor=said.amount_minor,
        percent=_percent(said.percent),
        cap_minor=said.cap_minor,
        threshold_minor=said.threshold_minor,
        skus=frozenset(said.skus),
        categories=frozenset(said.categories),
        issue_limit=said.issue_limit,
        member_limit=said.member_limit,
        exclusive=said.exclusive,
        returnable=said.returnable,
        funder=said.funder,
        priority=said.priority,
    )


def template_message(known: Template) -> coupon_pb2.CouponTemplate:
    """The template as it is told; sets come sorted."""
    return coupon_pb2.CouponTemplate(
        template_id=known.template_id,
        display_name=known.display_name,
        discount=_DISCOUNT_NUMBERS[known.discount],
        amount_minor=known.amount_minor,
        percent=_percent_text(known.percent),
        cap_minor=known.cap_minor,
        threshold_minor=known.threshold_minor,
        skus=sorted(known.skus),
        categories=sorted(known.categories),
        valid_from=timestamp(known.valid_from),
        valid_until=timestamp(known.valid_until),
        issue_limit=known.issue_limit,
        member_limit=known.member_limit,
        exclusive=known.exclusive,
        returnable=known.returnable,
        funder=known.funder,
        priority=known.priority,
    )


def put_template_reply(done: PutTemplate) -> bytes:
    """The reply as it is stored."""
    reply = coupon_pb2.PutTemplateResponse(template=template_message(done.template), version=done.version)
    return reply.SerializeToString(deterministic=True)


def read_template_reply(found: ReadTemplate) -> coupon_pb2.GetTemplateResponse:
    """The template with its counts."""
    return coupon_pb2.GetTemplateResponse(
        template=template_message(found.template),
        version=found.version,
        issued=found.counts.issued,
        held=found.counts.held,
        used=found.counts.used,
    )


def to_issue(said: Iterable[coupon_pb2.IssueCoupon]) -> list[ToIssue]:
    """The coupons that are asked for."""
    return [
        ToIssue(
            template_id=TemplateId(item.template_id),
            member_id=MemberId(item.member_id.lower()) if item.member_id else None,
            code=item.code,
        )
        for item in said
    ]


def issued_reply(verdicts: Sequence[Issued]) -> bytes:
    """The verdicts as they are stored: without codes, which are put in when they are told."""
    reply = coupon_pb2.BatchIssueCouponsResponse(
        verdicts=[
            coupon_pb2.IssueVerdict(
                coupon=None if verdict.coupon is None else coupon_message(verdict.coupon),
                refusal_reason=verdict.refusal,
            )
            for verdict in verdicts
        ]
    )
    return reply.SerializeToString(deterministic=True)


def coupon_message(known: Coupon) -> coupon_pb2.Coupon:
    """The coupon as it is told."""
    return coupon_pb2.Coupon(
        coupon_id=known.coupon_id,
        code=known.code,
        template_id=known.template_id,
        member_id=known.member_id or "",
        state=_COUPON_STATES[known.state],
        valid_from=timestamp(known.valid_from),
        valid_until=timestamp(known.valid_until),
    )


# --- holds -----------------------------------------------------------------------------------------------------------


def to_hold(
    said: coupon_pb2.HoldBenefitsRequest, *, client_id: str, machine_now: datetime, business_now: datetime
) -> ToHold:
    """The hold that is asked for, with its defaults filled in. Raises Invalid for one that is issued in the future."""
    issued_at = _optional(said, "issued_at") or machine_now
    check_issued(issued_at, now=machine_now)
    return ToHold(
        key=HoldKey(client_id=client_id, hold_id=HoldId(said.hold_id)),
        member_id=said.member_id.lower(),
        order_id=said.order_id,
        coupons=tuple(
            CouponUse(coupon_id=CouponId(use.coupon_id.lower()), amount_minor=use.amount_minor) for use in said.coupons
        ),
        budgets=tuple(
            BudgetUse(promotion_id=PromotionId(use.promotion_id), amount_minor=use.amount_minor) for use in said.budgets
        ),
        time_to_live=timedelta(seconds=said.ttl_s) if said.ttl_s else DEFAULT_TIME_TO_LIVE,
        issued_at=issued_at,
        at=_optional(said, "occurred_at") or business_now,
    )


def hold_message(known: BenefitsHold) -> coupon_pb2.BenefitsHold:
    """The hold as it is told."""
    return coupon_pb2.BenefitsHold(
        hold_id=known.key.hold_id, state=_HOLD_STATES[known.state], expires_at=timestamp(known.expires_at)
    )


def held_reply(known: BenefitsHold) -> bytes:
    """The reply as it is stored."""
    return coupon_pb2.HoldBenefitsResponse(hold=hold_message(known)).SerializeToString(deterministic=True)


def captured_reply(known: BenefitsHold) -> bytes:
    """The reply as it is stored."""
    return coupon_pb2.CaptureBenefitsResponse(hold=hold_message(known)).SerializeToString(deterministic=True)


def voided_reply(known: BenefitsHold) -> bytes:
    """The reply as it is stored."""
    return coupon_pb2.VoidBenefitsResponse(hold=hold_message(known)).SerializeToString(deterministic=True)


# --- events that come ------------------------------------------------------------------------------------------------


def paid_order(payload: bytes) -> PaidOrder:
    """commerce.OrderPaid, its lines' shares summed by what gave them."""
    said = commerce_pb2.OrderPaid.FromString(payload)
    return PaidOrder(
        order_id=said.order_id,
        member_id=said.member_id,
        store_id=said.store_id,
        offline=said.offline,
        occurred_at=instant(said.occurred_at),
        given=_given(said.lines),
    )


def refund(payload: bytes) -> Refund:
    """commerce.LineRefunded, its lines' shares summed by what gave them."""
    said = commerce_pb2.LineRefunded.FromString(payload)
    return Refund(
        refund_id=said.refund_id,
        order_id=said.order_id,
        whole_order=said.whole_order,
        occurred_at=instant(said.occurred_at),
        given_back=_given(said.lines),
    )


def _given(lines: Iterable[commerce_pb2.PaidLine | commerce_pb2.RefundedUnits]) -> tuple[Given, ...]:
    """What our promotions and coupons gave; what a till took off by itself is nobody's budget here."""
    return summed(
        Given(
            source=UsageSource.COUPON,
            source_id=share.coupon_id,
            template_id=share.source_id,
            amount_minor=share.amount_minor,
        )
        if share.source == promotion_pb2.DISCOUNT_SOURCE_COUPON
        else Given(
            source=UsageSource.PROMOTION, source_id=share.source_id, template_id="", amount_minor=share.amount_minor
        )
        for line in lines
        for share in line.discounts
        if share.source in _OURS
    )


def tenant(payload: bytes) -> Tenant:
    """identity.TenantChanged."""
    said = identity_pb2.TenantChanged.FromString(payload)
    return Tenant(
        id=said.tenant_id,
        time_zone=said.time_zone,
        currency_code=said.currency_code,
        test_clock_at=_optional(said, "test_clock_at"),
        version=said.version,
    )


def merge(payload: bytes) -> tuple[str, str]:
    """identity.MemberMerged: the merged member, and the survivor."""
    said = identity_pb2.MemberMerged.FromString(payload)
    return said.merged_member_id, said.member_id


# --- events that go --------------------------------------------------------------------------------------------------


def recorded(event: Event) -> Recorded:
    """The event as it is stored, in its member's order where it has one."""
    message: Message
    match event:
        case CouponUsed():
            message = events_pb2.CouponUsed(
                coupon_id=event.coupon_id,
                template_id=event.template_id,
                member_id=event.member_id,
                order_id=event.order_id,
                amount_minor=event.amount_minor,
            )
        case CouponReturned():
            message = events_pb2.CouponReturned(
                coupon_id=event.coupon_id, template_id=event.template_id, order_id=event.order_id
            )
    return Recorded(
        type=f"campaign.{type(event).__name__}",
        aggregate_type="coupon",
        aggregate_id=event.coupon_id,
        version=event.version,
        partition_key=event.member_id or event.coupon_id,
        payload=message.SerializeToString(deterministic=True),
        occurred_at=event.occurred_at,
    )
