"""Holds of coupons and budgets: what is asked of them, and what becomes of everything that they touch.

A Book is a page of the books: the holds, coupons and budgets that a batch of operations touches, all of them locked.
The operations are applied one after the other, each seeing what the ones before it did; then the page is written back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from services.campaign.domain.coupons import Coupon, CouponState, use_refusal
from services.campaign.domain.refusals import BudgetSpent, CouponMissing, PromotionMissing
from services.runtime.errors import Invalid
from services.runtime.holds import (
    TOMBSTONE_KEPT,
    HoldCaptured,
    HoldEvent,
    HoldState,
    check_age,
    resolve,
    state_at,
)
from services.runtime.ids import CouponId, HoldId, PromotionId

DEFAULT_TIME_TO_LIVE: Final = timedelta(minutes=15)
MAX_CLAIMED_MINOR: Final = 9 * 10**18
"""Where a promotion's counters end, whatever its budget: nobody can be given so much, and a counter holds no more."""


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
    """A hold with its claims. `expires_at` is machine time; `is_paid`, `is_refunded`: as commerce told."""

    key: HoldKey
    state: HoldState
    order_id: str
    expires_at: datetime
    member_id: str = ""
    coupons: tuple[CouponUse, ...] = ()
    budgets: tuple[BudgetUse, ...] = ()
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
class ToCapture:
    """A hold to spend."""

    key: HoldKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ToVoid:
    """A hold to give back."""

    key: HoldKey


Operation = ToHold | ToCapture | ToVoid


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A promotion's budget: what it may give in all (0: anything), and what is taken of it.

    `claimed_minor` is what was ever held and not given back before its capture: it falls by no refund.
    """

    promotion_id: PromotionId
    budget_minor: int
    taken_minor: int
    claimed_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponChange:
    """A coupon as it stands after an operation: HELD by `holder` until a time, USED by `order_id`, or free."""

    state: CouponState
    holder: HoldKey | None = None
    held_until: datetime | None = None
    order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChange:
    """What is added to a budget's counters, in minor units."""

    held_minor: int = 0
    captured_minor: int = 0


@dataclass(slots=True, kw_only=True)
class Book:
    """Locked rows, and what operations did to them. `machine_now` decides what is overdue.

    `survivors` leads merged members to whom they became; what does not exist is not in the maps.
    """

    machine_now: datetime
    holds: dict[HoldKey, BenefitsHold]
    coupons: dict[str, Coupon]
    budgets: dict[str, Budget]
    survivors: Mapping[str, str] = field(default_factory=dict)
    made: set[HoldKey] = field(default_factory=set)
    resolved: set[HoldKey] = field(default_factory=set)
    coupon_changes: dict[str, CouponChange] = field(default_factory=dict)
    budget_changes: dict[str, BudgetChange] = field(default_factory=dict)

    def apply(self, operation: Operation) -> BenefitsHold:
        """The hold after the operation; a refusal changes nothing."""
        match operation:
            case ToHold():
                return self.hold(operation)
            case ToCapture():
                return self.capture(operation.key)
            case ToVoid():
                return self.void(operation.key)

    def hold(self, wanted: ToHold) -> BenefitsHold:
        """Holds all that is wanted, or nothing.

        Raises HoldTooOld; HoldVoided, HoldCaptured, HoldExpired or AlreadyExists (HOLD_EXISTS) for a name that was
        used; CouponMissing, CouponHeld, CouponUsed, CouponExpired, CouponNotStarted, NotYours; PromotionMissing,
        BudgetSpent.
        """
        key = wanted.key
        check_age(wanted.issued_at, now=self.machine_now, hold_id=key.hold_id)
        state = resolve(self._state(key), HoldEvent.HOLD, hold_id=key.hold_id)
        self._check_coupons(wanted)
        self._check_budgets(wanted)
        hold = BenefitsHold(
            key=key,
            state=state,
            order_id=wanted.order_id,
            expires_at=self.machine_now + wanted.time_to_live,
            member_id=wanted.member_id,
            coupons=wanted.coupons,
            budgets=wanted.budgets,
        )
        self.holds[key] = hold
        self.made.add(key)
        self._change_coupons(hold, CouponChange(state=CouponState.HELD, holder=key, held_until=hold.expires_at))
        for use in hold.budgets:
            self._change_budget(use.promotion_id, held_minor=use.amount_minor)
        return hold

    def capture(self, key: HoldKey) -> BenefitsHold:
        """Spends the hold. Raises Missing (HOLD_NOT_FOUND), HoldCaptured, HoldVoided, HoldExpired."""
        resolve(self._state(key), HoldEvent.CAPTURE, hold_id=key.hold_id)
        return self._capture(self.holds[key])

    def void(self, key: HoldKey) -> BenefitsHold:
        """Gives the hold back; of one that has not come yet a tombstone is left, which its caller sees as voided.

        Raises HoldCaptured (also when the order is known to be paid), HoldVoided, HoldExpired.
        """
        after = resolve(self._state(key), HoldEvent.VOID, hold_id=key.hold_id)
        if after is HoldState.TOMBSTONE:
            until = self.machine_now + TOMBSTONE_KEPT
            stone = BenefitsHold(key=key, state=after, order_id="", expires_at=until)
            self.holds[key] = stone
            self.made.add(key)
            return replace(stone, state=HoldState.VOIDED)
        hold = self.holds[key]
        if hold.is_paid:
            raise HoldCaptured(
                f"the order of hold {key.hold_id!r} is paid; refund it instead", subject=f"hold/{key.hold_id}"
            )
        return self._give_back(hold, after)

    def expire(self, key: HoldKey) -> BenefitsHold:
        """Resolves a hold whose time is over.

        The hold of an order that is known to be paid is captured: payment is the pivot, and what a customer paid for
        with a coupon can't be given to another one because a capture came late.
        """
        hold = self.holds[key]
        assert self._state(key) is HoldState.EXPIRED, f"hold {key.hold_id!r} is not due"
        return self._capture(hold) if hold.is_paid else self._give_back(hold, HoldState.EXPIRED)

    def _state(self, key: HoldKey) -> HoldState:
        hold = self.holds.get(key)
        if hold is None:
            return HoldState.ABSENT
        return state_at(hold.state, expires_at=hold.expires_at, now=self.machine_now)

    def _check_coupons(self, wanted: ToHold) -> None:
        member_id = self.survivors.get(wanted.member_id, wanted.member_id)
        for coupon_id in sorted(use.coupon_id for use in wanted.coupons):
            coupon = self.coupons.get(coupon_id)
            if coupon is None:
                raise CouponMissing(coupon_id)
            # one that an overdue hold still holds here is being resolved elsewhere: it must not have two holders
            standing = replace(coupon, held_until=None)
            refusal = use_refusal(standing, member_id=member_id, at=wanted.at, machine_now=self.machine_now)
            if refusal is not None:
                raise refusal(coupon_id)

    def _check_budgets(self, wanted: ToHold) -> None:
        for use in sorted(wanted.budgets, key=lambda each: each.promotion_id):
            budget = self.budgets.get(use.promotion_id)
            if budget is None:
                raise PromotionMissing(use.promotion_id)
            check_budget(budget, use.amount_minor)

    def _capture(self, hold: BenefitsHold) -> BenefitsHold:
        self._change_coupons(hold, CouponChange(state=CouponState.USED, order_id=hold.order_id))
        for use in hold.budgets:
            self._change_budget(use.promotion_id, held_minor=-use.amount_minor, captured_minor=use.amount_minor)
        return self._resolve(hold, HoldState.CAPTURED)

    def _give_back(self, hold: BenefitsHold, after: HoldState) -> BenefitsHold:
        self._change_coupons(hold, CouponChange(state=CouponState.ISSUED))
        for use in hold.budgets:
            self._change_budget(use.promotion_id, held_minor=-use.amount_minor)
        return self._resolve(hold, after)

    def _resolve(self, hold: BenefitsHold, after: HoldState) -> BenefitsHold:
        resolved = replace(hold, state=after)
        self.holds[hold.key] = resolved
        if hold.key not in self.made:
            self.resolved.add(hold.key)
        return resolved

    def _change_coupons(self, hold: BenefitsHold, change: CouponChange) -> None:
        for use in hold.coupons:
            self.coupon_changes[use.coupon_id] = change
            coupon = self.coupons[use.coupon_id]
            self.coupons[use.coupon_id] = replace(coupon, state=change.state, held_until=change.held_until)

    def _change_budget(self, promotion_id: PromotionId, *, held_minor: int = 0, captured_minor: int = 0) -> None:
        change = self.budget_changes.get(promotion_id, BudgetChange())
        self.budget_changes[promotion_id] = BudgetChange(
            held_minor=change.held_minor + held_minor, captured_minor=change.captured_minor + captured_minor
        )
        budget = self.budgets[promotion_id]
        added_minor = held_minor + captured_minor
        self.budgets[promotion_id] = replace(
            budget, taken_minor=budget.taken_minor + added_minor, claimed_minor=budget.claimed_minor + added_minor
        )


def check_uses(hold: ToHold) -> None:
    """Raises Invalid for a coupon or promotion that is listed twice."""
    coupons: list[str] = [use.coupon_id for use in hold.coupons]
    budgets: list[str] = [use.promotion_id for use in hold.budgets]
    for name, listed in (("coupons", coupons), ("budgets", budgets)):
        twice = {each for each in listed if listed.count(each) > 1}
        if twice:
            raise Invalid(f"listed twice: {', '.join(sorted(twice))}", field=name)


def check_budget(budget: Budget, amount_minor: int) -> None:
    """Raises BudgetSpent unless the budget can bear the whole amount."""
    left = budget.budget_minor - budget.taken_minor
    if budget.budget_minor and amount_minor > left:
        raise BudgetSpent(budget.promotion_id, left_minor=max(left, 0))
    if budget.claimed_minor + amount_minor > MAX_CLAIMED_MINOR:
        raise BudgetSpent(budget.promotion_id, left_minor=max(MAX_CLAIMED_MINOR - budget.claimed_minor, 0))


def touched(operations: Iterable[Operation], holds: Iterable[BenefitsHold]) -> tuple[set[str], set[str]]:
    """The coupons and promotions that these operations and holds name: what has to be locked."""
    named: list[ToHold | BenefitsHold] = [each for each in operations if isinstance(each, ToHold)]
    named += holds
    coupons = {str(use.coupon_id) for each in named for use in each.coupons}
    promotions = {str(use.promotion_id) for each in named for use in each.budgets}
    return coupons, promotions
