"""Who may use or be issued a coupon, and what its code gives away."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.campaign.domain import codes, refusals
from services.campaign.domain.benefits import Budget, check_budget
from services.campaign.domain.coupons import (
    CODE_TAKEN,
    ISSUE_LIMIT_REACHED,
    MEMBER_LIMIT_REACHED,
    TEMPLATE_ENDED,
    TEMPLATE_NOT_FOUND,
    Coupon,
    CouponState,
    Issuable,
    ToIssue,
    issue_refusals,
    use_refusal,
)
from services.runtime.ids import CouponId, MemberId, PromotionId, TemplateId, new_id

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ANN, BOB = MemberId("ann"), MemberId("bob")
COUPON = Coupon(
    coupon_id=CouponId("c"),
    template_id=TemplateId("t"),
    template_version=1,
    member_id=ANN,
    state=CouponState.ISSUED,
    valid_from=NOON - HOUR,
    valid_until=NOON + HOUR,
)
HELD = replace(COUPON, state=CouponState.HELD, held_until=NOON)


@pytest.mark.parametrize(
    ("coupon", "member", "at", "machine_now", "refusal"),
    [
        pytest.param(COUPON, ANN, NOON, NOON, None, id="its owner, in its window"),
        pytest.param(COUPON, BOB, NOON, NOON, refusals.NotYours, id="somebody else"),
        pytest.param(COUPON, "", NOON, NOON, refusals.NotYours, id="nobody"),
        pytest.param(replace(COUPON, member_id=None), "", NOON, NOON, None, id="whoever shows the code"),
        pytest.param(COUPON, ANN, NOON - HOUR, NOON, None, id="its first moment"),
        pytest.param(COUPON, ANN, NOON - HOUR * 2, NOON, refusals.CouponNotStarted, id="too early"),
        pytest.param(COUPON, ANN, NOON + HOUR, NOON, refusals.CouponExpired, id="its end is exclusive"),
        pytest.param(replace(COUPON, state=CouponState.USED), ANN, NOON, NOON, refusals.CouponUsed, id="used before"),
        pytest.param(HELD, ANN, NOON, NOON - HOUR, refusals.CouponHeld, id="held"),
        pytest.param(HELD, ANN, NOON, NOON, None, id="held by what is overdue"),
    ],
)
def test_who_may_use_it(
    coupon: Coupon, member: str, at: datetime, machine_now: datetime, refusal: type[refusals.CouponRefused] | None
) -> None:
    assert use_refusal(coupon, member_id=member, at=at, machine_now=machine_now) is refusal


ISSUABLE = Issuable(version=1, valid_from=NOON, valid_until=NOON + HOUR, issue_limit=0, member_limit=0, issued=0)


def wanted(member: MemberId | None = None, code: str = "") -> ToIssue:
    return ToIssue(template_id=TemplateId("t"), member_id=member, code=code)


@pytest.mark.parametrize(
    ("template", "items", "reasons"),
    [
        pytest.param(None, [wanted()], [TEMPLATE_NOT_FOUND], id="no template"),
        pytest.param(replace(ISSUABLE, valid_until=NOON), [wanted()], [TEMPLATE_ENDED], id="at its end"),
        pytest.param(
            replace(ISSUABLE, issue_limit=3, issued=1),
            [wanted()] * 3,
            ["", "", ISSUE_LIMIT_REACHED],
            id="the limit counts the items before",
        ),
        pytest.param(
            replace(ISSUABLE, member_limit=2),
            [wanted(ANN), wanted(BOB), wanted(BOB), wanted(BOB), wanted(), wanted(), wanted()],
            ["", "", "", MEMBER_LIMIT_REACHED, "", "", ""],
            id="ann has one already; nobody in particular has no limit",
        ),
        pytest.param(
            ISSUABLE,
            [wanted(code="taken"), wanted(code="x"), wanted(code="x"), wanted()],
            [CODE_TAKEN, "", CODE_TAKEN, ""],
            id="codes",
        ),
        pytest.param(
            replace(ISSUABLE, issue_limit=1),
            [wanted(code="taken"), wanted()],
            [CODE_TAKEN, ""],
            id="what is refused counts for nothing",
        ),
    ],
)
def test_who_may_be_issued_one(template: Issuable | None, items: list[ToIssue], reasons: list[str]) -> None:
    templates = {} if template is None else {"t": template}
    found = issue_refusals(items, templates=templates, owned={("t", "ann"): 1}, taken=frozenset({"taken"}), now=NOON)
    assert list(found) == reasons


@pytest.mark.parametrize(
    ("budget", "taken", "asked", "refused"),
    [
        pytest.param(0, 10**9, 10**9, False, id="no budget"),
        pytest.param(100, 90, 10, False, id="to the last cent"),
        pytest.param(100, 90, 11, True, id="one cent too much"),
        pytest.param(100, 120, 1, True, id="overdrawn by off-line sales"),
    ],
)
def test_what_a_budget_bears(budget: int, taken: int, asked: int, refused: bool) -> None:
    row = Budget(promotion_id=PromotionId("p"), budget_minor=budget, taken_minor=taken)
    if refused:
        with pytest.raises(refusals.BudgetSpent):
            check_budget(row, asked)
    else:
        check_budget(row, asked)


def test_codes_are_told_again_and_differ_by_tenant_coupon_and_installation() -> None:
    keys, tenant, coupon = codes.CodeKeys.derive("a" * 16), new_id(), new_id()
    code = keys.made(tenant, coupon)
    assert code == codes.CodeKeys.derive("a" * 16).made(tenant, coupon)
    others = {
        keys.made(new_id(), coupon),
        keys.made(tenant, new_id()),
        codes.CodeKeys.derive("b" * 16).made(tenant, coupon),
    }
    assert code not in others
    assert len(code) * 5 == codes.CODE_BYTES * 8
    assert keys.lookup_of(tenant, code) != keys.lookup_of(new_id(), code)


@pytest.mark.parametrize(("code", "shown"), [("SPRING-2026", "…2026"), ("abc", "…c"), ("ab", "…b"), ("a", "…")])
def test_of_a_chosen_code_at_most_half_is_shown(code: str, shown: str) -> None:
    assert codes.masked(codes.end_of(code)) == shown
