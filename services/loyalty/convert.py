"""proto <-> domain, and events as they are stored."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.loyalty.domain.accrual import Earned, Line
from services.loyalty.domain.events import LoyaltyEvent, PointsPosted
from services.loyalty.domain.grants import Granted, GrantKind, GrantsAsked
from services.loyalty.domain.orders import PaidOrder, Refund, RefundedUnits
from services.loyalty.domain.points import Accrued, Balance, Entry, Hold, HoldState, hold_time_to_live
from services.loyalty.domain.programme import (
    BRAND,
    DEFAULT_GRACE_DAYS,
    EarnRule,
    ExpiryClass,
    Programme,
    Rounding,
    Tier,
    TierWindow,
    Version,
)
from services.loyalty.domain.requests import HoldAsked, QuoteAsked, ResolveAsked
from services.loyalty.domain.tiers import Change
from services.loyalty.usecases.members import MergedMembers, Told
from services.loyalty.usecases.orders import Fact
from services.loyalty.usecases.tiers import TierSeen
from services.runtime.call import Call
from services.runtime.events import Event
from services.runtime.holds import TOMBSTONE_KEPT, check_issued
from services.runtime.idempotency import fingerprint, fingerprint_of
from services.runtime.outbox import Recorded
from services.runtime.tenants import Tenant
from siyu.commerce.v1 import events_pb2 as commerce_pb2
from siyu.common.v1 import hold_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2
from siyu.loyalty.v1 import events_pb2, points_pb2, programme_pb2

# a UUID's field: its tag, its length, and 36 characters; the member's is the first of a grant's body
_ID_BYTES = 38

_SMALL = tuple(bytes((number,)) for number in range(0x80))

VerdictsMessage = TypeVar("VerdictsMessage", points_pb2.BatchAccrueResponse, points_pb2.StreamAccrueResponse)


def instant(at: Timestamp) -> datetime:
    """The time in UTC, to the microsecond."""
    return at.ToDatetime(tzinfo=UTC)


def timestamp(at: datetime | None) -> Timestamp | None:
    """The time as the contract has it; None stays absent."""
    if at is None:
        return None
    said = Timestamp()
    said.FromDatetime(at)
    return said


def optional(message: Message, name: str) -> datetime | None:
    """The time in a field, None if it is absent."""
    return instant(getattr(message, name)) if message.HasField(name) else None


# --- points ----------------------------------------------------------------------------------------------------------


def grants(requests: Iterable[points_pb2.AccrueRequest]) -> GrantsAsked:
    """The grants that are asked for. What is alike but for request and member, as most of a batch is, is read once."""
    asked = GrantsAsked(request_ids=[], fingerprints=[], member_ids=[], points=[], which=[], kinds=[])
    kinds: dict[bytes, int] = {}
    known: dict[bytes, tuple[int, int]] = {}
    for request in requests:
        request_id = request.request_id
        # the request id is the first field on the wire, so what follows it is the body: no copy of the message is made
        body = request.SerializeToString()[len(request_id) + (2 if len(request_id) < 0x80 else 3) :]
        told = body[_ID_BYTES:]
        if told not in known:
            kind = kinds.setdefault(_without_points(told, request.points), len(asked.kinds))
            if kind == len(asked.kinds):
                asked.kinds.append(_grant_kind(request))
            known[told] = request.points, kind
        points, kind = known[told]
        asked.request_ids.append(request_id)
        asked.fingerprints.append(fingerprint(body))
        asked.member_ids.append(request.member_id.lower())
        asked.points.append(points)
        asked.which.append(kind)
    return asked


def _without_points(told: bytes, points: int) -> bytes:
    """What a grant's body tells after its member, on the wire, without the points: they follow the point currency."""
    start = 2 + told[1]
    return told[:start] + told[start + 1 + len(_varint(points)) :]


def _grant_kind(request: points_pb2.AccrueRequest) -> GrantKind:
    return GrantKind(
        point_currency=request.point_currency,
        expiry_class=request.expiry_class,
        funder=request.funder,
        reason=request.reason,
        occurred_at=optional(request, "occurred_at"),
        store_id=request.store_id,
        channel=request.channel,
    )


def granted_parts(asked: GrantsAsked, entry_ids: Sequence[str]) -> list[bytes]:
    """Each grant's part of a PointsGranted; the parts of several, joined, are one message with all of them.

    Written as it stands on the wire, where fields may come in any order: messages would take ten times as long.
    """
    words = [
        events_pb2.PointsGrant(point_currency=kind.point_currency, reason=kind.reason).SerializeToString()
        for kind in asked.kinds
    ]
    around: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    parts: list[bytes] = []
    for alike, member_id, entry_id in zip(
        zip(asked.points, asked.which, strict=True), asked.member_ids, entry_ids, strict=True
    ):
        if alike not in around:
            points, kind = alike
            around[alike] = _around_ids(words[kind], points)
        before, after = around[alike]
        parts.append(b"%b\x0a\x24%b\x1a\x24%b%b" % (before, member_id.encode(), entry_id.encode(), after))
    return parts


def _around_ids(words: bytes, points: int) -> tuple[bytes, bytes]:
    """What stands before the ids of a grant's part, and after them."""
    after = b"\x20" + _varint(points)
    return b"\x0a" + _varint(len(words) + 2 * _ID_BYTES + len(after)) + words, after


def accrued_message(accrued: Accrued) -> points_pb2.AccrueResponse:
    """The reply to a grant."""
    return points_pb2.AccrueResponse(
        entry_id=accrued.entry_id,
        available_points=accrued.available_points,
        repaid_points=accrued.repaid_points,
    )


def verdicts_message(response: VerdictsMessage, granted: Granted) -> VerdictsMessage:
    """Adds one verdict a grant to the response, in place: a copy of each would cost more than the verdict."""
    add = response.verdicts.add
    for entry_id, available, repaid in zip(granted.entry_ids, granted.available, granted.repaid, strict=True):
        accrued = add().accrued
        accrued.entry_id = entry_id
        accrued.available_points = available
        if repaid:
            accrued.repaid_points = repaid
    for place, refusal in granted.refusals.items():
        said = response.verdicts[place]
        said.Clear()
        said.refusal_reason = refusal.reason
        said.refusal_message = refusal.message
    return response


def quote(request: points_pb2.QuotePointsRequest) -> QuoteAsked:
    """The order to be quoted."""
    return QuoteAsked(
        member_id=request.member_id.lower(),
        point_currency=request.point_currency,
        occurred_at=optional(request, "occurred_at"),
        lines=tuple(
            Line(
                line_id=line.line_id,
                category=line.category,
                quantity=line.quantity,
                base_minor=line.accrual_base_minor,
            )
            for line in request.lines
        ),
    )


def quote_message(earned: Sequence[Earned], version: int) -> points_pb2.QuotePointsResponse:
    """What the order would earn."""
    return points_pb2.QuotePointsResponse(
        points=sum(each.points for each in earned),
        rules=[
            points_pb2.RulePoints(rule_id=each.rule_id, points=each.points, expiry_class=each.expiry_class)
            for each in earned
        ],
        programme_version=version,
    )


def balance_message(balance: Balance) -> points_pb2.GetBalanceResponse:
    """The balance as the contract has it."""
    return points_pb2.GetBalanceResponse(
        available_points=balance.available_points,
        pending_points=balance.pending_points,
        held_points=balance.held_points,
        debt_points=balance.debt_points,
        posted_points=balance.available_points + balance.held_points,
        next_expiry_points=balance.next_expiry_points,
        next_expiry_at=timestamp(balance.next_expiry_at),
    )


def hold(request: points_pb2.HoldPointsRequest, call: Call, *, machine_now: datetime) -> HoldAsked:
    """The hold to make. Raises Invalid for one that is issued in the future."""
    issued_at = optional(request, "issued_at") or machine_now
    check_issued(issued_at, now=machine_now)
    return HoldAsked(
        client_id=call.client_id,
        request_id=request.request_id,
        fingerprint=fingerprint_of(request),
        hold_id=request.hold_id,
        member_id=request.member_id.lower(),
        point_currency=request.point_currency,
        points=request.points,
        expires_at=machine_now + hold_time_to_live(request.ttl_s),
        order_id=request.order_id,
        is_too_old=machine_now - issued_at >= TOMBSTONE_KEPT,
        now=call.now,
    )


def capture(request: points_pb2.CaptureHoldRequest, call: Call) -> ResolveAsked:
    """The capture to make."""
    return ResolveAsked(
        client_id=call.client_id,
        request_id=request.request_id,
        fingerprint=fingerprint(b"capture" + fingerprint_of(request)),
        hold_id=request.hold_id,
        is_capture=True,
        points=request.points,
        now=call.now,
    )


def void(request: points_pb2.VoidHoldRequest, call: Call) -> ResolveAsked:
    """The void to make."""
    return ResolveAsked(
        client_id=call.client_id,
        request_id=request.request_id,
        fingerprint=fingerprint(b"void" + fingerprint_of(request)),
        hold_id=request.hold_id,
        is_capture=False,
        points=0,
        now=call.now,
    )


def hold_message(found: Hold) -> points_pb2.PointsHold:
    """The hold as the contract has it; to its caller a tombstone is a voided hold without points."""
    state = HoldState.VOIDED if found.state is HoldState.TOMBSTONE else found.state
    return points_pb2.PointsHold(
        hold_id=found.hold_id,
        state=hold_pb2.HoldState.ValueType(int(state)),
        held_points=found.held_points,
        captured_points=found.captured_points,
        expires_at=timestamp(found.expires_at),
    )


def entry_message(entry: Entry) -> points_pb2.Entry:
    """An entry as the contract has it."""
    return points_pb2.Entry(
        entry_id=entry.entry_id,
        kind=points_pb2.EntryKind.ValueType(int(entry.kind)),
        points=entry.points,
        pending_points=entry.pending_points,
        funder=entry.funder,
        expiry_class=entry.expiry_class,
        expires_at=timestamp(entry.expires_at),
        occurred_at=timestamp(entry.occurred_at),
        posted_at=timestamp(entry.posted_at),
        order_id=entry.order_id,
        why=entry.why,
    )


def _varint(number: int) -> bytes:
    """A whole number, not negative, as it stands on the wire."""
    if number < 0x80:
        return _SMALL[number]
    return bytes((number & 0x7F | 0x80,)) + _varint(number >> 7)


# --- programmes and tiers --------------------------------------------------------------------------------------------


def programme(said: programme_pb2.Programme) -> Programme:
    """The programme that is published, its defaults filled in: no class is the base class, no funder the brand."""
    base = said.expiry_classes[0].class_id
    return Programme(
        point_currency=said.point_currency,
        display_name=said.display_name,
        rounding=Rounding.HALF_UP if said.rounding == programme_pb2.ROUNDING_HALF_UP else Rounding.DOWN,
        return_window_days=said.return_window_days,
        grace_days=said.grace_days or DEFAULT_GRACE_DAYS,
        debt_forbidden=said.debt_forbidden,
        tender_value_minor=said.tender_value_minor,
        points_per_value=said.points_per_value,
        expiry_classes=tuple(
            ExpiryClass(class_id=each.class_id, days=each.days, end_of_year_after=each.end_of_year_after)
            for each in said.expiry_classes
        ),
        earn_rules=tuple(
            EarnRule(
                rule_id=rule.rule_id,
                points=Decimal(rule.points),
                per_minor=rule.per_minor,
                expiry_class=rule.expiry_class or base,
                funder=rule.funder or BRAND,
                categories=frozenset(rule.categories),
                weekdays=frozenset(rule.weekdays),
                tier_multiplied=rule.tier_multiplied,
                valid_from=optional(rule, "valid_from"),
                valid_until=optional(rule, "valid_until"),
            )
            for rule in said.earn_rules
        ),
        tiers=tuple(
            Tier(
                tier_id=tier.tier_id,
                display_name=tier.display_name,
                multiplier=Decimal(tier.multiplier or "1"),
                amount_minor=tier.amount_minor,
                orders=tier.orders,
                activity=tier.activity,
                any_criterion=tier.any_criterion,
            )
            for tier in said.tiers
        ),
        tier_window=TierWindow(
            rolling_days=said.tier_window.rolling_days,
            grace_days=said.tier_window.grace_days,
            step_down=said.tier_window.step_down,
        ),
    )


def programme_message(version: Version) -> programme_pb2.GetProgrammeResponse:
    """A version as the contract has it."""
    known = version.programme
    said = programme_pb2.Programme(
        point_currency=known.point_currency,
        display_name=known.display_name,
        rounding=programme_pb2.ROUNDING_HALF_UP if known.rounding is Rounding.HALF_UP else programme_pb2.ROUNDING_DOWN,
        return_window_days=known.return_window_days,
        grace_days=known.grace_days,
        debt_forbidden=known.debt_forbidden,
        tender_value_minor=known.tender_value_minor,
        points_per_value=known.points_per_value,
        expiry_classes=[
            programme_pb2.ExpiryClass(class_id=each.class_id, days=each.days, end_of_year_after=each.end_of_year_after)
            for each in known.expiry_classes
        ],
        earn_rules=[_rule_message(rule) for rule in known.earn_rules],
        tiers=[
            programme_pb2.Tier(
                tier_id=tier.tier_id,
                display_name=tier.display_name,
                multiplier=str(tier.multiplier),
                amount_minor=tier.amount_minor,
                orders=tier.orders,
                activity=tier.activity,
                any_criterion=tier.any_criterion,
            )
            for tier in known.tiers
        ],
        tier_window=programme_pb2.TierWindow(
            rolling_days=known.tier_window.rolling_days,
            grace_days=known.tier_window.grace_days,
            step_down=known.tier_window.step_down,
        ),
    )
    return programme_pb2.GetProgrammeResponse(
        programme=said, version=version.number, effective_at=timestamp(version.effective_at)
    )


def published(version: int) -> bytes:
    """The stored reply to a publication."""
    return programme_pb2.PublishProgrammeResponse(version=version).SerializeToString()


def tier_message(seen: TierSeen) -> programme_pb2.GetTierResponse:
    """A member's tier as the contract has it."""
    return programme_pb2.GetTierResponse(
        tier_id=seen.standing.tier_id,
        since=timestamp(seen.standing.since),
        until=timestamp(seen.standing.until),
        amount_minor=seen.counters.amount_minor,
        orders=seen.counters.orders,
        activity=seen.counters.activity,
        next_tier_id=seen.next_tier_id,
        next_amount_minor=seen.lacking.amount_minor,
        next_orders=seen.lacking.orders,
    )


def change_message(change: Change) -> programme_pb2.TierChange:
    """A change of tier as the contract has it."""
    return programme_pb2.TierChange(
        from_tier_id=change.from_tier_id,
        to_tier_id=change.to_tier_id,
        changed_at=timestamp(change.changed_at),
        why=change.why,
    )


def _rule_message(rule: EarnRule) -> programme_pb2.EarnRule:
    return programme_pb2.EarnRule(
        rule_id=rule.rule_id,
        points=f"{rule.points:f}",
        per_minor=rule.per_minor,
        expiry_class=rule.expiry_class,
        funder=rule.funder,
        categories=sorted(rule.categories),
        weekdays=sorted(rule.weekdays),
        tier_multiplied=rule.tier_multiplied,
        valid_from=timestamp(rule.valid_from),
        valid_until=timestamp(rule.valid_until),
    )


# --- events ----------------------------------------------------------------------------------------------------------


def recorded(event: LoyaltyEvent) -> Recorded:
    """An event of ours as it is stored; a member's events share a partition."""
    if isinstance(event, PointsPosted):
        posted = events_pb2.PointsPosted(
            member_id=event.member_id,
            point_currency=event.point_currency,
            order_id=event.order_id,
            earned_points=event.earned_points,
            taken_back_points=event.taken_back_points,
            given_back_points=event.given_back_points,
            shortfall_points=event.shortfall_points,
        )
        return Recorded(
            type="loyalty.PointsPosted",
            aggregate_type="order_points",
            aggregate_id=event.order_id,
            version=event.version,
            partition_key=event.member_id,
            payload=posted.SerializeToString(),
            occurred_at=event.occurred_at,
        )
    changed = events_pb2.TierChanged(
        member_id=event.member_id,
        point_currency=event.point_currency,
        from_tier_id=event.from_tier_id,
        to_tier_id=event.to_tier_id,
        changed_at=timestamp(event.changed_at),
    )
    return Recorded(
        type="loyalty.TierChanged",
        aggregate_type="tier",
        aggregate_id=f"{event.member_id}/{event.point_currency}",
        version=event.version,
        partition_key=event.member_id,
        payload=changed.SerializeToString(),
        occurred_at=event.changed_at,
    )


def fact(event: Event) -> Fact | None:
    """What commerce tells that concerns points; None for other events."""
    match event.type:
        case "commerce.OrderPaid":
            paid = commerce_pb2.OrderPaid.FromString(event.payload)
            return PaidOrder(
                order_id=paid.order_id,
                member_id=paid.member_id,
                point_currency=paid.point_currency,
                store_id=paid.store_id,
                channel=paid.channel,
                occurred_at=instant(paid.occurred_at),
                lines=tuple(
                    Line(
                        line_id=line.line_id,
                        category=line.category,
                        quantity=line.quantity,
                        base_minor=line.accrual_base_minor,
                    )
                    for line in paid.lines
                ),
                burnt_points=paid.burnt_points,
                hold_id=paid.points_hold_id,
                offline_burnt_points=paid.offline_burnt_points,
            )
        case "commerce.LineRefunded":
            refunded = commerce_pb2.LineRefunded.FromString(event.payload)
            return Refund(
                order_id=refunded.order_id,
                refund_id=refunded.refund_id,
                member_id=refunded.member_id,
                point_currency=refunded.point_currency,
                occurred_at=instant(refunded.occurred_at),
                lines=tuple(
                    RefundedUnits(line_id=line.line_id, quantity=line.quantity, returned_points=line.returned_points)
                    for line in refunded.lines
                ),
                whole_order=refunded.whole_order,
            )
        case _:
            return None


def told(event: Event) -> Told | None:
    """What identity tells that concerns loyalty; None for other events."""
    match event.type:
        case "identity.TenantChanged":
            changed = identity_pb2.TenantChanged.FromString(event.payload)
            return Tenant(
                id=changed.tenant_id,
                time_zone=changed.time_zone,
                currency_code=changed.currency_code,
                test_clock_at=optional(changed, "test_clock_at"),
                version=changed.version,
            )
        case "identity.MemberMerged":
            merged = identity_pb2.MemberMerged.FromString(event.payload)
            return MergedMembers(merge_id=merged.merge_id, member_id=merged.member_id, alias_id=merged.merged_member_id)
        case _:
            return None
