"""The best-price engine: which discounts apply to a basket, what each line's share of them is, and why not the others.

Evaluation
    Line promotions, then order promotions, then coupons; within each by priority (higher first), then by id. Each takes
    from what the ones before it left of the lines that it matches. A percentage is rounded half away from zero once, on
    the total of those lines; the total is then allocated by what is left of each, by largest remainder. An amount per
    unit is rounded per line. Nothing takes more than is left. A threshold is judged on what is left of the matching
    lines when its turn comes. A discount that its promotion's budget can't bear in full is not given at all.

Choice
    Of an exclusivity group at most one promotion applies, and an exclusive coupon applies without other coupons. Of all
    allowed combinations the lowest total wins; among equals the one that uses up fewer coupons, then the one whose
    candidates come first in the order of evaluation. Where a threshold or a budget is missed because of what came
    before, leaving candidates out can be better for the customer, so those combinations are tried too.

Bound
    A space of up to MAX_EVALUATIONS combinations is searched whole, at some 15 µs each. A larger one (five groups of
    four, say) is searched from the best of each group by itself, choice by choice, until no single change lowers the
    total: not proven to be the best. Either ends after MAX_STEPS, for a brand with a thousand promotions on one SKU.

The result depends on the basket, the rules and the time alone: candidates are sorted before anything is decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from services.campaign.domain.choice import BUDGET_SPENT, EXCLUDED_BY_BETTER, Offer, Outcome, Source, best_outcome
from services.campaign.domain.coupons import CouponDiscount, Template
from services.campaign.domain.promotions import ORDER_KINDS, PERCENT_KINDS, Promotion, PromotionKind
from services.runtime.money import price_of

NO_MATCHING_LINE: Final = "NO_MATCHING_LINE"
MEMBERS_ONLY: Final = "MEMBERS_ONLY"
OTHER_STORE: Final = "OTHER_STORE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A basket line. `shelf_minor` is its total before discounts; a price is for `price_quantity` base units."""

    line_id: str
    sku: str
    category: str
    quantity: int
    price_quantity: int
    shelf_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    """What is priced, for whom, where and when (business time)."""

    lines: tuple[Line, ...]
    is_member: bool
    store_id: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCoupon:
    """A code that the customer shows. Either it has a template, or the reason why it can't be used."""

    code: str
    coupon_id: str = ""
    template: Template | None = None
    rejection: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may discount a basket: promotions, member prices by (promotion, SKU), what budgets have left, coupons.

    Promotions that are not in force at the basket's time are no candidates; a promotion without a budget is not in
    `budgets_left`.
    """

    promotions: Sequence[Promotion] = ()
    member_prices: Mapping[tuple[str, str], int] = field(default_factory=dict)
    budgets_left: Mapping[str, int] = field(default_factory=dict)
    coupons: Sequence[ShownCoupon] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A line's share of one discount, in minor units, above zero. `source_id` is the promotion or the template."""

    source: Source
    source_id: str
    coupon_id: str
    amount_minor: int
    funder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedLine:
    """A line with its shares in the order of evaluation; `net_minor` is never below zero."""

    line_id: str
    shelf_minor: int
    shares: tuple[Share, ...]
    net_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a candidate: what it took off, or why not. `source_id` is the promotion or the code shown."""

    source: Source
    source_id: str
    amount_minor: int = 0
    rejection: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The best allowed total, explained. `coupons` and `budgets` are what the order must hold, with amounts."""

    lines: tuple[PricedLine, ...]
    verdicts: tuple[Verdict, ...]
    shelf_minor: int
    net_minor: int
    coupons: tuple[tuple[str, int], ...]
    budgets: tuple[tuple[str, int], ...]

    @property
    def discount_minor(self) -> int:
        """Off in all."""
        return self.shelf_minor - self.net_minor


def best_price(basket: Basket, rules: Rules) -> Price:
    """The lowest total that the rules allow, with each line's shares and a verdict for every candidate."""
    offers, rejected = candidates(basket, rules)
    shelf = tuple(line.shelf_minor for line in basket.lines)
    outcome = best_outcome(shelf, offers)
    verdicts = [*rejected]
    for offer in offers:
        taken = sum(outcome.shares.get(offer.rank, ()))
        reason = "" if taken else outcome.missed.get(offer.rank, EXCLUDED_BY_BETTER)
        verdicts.append(Verdict(source=offer.source, source_id=offer.name, amount_minor=taken, rejection=reason))
    applied = [offer for offer in offers if offer.rank in outcome.shares]
    return Price(
        lines=_priced(basket.lines, applied, outcome),
        verdicts=tuple(sorted(verdicts, key=lambda verdict: (verdict.source, verdict.source_id))),
        shelf_minor=sum(shelf),
        net_minor=sum(outcome.left),
        coupons=tuple((offer.coupon_id, sum(outcome.shares[offer.rank])) for offer in applied if offer.coupon_id),
        budgets=tuple((offer.source_id, sum(outcome.shares[offer.rank])) for offer in applied if offer.has_budget),
    )


def _priced(lines: tuple[Line, ...], applied: Sequence[Offer], outcome: Outcome) -> tuple[PricedLine, ...]:
    shares: list[list[Share]] = [[] for _ in lines]
    for offer in applied:
        for at, amount in zip(offer.lines, outcome.shares[offer.rank], strict=True):
            if amount:
                share = Share(
                    source=offer.source,
                    source_id=offer.source_id,
                    coupon_id=offer.coupon_id,
                    amount_minor=amount,
                    funder=offer.funder,
                )
                shares[at].append(share)
    return tuple(
        PricedLine(line_id=line.line_id, shelf_minor=line.shelf_minor, shares=tuple(own), net_minor=left)
        for line, own, left in zip(lines, shares, outcome.left, strict=True)
    )


# --- candidates ------------------------------------------------------------------------------------------------------


def candidates(basket: Basket, rules: Rules) -> tuple[list[Offer], list[Verdict]]:
    """The offers in the order of evaluation, and the verdicts of what is rejected whatever else applies."""
    skus = {line.sku for line in basket.lines}
    categories = {line.category for line in basket.lines}
    offers: list[Offer] = []
    rejected: list[Verdict] = []
    in_force = [promotion for promotion in rules.promotions if promotion.in_force(basket.at)]
    for promotion in sorted(in_force, key=_promotion_order):
        source = _source_of(promotion)
        reason, lines = _promotion_match(promotion, basket, rules, skus, categories)
        if reason:
            rejected.append(Verdict(source=source, source_id=promotion.promotion_id, rejection=reason))
        else:
            offers.append(_promotion_offer(promotion, lines, basket, rules, rank=len(offers)))
    for coupon in sorted(rules.coupons, key=_coupon_order):
        reason, lines = _coupon_match(coupon, basket)
        if reason:
            rejected.append(Verdict(source=Source.COUPON, source_id=coupon.code, rejection=reason))
        else:
            offers.append(_coupon_offer(coupon, lines, rank=len(offers)))
    return offers, rejected


def _source_of(promotion: Promotion) -> Source:
    return Source.ORDER_PROMOTION if promotion.kind in ORDER_KINDS else Source.LINE_PROMOTION


def _promotion_order(promotion: Promotion) -> tuple[int, int, str]:
    return _source_of(promotion), -promotion.priority, promotion.promotion_id


def _coupon_order(coupon: ShownCoupon) -> tuple[int, str, str, str]:
    template = coupon.template
    return (-template.priority, template.template_id, coupon.coupon_id, coupon.code) if template else (0, "", "", "")


def _promotion_match(
    promotion: Promotion, basket: Basket, rules: Rules, skus: set[str], categories: set[str]
) -> tuple[str, tuple[int, ...]]:
    """Why it can't apply, whatever else does; or the lines that it matches."""
    is_member_price = promotion.kind is PromotionKind.MEMBER_PRICE
    if promotion.store_ids and basket.store_id not in promotion.store_ids:
        return OTHER_STORE, ()
    if (promotion.members_only or is_member_price) and not basket.is_member:
        return MEMBERS_ONLY, ()
    if is_member_price:
        prices, name = rules.member_prices, promotion.promotion_id
        lines = tuple(at for at, line in enumerate(basket.lines) if (name, line.sku) in prices)
    elif _restricted_away(promotion, skus, categories):
        lines = ()
    else:
        lines = _matching(basket.lines, promotion.skus, promotion.categories)
    if not lines:
        return NO_MATCHING_LINE, ()
    if rules.budgets_left.get(promotion.promotion_id, 1) <= 0:
        return BUDGET_SPENT, ()
    return "", lines


def _restricted_away(promotion: Promotion, skus: set[str], categories: set[str]) -> bool:
    # two set operations, so that a thousand promotions on other goods cost nothing
    restricted = promotion.skus or promotion.categories
    return bool(restricted) and promotion.skus.isdisjoint(skus) and promotion.categories.isdisjoint(categories)


def _matching(lines: Sequence[Line], skus: frozenset[str], categories: frozenset[str]) -> tuple[int, ...]:
    """Lines by SKU or by category; without either restriction all."""
    if not skus and not categories:
        return tuple(range(len(lines)))
    return tuple(at for at, line in enumerate(lines) if line.sku in skus or line.category in categories)


def _promotion_offer(promotion: Promotion, lines: tuple[int, ...], basket: Basket, rules: Rules, *, rank: int) -> Offer:
    name = promotion.promotion_id
    units_off: tuple[int, ...] = ()
    if promotion.kind is PromotionKind.MEMBER_PRICE:
        units_off = tuple(_off(basket.lines[at], rules.member_prices[name, basket.lines[at].sku]) for at in lines)
    elif promotion.kind is PromotionKind.LINE_AMOUNT:
        units_off = tuple(_off(basket.lines[at], promotion.amount_minor) for at in lines)
    return Offer(
        rank=rank,
        source=_source_of(promotion),
        name=name,
        source_id=name,
        coupon_id="",
        funder=promotion.funder,
        lines=lines,
        units_off=units_off,
        percent=_ratio(promotion.percent) if promotion.kind in PERCENT_KINDS else None,
        amount_minor=promotion.amount_minor,
        threshold_minor=promotion.threshold_minor,
        budget_left=rules.budgets_left.get(name),
        has_budget=promotion.budget_minor > 0,
        group=promotion.exclusivity_group,
    )


def _off(line: Line, amount_minor: int) -> int:
    return price_of(amount_minor, line.quantity, line.price_quantity)


def _ratio(percent: Decimal) -> tuple[int, int]:
    numerator, denominator = percent.as_integer_ratio()
    return numerator, denominator * 100


def _coupon_match(coupon: ShownCoupon, basket: Basket) -> tuple[str, tuple[int, ...]]:
    template = coupon.template
    if coupon.rejection or template is None:
        assert coupon.rejection, "a coupon without template has a reason"
        return coupon.rejection, ()
    lines = _matching(basket.lines, template.skus, template.categories)
    return ("", lines) if lines else (NO_MATCHING_LINE, ())


def _coupon_offer(coupon: ShownCoupon, lines: tuple[int, ...], *, rank: int) -> Offer:
    template = coupon.template
    assert template is not None, "rejected before"
    return Offer(
        rank=rank,
        source=Source.COUPON,
        name=coupon.code,
        source_id=template.template_id,
        coupon_id=coupon.coupon_id,
        funder=template.funder,
        lines=lines,
        percent=_ratio(template.percent) if template.discount is CouponDiscount.PERCENT else None,
        amount_minor=template.amount_minor,
        cap_minor=template.cap_minor,
        threshold_minor=template.threshold_minor,
        exclusive=template.exclusive,
    )
