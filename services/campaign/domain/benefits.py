"""Holds of coupons and budgets: what is asked, and whether a budget can bear it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.campaign.domain.refusals import BudgetSpent
from services.runtime.errors import Invalid
from services.runtime.holds import HoldState
from services.runtime.ids import CouponId, HoldId, PromotionId

DEFAULT_TIME_TO_LIVE: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponUse:
    """A coupon that an order uses, and what it takes off, in minor units."""

    coupon_id: CouponId
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """What an order takes of a promotion's budget, in minor units."""

    promotion_id: PromotionId
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldKey:
    """A hold's name, bound to the client that chose it."""

    client_id: str
    hold_id: HoldId


@dataclass(frozen=True, slots=True, kw_only=True)
class BenefitsHold:
    """A hold. `expires_at` is machine time; `is_paid` and `is_refunded`: what commerce told of its order."""

    key: HoldKey
    state: HoldState
    order_id: str
    expires_at: datetime
    is_paid: bool = False
    is_refunded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToHold:
    """What is asked for. `member_id` empty: not a member; `at` is business time, `issued_at` machine time."""

    key: HoldKey
    member_id: str
    order_id: str
    coupons: tuple[CouponUse, ...]
    budgets: tuple[BudgetUse, ...]
    time_to_live: timedelta
    issued_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A promotion's budget: what it may give in all (0: anything), and what is taken of it."""

    promotion_id: PromotionId
    budget_minor: int
    taken_minor: int


def check_uses(hold: ToHold) -> None:
    """Raises Invalid for a coupon or promotion that is listed twice."""
    coupons: list[str] = [use.coupon_id for use in hold.coupons]
    budgets: list[str] = [use.promotion_id for use in hold.budgets]
    for field, names in (("coupons", coupons), ("budgets", budgets)):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise Invalid(f"listed twice: {', '.join(sorted(twice))}", field=field)


def check_budget(budget: Budget, amount_minor: int) -> None:
    """Raises BudgetSpent unless the budget can bear the whole amount."""
    left = budget.budget_minor - budget.taken_minor
    if budget.budget_minor and amount_minor > left:
        raise BudgetSpent(budget.promotion_id, left_minor=max(left, 0))
