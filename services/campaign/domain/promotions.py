"""Promotions: discounts that need no code, and what a sound one looks like."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final

from services.runtime.errors import Invalid
from services.runtime.ids import PromotionId

ZERO: Final = Decimal(0)


class PromotionKind(StrEnum):
    """What a promotion discounts; MEMBER_PRICE and LINE come before ORDER."""

    MEMBER_PRICE = "member_price"
    LINE_PERCENT = "line_percent"
    LINE_AMOUNT = "line_amount"
    ORDER_PERCENT = "order_percent"
    ORDER_AMOUNT = "order_amount"


ORDER_KINDS: Final = frozenset({PromotionKind.ORDER_PERCENT, PromotionKind.ORDER_AMOUNT})
PERCENT_KINDS: Final = frozenset({PromotionKind.LINE_PERCENT, PromotionKind.ORDER_PERCENT})
AMOUNT_KINDS: Final = frozenset({PromotionKind.LINE_AMOUNT, PromotionKind.ORDER_AMOUNT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One version of a promotion. `percent` is 12.5 for 12.5%; empty sets restrict nothing; `budget_minor` 0: none."""

    promotion_id: PromotionId
    display_name: str
    kind: PromotionKind
    valid_from: datetime
    valid_until: datetime | None = None
    priority: int = 0
    exclusivity_group: str = ""
    percent: Decimal = ZERO
    amount_minor: int = 0
    threshold_minor: int = 0
    skus: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    store_ids: frozenset[str] = frozenset()
    members_only: bool = False
    funder: str = ""
    budget_minor: int = 0

    def in_force(self, at: datetime) -> bool:
        """Whether it is a candidate at this business time."""
        return self.valid_from <= at and (self.valid_until is None or at < self.valid_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionUse:
    """What a promotion has given (paid orders less refunds) and what placed orders hold, in minor units."""

    given_minor: int
    held_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPrice:
    """Off the shelf price of a SKU, per its price quantity, in minor units."""

    sku: str
    amount_off_minor: int


def check_promotion(promotion: Promotion) -> None:
    """Raises Invalid, naming every field that contradicts the kind or another field."""
    kind = promotion.kind
    violations = [
        *window_violations(promotion.valid_from, promotion.valid_until, prefix="promotion."),
        *_only_for(PERCENT_KINDS, kind, "promotion.percent", is_set=promotion.percent > ZERO),
        *_only_for(AMOUNT_KINDS, kind, "promotion.amount_minor", is_set=promotion.amount_minor > 0),
    ]
    if promotion.threshold_minor and kind not in ORDER_KINDS:
        violations.append(("promotion.threshold_minor", "only ORDER kinds have a threshold"))
    if kind is PromotionKind.MEMBER_PRICE and (promotion.skus or promotion.categories):
        violations.append(("promotion.skus", "a MEMBER_PRICE matches the SKUs that it has prices for"))
    if violations:
        raise Invalid(violations=tuple(violations))


def check_member_prices(prices: Iterable[MemberPrice]) -> None:
    """Raises Invalid for a SKU that is listed twice: which of the two would count?"""
    seen: set[str] = set()
    for at, price in enumerate(prices):
        if price.sku in seen:
            raise Invalid(f"SKU {price.sku} is listed twice", field=f"prices[{at}].sku")
        seen.add(price.sku)


def window_violations(start: datetime, end: datetime | None, *, prefix: str) -> list[tuple[str, str]]:
    """What is wrong with a window of validity."""
    return [(f"{prefix}valid_until", "must be later than valid_from")] if end is not None and end <= start else []


def _only_for(
    kinds: frozenset[PromotionKind], kind: PromotionKind, field: str, *, is_set: bool
) -> list[tuple[str, str]]:
    if kind in kinds and not is_set:
        return [(field, f"{kind.name} needs it above zero")]
    if kind not in kinds and is_set:
        return [(field, f"{kind.name} has none")]
    return []
