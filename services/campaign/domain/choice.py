"""Which offers a basket takes: evaluates combinations of them on integers, and finds the lowest total.

What counts as lowest, and the bound of the search, is written at the top of `domain.pricing`.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from services.runtime.money import allocate, round_ratio

MAX_EVALUATIONS: Final = 512
MAX_STEPS: Final = 250_000
"""A step is an offer's look at one line, some 0.3 µs: a search ends within 100 ms, whatever a brand has on offer."""
STEPS_AN_OFFER: Final = 8
"""What an offer costs besides its lines."""
MAX_COUPONS_IN_SUBSETS: Final = 6

BELOW_THRESHOLD: Final = "BELOW_THRESHOLD"
EXCLUDED_BY_BETTER: Final = "EXCLUDED_BY_BETTER"
BUDGET_SPENT: Final = "BUDGET_SPENT"
NOTHING_LEFT_TO_DISCOUNT: Final = "NOTHING_LEFT_TO_DISCOUNT"


class Source(IntEnum):
    """Where a discount comes from, in the order of evaluation."""

    LINE_PROMOTION = 1
    ORDER_PROMOTION = 2
    COUPON = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
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


Choice = tuple[Offer, ...]
"""Offers that are taken together at one point of choice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One combination, evaluated: what is left of each line, and by rank the shares taken or the reason why none."""

    left: tuple[int, ...]
    shares: dict[int, Sequence[int]]
    missed: dict[int, str]
    key: tuple[int, int, tuple[int, ...], int]
    strained: bool


def evaluate(shelf: tuple[int, ...], chosen: Iterable[Offer]) -> Outcome:
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
    return Outcome(tuple(left), shares, missed, key, strained)


def _take(offer: Offer, left: Sequence[int]) -> tuple[str, Sequence[int]]:
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


def _amount(offer: Offer, total: int) -> int:
    amount = offer.amount_minor if offer.percent is None else round_ratio(total * offer.percent[0], offer.percent[1])
    return min(amount, offer.cap_minor) if offer.cap_minor else amount


def _is_strained(offer: Offer, reason: str, shelf: Sequence[int]) -> bool:
    """Whether leaving something else out could have let this one apply."""
    if reason == BELOW_THRESHOLD:
        return sum(shelf[at] for at in offer.lines) >= offer.threshold_minor
    # what others take changes a percentage, and so whether the budget can bear it
    return reason == BUDGET_SPENT


# --- choice ----------------------------------------------------------------------------------------------------------


def best_outcome(shelf: tuple[int, ...], offers: Sequence[Offer]) -> Outcome:
    """The lowest total that the offers allow on lines of these amounts; see `domain.pricing` for what counts."""
    points = _points(offers)
    best, strained = _search(shelf, points)
    if not strained:
        return best
    # a threshold or budget was missed in some combination: try leaving candidates out as well
    with_gaps = _points_with_gaps(offers)
    ranks = set(best.shares)
    start = [max(options, key=lambda each: _overlap(each, ranks)) for options in with_gaps]
    other, _ = _search(shelf, with_gaps, start=start)
    # the bounded search of the larger space may miss what the smaller one found
    return min(best, other, key=lambda outcome: outcome.key)


def _overlap(choice: Choice, ranks: set[int]) -> tuple[int, int]:
    inside = sum(offer.rank in ranks for offer in choice)
    return inside - (len(choice) - inside), inside


def _points(offers: Sequence[Offer]) -> list[list[Choice]]:
    """The points of choice: all that stacks freely, one of each group, and the coupons."""
    free = tuple(offer for offer in offers if offer.source is not Source.COUPON and not offer.group)
    points: list[list[Choice]] = [[free]] if free else []
    points += [[(offer,) for offer in members] for members in _groups(offers)]
    coupons = [offer for offer in offers if offer.source is Source.COUPON]
    together = tuple(offer for offer in coupons if not offer.exclusive)
    options: list[Choice] = [together] if together else []
    options += [(offer,) for offer in coupons if offer.exclusive]
    return [*points, options] if options else points


def _points_with_gaps(offers: Sequence[Offer]) -> list[list[Choice]]:
    """The same, where nothing has to be taken."""
    points: list[list[Choice]] = [
        [(offer,), ()] for offer in offers if offer.source is not Source.COUPON and not offer.group
    ]
    points += [[*((offer,) for offer in members), ()] for members in _groups(offers)]
    coupons = [offer for offer in offers if offer.source is Source.COUPON]
    options = [*_subsets([offer for offer in coupons if not offer.exclusive])]
    options += [(offer,) for offer in coupons if offer.exclusive]
    return [*points, options]


def _groups(offers: Sequence[Offer]) -> list[list[Offer]]:
    groups: dict[str, list[Offer]] = {}
    for offer in offers:
        if offer.group:
            groups.setdefault(offer.group, []).append(offer)
    return list(groups.values())


def _subsets(offers: Sequence[Offer]) -> Iterator[Choice]:
    """All of them, then fewer; of many only all, each but one, each alone, and none."""
    few = len(offers) <= MAX_COUPONS_IN_SUBSETS
    sizes = range(len(offers), -1, -1) if few else (len(offers), len(offers) - 1, 1, 0)
    for size in sizes:
        yield from itertools.combinations(offers, size)


def _search(
    shelf: tuple[int, ...], points: Sequence[Sequence[Choice]], *, start: Sequence[Choice] | None = None
) -> tuple[Outcome, bool]:
    """The best combination of one option a point, and whether any that was tried missed a threshold or budget.

    A space that is too large is climbed from `start`; without one, from what is best at each point by itself.
    """
    combinations = math.prod(len(options) for options in points)
    dearest = sum(max(map(_steps, options)) for options in points)
    if combinations == 1 or (combinations <= MAX_EVALUATIONS and combinations * dearest <= MAX_STEPS):
        outcomes = [evaluate(shelf, itertools.chain(*chosen)) for chosen in itertools.product(*points)]
        best = min(outcomes, key=lambda outcome: outcome.key)
        return best, any(outcome.strained for outcome in outcomes)
    return _climb(shelf, points, start=start or [_best_alone(shelf, options) for options in points])


def _best_alone(shelf: tuple[int, ...], options: Sequence[Choice]) -> Choice:
    return options[0] if len(options) == 1 else min(options, key=lambda option: evaluate(shelf, option).key)


def _climb(
    shelf: tuple[int, ...], points: Sequence[Sequence[Choice]], *, start: Sequence[Choice]
) -> tuple[Outcome, bool]:
    """Changes one choice at a time until no change helps, or the evaluations and steps are spent."""
    chosen = list(start)
    best = evaluate(shelf, itertools.chain(*chosen))
    strained = best.strained
    evaluations, steps = 1, sum(map(_steps, chosen))
    improved = True
    while improved:
        improved = False
        for at, options in enumerate(points):
            for option in options:
                if option is chosen[at]:
                    continue
                if evaluations >= MAX_EVALUATIONS or steps >= MAX_STEPS:
                    return best, strained
                changed = [*chosen[:at], option, *chosen[at + 1 :]]
                outcome = evaluate(shelf, itertools.chain(*changed))
                evaluations += 1
                steps += sum(map(_steps, changed))
                strained = strained or outcome.strained
                if outcome.key < best.key:
                    best, improved = outcome, True
                    chosen = changed
    return best, strained


def _steps(choice: Choice) -> int:
    return sum(len(offer.lines) + STEPS_AN_OFFER for offer in choice)
