"""The best-price engine: which discounts apply to a basket, what each line's share of them is, and why not the others.

Evaluation
    Line promotions, then order promotions, then coupons; within each by priority (higher first), then by id. Each takes
    from what the ones before it left of the lines that it matches. A percentage is rounded half away from zero once, on
    the total of those lines; the total is then allocated by what is left of each, by largest remainder. An amount per
    unit is rounded per line. Nothing takes more than is left. A threshold is judged on what is left of the matching
    lines when its turn comes. A discount that its promotion's budget can't bear in full is not given at all.

Choice
    Of an exclusivity group at most one promotion applies, and an exclusive coupon applies without other coupons. Every
    allowed combination is evaluated, and the lowest total wins; among equal totals the one that uses up fewer coupons,
    then the one whose candidates come first in the order of evaluation. Where a threshold or a budget is missed because
    of what came before, leaving candidates out can be better for the customer, so those combinations are tried too.

Bound
    At most MAX_EVALUATIONS combinations are evaluated. A larger space (ten groups of four, say) is searched choice by
    choice until no single change lowers the total: never worse than any single change, not proven to be the best.

The result depends on the basket, the rules and the time alone: candidates are sorted before anything is decided.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import Final

from services.campaign.domain.coupons import CouponDiscount, Template
from services.campaign.domain.promotions import ORDER_KINDS, PERCENT_KINDS, Promotion, PromotionKind
from services.runtime.money import allocate, price_of, round_ratio

MAX_EVALUATIONS: Final = 512
MAX_COUPONS_IN_SUBSETS: Final = 6

NO_MATCHING_LINE: Final = "NO_MATCHING_LINE"
BELOW_THRESHOLD: Final = "BELOW_THRESHOLD"
EXCLUDED_BY_BETTER: Final = "EXCLUDED_BY_BETTER"
MEMBERS_ONLY: Final = "MEMBERS_ONLY"
OTHER_STORE: Final = "OTHER_STORE"
BUDGET_SPENT: Final = "BUDGET_SPENT"
NOTHING_LEFT_TO_DISCOUNT: Final = "NOTHING_LEFT_TO_DISCOUNT"


class Source(IntEnum):
    """Where a discount comes from, in the order of evaluation."""

    LINE_PROMOTION = 1
    ORDER_PROMOTION = 2
    COUPON = 3


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """A candidate that matches the basket, ready to be evaluated. `rank` is its place in the order of evaluation.

    `units_off` has an amount for each of `lines`; otherwise `percent` (numerator, denominator) or `amount` counts.
    """

    rank: int
    source: Source
    name: str
    source_id: str
    coupon_id: str
    funder: str
    lines: tuple[int, ...]
    units_off: tuple[int, ...] = ()
    percent: tuple[int, int] | None = None
    amount_minor: int = 0
    cap_minor: int = 0
    threshold_minor: int = 0
    budget_left: int | None = None
    has_budget: bool = False
    group: str = ""
    exclusive: bool = False


_Choice = tuple[_Offer, ...]
"""Offers that are taken together at one point of choice."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One combination, evaluated: what is left of each line, and by rank the shares taken or the reason why none."""

    left: tuple[int, ...]
    shares: dict[int, Sequence[int]]
    missed: dict[int, str]
    key: tuple[int, int, tuple[int, ...], int]
    strained: bool


def best_price(basket: Basket, rules: Rules) -> Price:
    """The lowest total that the rules allow, with each line's shares and a verdict for every candidate."""
    offers, rejected = _candidates(basket, rules)
    shelf = tuple(line.shelf_minor for line in basket.lines)
    outcome = _best(shelf, offers)
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


def _priced(lines: tuple[Line, ...], applied: Sequence[_Offer], outcome: _Outcome) -> tuple[PricedLine, ...]:
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


def _candidates(basket: Basket, rules: Rules) -> tuple[list[_Offer], list[Verdict]]:
    """The offers in the order of evaluation, and the verdicts of what is rejected whatever else applies."""
    skus = {line.sku for line in basket.lines}
    categories = {line.category for line in basket.lines}
    offers: list[_Offer] = []
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


def _promotion_offer(
    promotion: Promotion, lines: tuple[int, ...], basket: Basket, rules: Rules, *, rank: int
) -> _Offer:
    name = promotion.promotion_id
    units_off: tuple[int, ...] = ()
    if promotion.kind is PromotionKind.MEMBER_PRICE:
        units_off = tuple(_off(basket.lines[at], rules.member_prices[name, basket.lines[at].sku]) for at in lines)
    elif promotion.kind is PromotionKind.LINE_AMOUNT:
        units_off = tuple(_off(basket.lines[at], promotion.amount_minor) for at in lines)
    return _Offer(
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


def _coupon_offer(coupon: ShownCoupon, lines: tuple[int, ...], *, rank: int) -> _Offer:
    template = coupon.template
    assert template is not None, "rejected before"
    return _Offer(
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


# --- evaluation ------------------------------------------------------------------------------------------------------


def _evaluate(shelf: tuple[int, ...], chosen: Iterable[_Offer]) -> _Outcome:
    """Applies the chosen offers in the order of evaluation."""
    left = list(shelf)
    shares: dict[int, Sequence[int]] = {}
    missed: dict[int, str] = {}
    strained = False
    tried = 0
    coupons = 0
    for offer in sorted(chosen, key=lambda each: each.rank):
        tried += 1
        reason, taken = _take(offer, left)
        if reason:
            missed[offer.rank] = reason
            strained = strained or _is_strained(offer, reason, shelf)
            continue
        shares[offer.rank] = taken
        coupons += bool(offer.coupon_id)
        for at, amount in zip(offer.lines, taken, strict=True):
            left[at] -= amount
    assert all(amount >= 0 for amount in left), "a line below zero"
    # what was tried and missed has a reason of its own to tell: prefer that to having been left out
    key = sum(left), coupons, tuple(shares), -tried
    return _Outcome(tuple(left), shares, missed, key, strained)


def _take(offer: _Offer, left: Sequence[int]) -> tuple[str, Sequence[int]]:
    """Why nothing is taken; or what is taken from each of the offer's lines."""
    weights = [left[at] for at in offer.lines]
    total = sum(weights)
    if total < offer.threshold_minor:
        return BELOW_THRESHOLD, ()
    taken: Sequence[int]
    if offer.units_off:
        taken = [min(off, weight) for off, weight in zip(offer.units_off, weights, strict=True)]
        amount = sum(taken)
    else:
        amount = min(_amount(offer, total), total)
        taken = allocate(amount, weights) if amount else ()
    if not amount:
        return NOTHING_LEFT_TO_DISCOUNT, ()
    if offer.budget_left is not None and amount > offer.budget_left:
        return BUDGET_SPENT, ()
    return "", taken


def _amount(offer: _Offer, total: int) -> int:
    amount = offer.amount_minor if offer.percent is None else round_ratio(total * offer.percent[0], offer.percent[1])
    return min(amount, offer.cap_minor) if offer.cap_minor else amount


def _is_strained(offer: _Offer, reason: str, shelf: Sequence[int]) -> bool:
    """Whether leaving something else out could have let this one apply."""
    if reason == BELOW_THRESHOLD:
        return sum(shelf[at] for at in offer.lines) >= offer.threshold_minor
    # what others take changes a percentage, and so whether the budget can bear it
    return reason == BUDGET_SPENT


# --- choice ----------------------------------------------------------------------------------------------------------


def _best(shelf: tuple[int, ...], offers: Sequence[_Offer]) -> _Outcome:
    points = _points(offers)
    best, strained = _search(shelf, points, start=[options[0] for options in points])
    if not strained:
        return best
    # a threshold or budget was missed in some combination: try leaving candidates out as well
    with_gaps = _points_with_gaps(offers)
    ranks = set(best.shares)
    start = [max(options, key=lambda each: _overlap(each, ranks)) for options in with_gaps]
    other, _ = _search(shelf, with_gaps, start=start)
    # the bounded search of the larger space may miss what the smaller one found
    return min(best, other, key=lambda outcome: outcome.key)


def _overlap(choice: _Choice, ranks: set[int]) -> tuple[int, int]:
    inside = sum(offer.rank in ranks for offer in choice)
    return inside - (len(choice) - inside), inside


def _points(offers: Sequence[_Offer]) -> list[list[_Choice]]:
    """The points of choice: all that stacks freely, one of each group, and the coupons."""
    free = tuple(offer for offer in offers if offer.source is not Source.COUPON and not offer.group)
    points: list[list[_Choice]] = [[free]] if free else []
    points += [[(offer,) for offer in members] for members in _groups(offers)]
    coupons = [offer for offer in offers if offer.source is Source.COUPON]
    together = tuple(offer for offer in coupons if not offer.exclusive)
    options: list[_Choice] = [together] if together else []
    options += [(offer,) for offer in coupons if offer.exclusive]
    return [*points, options] if options else points


def _points_with_gaps(offers: Sequence[_Offer]) -> list[list[_Choice]]:
    """The same, where nothing has to be taken."""
    points: list[list[_Choice]] = [
        [(offer,), ()] for offer in offers if offer.source is not Source.COUPON and not offer.group
    ]
    points += [[*((offer,) for offer in members), ()] for members in _groups(offers)]
    coupons = [offer for offer in offers if offer.source is Source.COUPON]
    options = [*_subsets([offer for offer in coupons if not offer.exclusive])]
    options += [(offer,) for offer in coupons if offer.exclusive]
    return [*points, options]


def _groups(offers: Sequence[_Offer]) -> list[list[_Offer]]:
    groups: dict[str, list[_Offer]] = {}
    for offer in offers:
        if offer.group:
            groups.setdefault(offer.group, []).append(offer)
    return list(groups.values())


def _subsets(offers: Sequence[_Offer]) -> Iterator[_Choice]:
    """All of them, then fewer; of many only all, each but one, each alone, and none."""
    few = len(offers) <= MAX_COUPONS_IN_SUBSETS
    sizes = range(len(offers), -1, -1) if few else (len(offers), len(offers) - 1, 1, 0)
    for size in sizes:
        yield from itertools.combinations(offers, size)


def _search(
    shelf: tuple[int, ...], points: Sequence[Sequence[_Choice]], *, start: Sequence[_Choice]
) -> tuple[_Outcome, bool]:
    """The best combination of one option a point, and whether any that was tried missed a threshold or budget."""
    if math.prod(len(options) for options in points) <= MAX_EVALUATIONS:
        outcomes = [_evaluate(shelf, itertools.chain(*chosen)) for chosen in itertools.product(*points)]
        best = min(outcomes, key=lambda outcome: outcome.key)
        return best, any(outcome.strained for outcome in outcomes)
    return _climb(shelf, points, start=start)


def _climb(
    shelf: tuple[int, ...], points: Sequence[Sequence[_Choice]], *, start: Sequence[_Choice]
) -> tuple[_Outcome, bool]:
    """Changes one choice at a time until no change helps; a pass that has begun is finished, so the bound is soft."""
    chosen = list(start)
    best = _evaluate(shelf, itertools.chain(*chosen))
    strained = best.strained
    evaluations = 1
    improved = True
    while improved and evaluations < MAX_EVALUATIONS:
        improved = False
        for at, options in enumerate(points):
            for option in options:
                outcome = _evaluate(shelf, itertools.chain(*chosen[:at], option, *chosen[at + 1 :]))
                evaluations += 1
                strained = strained or outcome.strained
                if outcome.key < best.key:
                    best, improved = outcome, True
                    chosen[at] = option
    return best, strained
