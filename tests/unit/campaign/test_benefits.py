"""The book of holds: every operation in every state, and what always balances."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.campaign.domain.benefits import (
    BenefitsHold,
    Book,
    Budget,
    BudgetUse,
    CouponUse,
    HoldKey,
    ToCapture,
    ToHold,
    ToVoid,
)
from services.campaign.domain.coupons import Coupon, CouponState
from services.runtime.errors import DomainError
from services.runtime.holds import TOMBSTONE_KEPT, HoldState
from services.runtime.ids import CouponId, HoldId, PromotionId, TemplateId

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = HoldKey(client_id="commerce", hold_id=HoldId("h"))
ONE_OF_EACH = {
    "coupons": (CouponUse(coupon_id=CouponId("c"), amount_minor=100),),
    "budgets": (BudgetUse(promotion_id=PromotionId("p"), amount_minor=10),),
}


def coupon(name: str = "c", state: CouponState = CouponState.ISSUED, held_until: datetime | None = None) -> Coupon:
    return Coupon(
        coupon_id=CouponId(name),
        template_id=TemplateId("t"),
        template_version=1,
        member_id=None,
        state=state,
        valid_from=NOON - HOUR,
        valid_until=NOON + HOUR,
        held_until=held_until,
    )


def budget(name: str = "p", *, budget_minor: int = 100, taken_minor: int = 0) -> Budget:
    return Budget(promotion_id=PromotionId(name), budget_minor=budget_minor, taken_minor=taken_minor)


def standing(state: HoldState, **given_: Any) -> BenefitsHold:
    given_ = {"expires_at": NOON + HOUR, "order_id": "o", "key": KEY} | ONE_OF_EACH | given_
    return BenefitsHold(state=state, **given_)


def book(*holds: BenefitsHold) -> Book:
    held = any(hold.state is HoldState.HELD for hold in holds)
    return Book(
        machine_now=NOON,
        holds={hold.key: hold for hold in holds},
        coupons={"c": coupon(state=CouponState.HELD, held_until=NOON + HOUR) if held else coupon()},
        budgets={"p": budget(taken_minor=10 if held else 0)},
    )


def wanted(key: HoldKey = KEY, **given_: Any) -> ToHold:
    given_ = (
        {"member_id": "", "order_id": "o", "time_to_live": HOUR, "issued_at": NOON, "at": NOON} | ONE_OF_EACH | given_
    )
    return ToHold(key=key, **given_)


STATES: dict[str, BenefitsHold | None] = {
    "absent": None,
    "held": standing(HoldState.HELD),
    "overdue": standing(HoldState.HELD, expires_at=NOON),
    "paid": standing(HoldState.HELD, is_paid=True),
    "captured": standing(HoldState.CAPTURED),
    "voided": standing(HoldState.VOIDED),
    "expired": standing(HoldState.EXPIRED),
    "tombstone": standing(HoldState.TOMBSTONE),
}
OPERATIONS = {"hold": wanted(), "capture": ToCapture(key=KEY), "void": ToVoid(key=KEY)}
ANSWERS: dict[tuple[str, str], HoldState | str] = {
    ("absent", "hold"): HoldState.HELD,
    ("absent", "capture"): "HOLD_NOT_FOUND",
    ("absent", "void"): HoldState.VOIDED,
    ("held", "hold"): "HOLD_EXISTS",
    ("held", "capture"): HoldState.CAPTURED,
    ("held", "void"): HoldState.VOIDED,
    ("overdue", "hold"): "HOLD_EXPIRED",
    ("overdue", "capture"): "HOLD_EXPIRED",
    ("overdue", "void"): "HOLD_EXPIRED",
    ("paid", "hold"): "HOLD_EXISTS",
    ("paid", "capture"): HoldState.CAPTURED,
    ("paid", "void"): "HOLD_CAPTURED",
    **{("captured", operation): "HOLD_CAPTURED" for operation in OPERATIONS},
    **{("voided", operation): "HOLD_VOIDED" for operation in OPERATIONS},
    **{("expired", operation): "HOLD_EXPIRED" for operation in OPERATIONS},
    **{("tombstone", operation): "HOLD_VOIDED" for operation in OPERATIONS},
}


@pytest.mark.parametrize(("state", "operation"), list(product(STATES, OPERATIONS)))
def test_every_operation_in_every_state(state: str, operation: str) -> None:
    known = STATES[state]
    page = book(*([known] if known else []))
    expected = ANSWERS[state, operation]
    if not isinstance(expected, HoldState):
        with pytest.raises(DomainError) as refused:
            page.apply(OPERATIONS[operation])
        assert refused.value.reason == expected
        assert (page.made, page.resolved, page.coupon_changes, page.budget_changes) == (set(), set(), {}, {})
    else:
        assert page.apply(OPERATIONS[operation]).state is expected


def test_a_hold_takes_and_a_capture_spends() -> None:
    page = book()
    page.apply(wanted())
    assert page.coupons["c"].state is CouponState.HELD
    assert page.budgets["p"].taken_minor == 10
    page.apply(ToCapture(key=KEY))
    change = page.coupon_changes["c"]
    assert (change.state, change.order_id, change.holder) == (CouponState.USED, "o", None)
    assert (page.budget_changes["p"].held_minor, page.budget_changes["p"].captured_minor) == (0, 10)
    # made and resolved on one page is written once, as it stands
    assert (page.made, page.resolved, page.holds[KEY].state) == ({KEY}, set(), HoldState.CAPTURED)


def test_a_void_that_comes_first_leaves_a_tombstone_for_a_week() -> None:
    page = book()
    page.apply(ToVoid(key=KEY))
    stone = page.holds[KEY]
    assert (stone.state, stone.expires_at) == (HoldState.TOMBSTONE, NOON + TOMBSTONE_KEPT)
    with pytest.raises(DomainError, match="tombstone"):
        page.apply(wanted())


@pytest.mark.parametrize(
    ("paid", "after", "coupon_after"),
    [(False, HoldState.EXPIRED, CouponState.ISSUED), (True, HoldState.CAPTURED, CouponState.USED)],
)
def test_time_gives_back_what_was_not_paid(paid: bool, after: HoldState, coupon_after: CouponState) -> None:
    page = book(standing(HoldState.HELD, expires_at=NOON, is_paid=paid))
    assert page.expire(KEY).state is after
    assert page.coupon_changes["c"].state is coupon_after
    assert page.budgets["p"].taken_minor == (10 if paid else 0)


def test_a_coupon_never_has_two_holders() -> None:
    page = book(standing(HoldState.HELD, expires_at=NOON))
    other = HoldKey(client_id="commerce", hold_id=HoldId("other"))
    with pytest.raises(DomainError) as refused:
        page.apply(wanted(other))
    assert refused.value.reason == "COUPON_HELD"
    page.expire(KEY)
    assert page.apply(wanted(other)).state is HoldState.HELD


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hold", "capture", "void"]),
            st.integers(0, 5),
            st.sets(st.sampled_from("xyz"), max_size=2),
            st.sets(st.sampled_from("pq"), max_size=2),
            st.integers(0, 60),
        ),
        max_size=25,
    )
)
def test_counters_are_always_the_sums_of_claims(steps: list[tuple[str, int, set[str], set[str], int]]) -> None:
    page = Book(
        machine_now=NOON,
        holds={},
        coupons={name: coupon(name) for name in "xyz"},
        budgets={name: budget(name) for name in "pq"},
    )
    for what, number, coupons, budgets, amount in steps:
        key = HoldKey(client_id="commerce", hold_id=HoldId(f"h{number}"))
        uses = {
            "coupons": tuple(CouponUse(coupon_id=CouponId(name), amount_minor=amount) for name in sorted(coupons)),
            "budgets": tuple(
                BudgetUse(promotion_id=PromotionId(name), amount_minor=amount) for name in sorted(budgets)
            ),
        }
        operation = {"hold": wanted(key, **uses), "capture": ToCapture(key=key), "void": ToVoid(key=key)}[what]
        before = dict(page.coupons), dict(page.budgets)
        try:
            page.apply(operation)
        except DomainError:
            assert (page.coupons, page.budgets) == before
    for state, counted in ((HoldState.HELD, "held_minor"), (HoldState.CAPTURED, "captured_minor")):
        for name in "pq":
            claims = sum(
                use.amount_minor
                for hold in page.holds.values()
                if hold.state is state
                for use in hold.budgets
                if use.promotion_id == name
            )
            assert claims == (getattr(page.budget_changes[name], counted) if name in page.budget_changes else 0)
    for name in "pq":
        assert page.budgets[name].taken_minor <= page.budgets[name].budget_minor
    for name in "xyz":
        claimed = [
            hold.state
            for hold in page.holds.values()
            if any(use.coupon_id == name for use in hold.coupons) and hold.state in {HoldState.HELD, HoldState.CAPTURED}
        ]
        expected = {HoldState.HELD: CouponState.HELD, HoldState.CAPTURED: CouponState.USED}
        assert len(claimed) <= 1
        assert page.coupons[name].state is (expected[claimed[0]] if claimed else CouponState.ISSUED)
