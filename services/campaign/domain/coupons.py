"""Coupons: what they are issued from, where they stand, and when one may be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from services.campaign.domain import refusals
from services.campaign.domain.promotions import ZERO, window_violations
from services.runtime.errors import Invalid
from services.runtime.ids import CouponId, MemberId, TemplateId

ISSUE_LIMIT_REACHED: Final = "ISSUE_LIMIT_REACHED"
MEMBER_LIMIT_REACHED: Final = "MEMBER_LIMIT_REACHED"
TEMPLATE_ENDED: Final = "TEMPLATE_ENDED"
TEMPLATE_NOT_FOUND: Final = "TEMPLATE_NOT_FOUND"
CODE_TAKEN: Final = "CODE_TAKEN"


class CouponDiscount(StrEnum):
    """How a coupon discounts."""

    AMOUNT = "amount"
    PERCENT = "percent"


class CouponState(StrEnum):
    """Where a coupon stands. A refund can bring USED back to ISSUED."""

    ISSUED = "issued"
    HELD = "held"
    USED = "used"


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """One version of a template. Empty sets restrict nothing; limits and `cap_minor` 0: none."""

    template_id: TemplateId
    display_name: str
    discount: CouponDiscount
    valid_from: datetime
    valid_until: datetime
    amount_minor: int = 0
    percent: Decimal = ZERO
    cap_minor: int = 0
    threshold_minor: int = 0
    skus: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    issue_limit: int = 0
    member_limit: int = 0
    exclusive: bool = False
    returnable: bool = False
    funder: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupon:
    """An issued coupon. `held_until` (machine time) tells when its holder loses it; `code` is empty where unknown."""

    coupon_id: CouponId
    template_id: TemplateId
    template_version: int
    member_id: MemberId | None
    state: CouponState
    valid_from: datetime
    valid_until: datetime
    held_until: datetime | None = None
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateCounts:
    """Coupons of a template, by where they stand; `issued` is all of them."""

    issued: int
    held: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToIssue:
    """A coupon that somebody asks for. `code` empty: one is made."""

    template_id: TemplateId
    member_id: MemberId | None
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuable:
    """What issuing from a template has to know: its limits and how far they are used."""

    version: int
    valid_from: datetime
    valid_until: datetime
    issue_limit: int
    member_limit: int
    issued: int


def check_template(template: Template) -> None:
    """Raises Invalid, naming every field that contradicts the discount or another field."""
    violations = window_violations(template.valid_from, template.valid_until, prefix="template.")
    is_percent = template.discount is CouponDiscount.PERCENT
    if is_percent != (template.percent > ZERO):
        violations.append(("template.percent", "PERCENT needs it above zero, AMOUNT has none"))
    if is_percent == (template.amount_minor > 0):
        violations.append(("template.amount_minor", "AMOUNT needs it above zero, PERCENT has none"))
    if violations:
        raise Invalid(violations=tuple(violations))


def state_at(coupon: Coupon, machine_now: datetime) -> CouponState:
    """The state that counts now: what an overdue hold holds is free, whether or not it was swept."""
    overdue = coupon.held_until is not None and coupon.held_until <= machine_now
    return CouponState.ISSUED if coupon.state is CouponState.HELD and overdue else coupon.state


def use_refusal(
    coupon: Coupon, *, member_id: str, at: datetime, machine_now: datetime
) -> type[refusals.CouponRefused] | None:
    """Why this buyer can't use the coupon at this business time; None if it can be used."""
    if coupon.member_id is not None and coupon.member_id != member_id:
        return refusals.NotYours
    state = state_at(coupon, machine_now)
    if state is CouponState.USED:
        return refusals.CouponUsed
    if state is CouponState.HELD:
        return refusals.CouponHeld
    if at < coupon.valid_from:
        return refusals.CouponNotStarted
    if at >= coupon.valid_until:
        return refusals.CouponExpired
    return None


def issue_refusals(
    items: Sequence[ToIssue],
    *,
    templates: Mapping[str, Issuable],
    owned: Mapping[tuple[str, str], int],
    taken: frozenset[str],
    now: datetime,
) -> tuple[str, ...]:
    """One reason an item, empty where it may be issued; limits count the items before it.

    `owned` counts coupons by (template, member) and `taken` holds codes that exist already.
    """
    issued = {template_id: template.issued for template_id, template in templates.items()}
    members = dict(owned)
    codes = set(taken)
    reasons: list[str] = []
    for item in items:
        template = templates.get(item.template_id)
        member = (item.template_id, item.member_id or "")
        has = _Standing(issued=issued.get(item.template_id, 0), owned=members.get(member, 0), taken=item.code in codes)
        reason = _issue_refusal(item, template, has, now)
        reasons.append(reason)
        if reason:
            continue
        issued[item.template_id] += 1
        members[member] = members.get(member, 0) + 1
        codes.add(item.code)
    return tuple(reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """How far limits are used before an item: issued in all, owned by its member, and whether its code is taken."""

    issued: int
    owned: int
    taken: bool


def _issue_refusal(item: ToIssue, template: Issuable | None, has: _Standing, now: datetime) -> str:
    if template is None:
        return TEMPLATE_NOT_FOUND
    if now >= template.valid_until:
        return TEMPLATE_ENDED
    if template.issue_limit and has.issued >= template.issue_limit:
        return ISSUE_LIMIT_REACHED
    if template.member_limit and item.member_id is not None and has.owned >= template.member_limit:
        return MEMBER_LIMIT_REACHED
    if item.code and has.taken:
        return CODE_TAKEN
    return ""
