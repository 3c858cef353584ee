"""Holds of coupons and budgets: all or none, resolved once, and exactly one for the last of anything."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.runtime.database import Connection, raw
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2
from siyu.common.v1 import hold_pb2
from tests.store.campaign.conftest import NOW, Brand, line, paid, refunded, share, stamp

HELD = hold_pb2.HOLD_STATE_HELD
CAPTURED = hold_pb2.HOLD_STATE_CAPTURED
VOIDED = hold_pb2.HOLD_STATE_VOIDED
ISSUED, USED = coupon_pb2.COUPON_STATE_ISSUED, coupon_pb2.COUPON_STATE_USED
COUPON_HELD = coupon_pb2.COUPON_STATE_HELD


async def reason_of(awaited: Any) -> str:
    """The reason of the refusal; "" for none."""
    try:
        await awaited
    except DomainError as refusal:
        return refusal.reason
    return ""


async def states(brand: Brand, member_id: str) -> list[int]:
    return [coupon.state for coupon in (await brand.coupons_of(member_id)).coupons]


async def test_hold_capture_and_what_is_left(brand: Brand) -> None:
    member = new_id()
    await brand.template("t")
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=1000)
    coupon = await brand.coupon("t", member_id=member)
    hold = await brand.hold(
        hold_id="h", member_id=member, order_id="o", coupons=[(coupon.coupon_id, 100)], budgets=[("p", 30)]
    )
    assert (hold.hold_id, hold.state) == ("h", HELD)
    assert hold.expires_at == stamp(NOW + timedelta(seconds=900))
    assert await states(brand, member) == [COUPON_HELD]
    assert (await brand.read_promotion("p")).held_minor == 30
    assert (await brand.capture("h")).state == CAPTURED
    assert await states(brand, member) == [USED]
    assert (await brand.read_promotion("p")).held_minor == 0
    counts = await brand.read_template("t")
    assert (counts.issued, counts.held, counts.used) == (1, 0, 1)
    assert await brand.red() == {}


async def test_a_void_gives_everything_back(brand: Brand) -> None:
    member = new_id()
    await brand.template("t")
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=30)
    coupon = await brand.coupon("t", member_id=member)
    uses = {"coupons": [(coupon.coupon_id, 100)], "budgets": [("p", 30)], "member_id": member}
    await brand.hold(hold_id="h", **uses)
    assert (await brand.void("h")).state == VOIDED
    assert await states(brand, member) == [ISSUED]
    assert await reason_of(brand.hold(hold_id="h2", **uses)) == ""
    assert await brand.red() == {}


@pytest.mark.parametrize(
    ("first", "then", "reason"),
    [
        pytest.param("capture", "capture", "HOLD_CAPTURED", id="captured twice"),
        pytest.param("capture", "void", "HOLD_CAPTURED", id="voided after its capture"),
        pytest.param("void", "capture", "HOLD_VOIDED", id="captured after its void"),
        pytest.param("void", "void", "HOLD_VOIDED", id="voided twice"),
        pytest.param("expire", "capture", "HOLD_EXPIRED", id="captured too late"),
        pytest.param("expire", "void", "HOLD_EXPIRED", id="voided too late"),
    ],
)
@pytest.mark.parametrize("swept", [True, False])
async def test_a_hold_is_resolved_once(brand: Brand, first: str, then: str, reason: str, swept: bool) -> None:
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=1000)
    await brand.hold(hold_id="h", budgets=[("p", 10)])
    if first == "expire":
        brand.campaign.clock.advance(timedelta(seconds=900))
        if swept:
            await brand.sweep()
    else:
        await getattr(brand, first)("h")
    assert await reason_of(getattr(brand, then)("h")) == reason
    assert await reason_of(brand.hold(hold_id="h", budgets=[("p", 10)])) != ""


async def test_a_void_before_its_hold_refuses_the_late_hold(brand: Brand) -> None:
    assert (await brand.void("h")).state == VOIDED
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=1000)
    assert await reason_of(brand.hold(hold_id="h", budgets=[("p", 10)])) == "HOLD_VOIDED"
    assert await reason_of(brand.capture("h")) == "HOLD_VOIDED"
    assert await reason_of(brand.capture("never")) == "HOLD_NOT_FOUND"


@pytest.mark.parametrize(
    ("budget_minor", "counters", "reason"),
    [
        pytest.param(1000, "uncovered_minor = 9e18, captured_minor = 9e18", "BUDGET_SPENT", id="a budget long spent"),
        pytest.param(0, "captured_minor = 9e18", "BUDGET_SPENT", id="no budget, and a counter at its end"),
        pytest.param(0, "uncovered_minor = 9e18, captured_minor = 8e18", "", id="no budget, and room to count"),
        pytest.param(1000, "captured_minor = 8e18, refunded_minor = 9e18", "", id="all of it refunded"),
    ],
)
async def test_counters_at_their_end_refuse_and_do_not_break(
    brand: Brand, budget_minor: int, counters: str, reason: str
) -> None:
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=budget_minor)
    await brand.execute(f"UPDATE promotions SET {counters} WHERE tenant_id = $1::uuid", brand.tenant_id)
    assert await reason_of(brand.hold(hold_id="h", budgets=[("p", 10)])) == reason
    spent = budget_minor > 0 and bool(reason)
    assert (await brand.quote(line("s", 1000))).net_minor == (1000 if spent else 950)
    if not reason:
        await brand.capture("h")


async def test_a_hold_issued_before_tombstones_are_dropped_is_refused_by_its_age(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=1000)
    old = stamp(NOW - timedelta(days=7))
    assert await reason_of(brand.hold(budgets=[("p", 10)], issued_at=old)) == "HOLD_TOO_OLD"
    ahead = stamp(NOW + timedelta(days=1, seconds=1))
    assert await reason_of(brand.hold(budgets=[("p", 10)], issued_at=ahead)) == "INVALID_FIELD"


async def test_a_hold_is_bound_to_its_client(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_PERCENT", percent="5", budget_minor=1000)
    await brand.hold(hold_id="h", budgets=[("p", 10)])
    request = coupon_pb2.CaptureBenefitsRequest(request_id=new_id(), hold_id="h")
    call = brand.call(client_id="somebody-else")
    assert await reason_of(brand.campaign.coupons.capture_benefits(request, call)) == "HOLD_NOT_FOUND"


@pytest.mark.parametrize(
    ("given", "at", "reason"),
    [
        pytest.param({"member_id": "other"}, NOW, "NOT_YOURS", id="of another member"),
        pytest.param({}, NOW + timedelta(days=30), "COUPON_EXPIRED", id="at the end of its window"),
        pytest.param({}, NOW + timedelta(days=30, microseconds=-1), "", id="just before it"),
        pytest.param({}, NOW - timedelta(days=2), "NOT_STARTED", id="too early"),
        pytest.param(
            {"occurred_at": stamp(NOW)}, NOW + timedelta(days=40), "", id="an off-line sale is judged by its time"
        ),
    ],
)
async def test_what_a_coupon_can_be_held_for(brand: Brand, given: dict[str, Any], at: Any, reason: str) -> None:
    member = new_id()
    await brand.template("t")
    coupon = await brand.coupon("t", member_id=member)
    given = {"member_id": member} | given
    if given["member_id"] == "other":
        given["member_id"] = new_id()
    assert await reason_of(brand.hold(coupons=[(coupon.coupon_id, 100)], at=at, **given)) == reason


async def test_all_or_none(brand: Brand) -> None:
    await brand.template("t")
    await brand.promotion("rich", "ORDER_AMOUNT", amount_minor=10, budget_minor=1000)
    await brand.promotion("poor", "ORDER_AMOUNT", amount_minor=10, budget_minor=9)
    coupon = await brand.coupon("t")
    both = {"coupons": [(coupon.coupon_id, 100)], "budgets": [("rich", 10), ("poor", 10)]}
    assert await reason_of(brand.hold(**both)) == "BUDGET_SPENT"
    assert (await brand.read_promotion("rich")).held_minor == 0
    assert (await brand.read_template("t")).held == 0
    assert await reason_of(brand.hold(coupons=[(coupon.coupon_id, 100), (new_id(), 1)])) == "COUPON_NOT_FOUND"
    assert await reason_of(brand.hold(coupons=[(coupon.coupon_id, 1)] * 2)) == "INVALID_FIELD"
    assert await reason_of(brand.hold(budgets=[("nobody-knows", 1)])) == "PROMOTION_NOT_FOUND"
    assert (await brand.read_template("t")).held == 0


async def test_a_hundred_checkouts_on_the_last_coupon_give_exactly_one(brand: Brand) -> None:
    await brand.template("t")
    coupon = await brand.coupon("t")
    answers = await asyncio.gather(*(reason_of(brand.hold(coupons=[(coupon.coupon_id, 100)])) for _ in range(100)))
    assert sorted(answers) == [""] + ["COUPON_HELD"] * 99
    assert await brand.red() == {}


async def test_a_hundred_checkouts_on_a_budget_for_seven_give_exactly_seven(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=75)
    answers = await asyncio.gather(*(reason_of(brand.hold(budgets=[("p", 10)])) for _ in range(100)))
    assert sorted(answers) == [""] * 7 + ["BUDGET_SPENT"] * 93
    assert (await brand.read_promotion("p")).held_minor == 70


async def test_holds_of_the_same_coupons_in_any_order_do_not_deadlock(brand: Brand) -> None:
    await brand.template("t")
    await brand.promotion("a", "ORDER_AMOUNT", amount_minor=10, budget_minor=10**9)
    await brand.promotion("b", "ORDER_AMOUNT", amount_minor=10, budget_minor=10**9)
    coupons = [((await brand.coupon("t")).coupon_id, 1) for _ in range(5)]
    budgets = [("a", 1), ("b", 1)]

    async def checkout(turn: int) -> str:
        step = 1 if turn % 2 else -1
        hold_id = new_id()
        answer = await reason_of(brand.hold(hold_id=hold_id, coupons=coupons[::step], budgets=budgets[::step]))
        return answer or await reason_of(brand.void(hold_id))

    answers = await asyncio.gather(*(checkout(turn) for turn in range(40)))
    assert set(answers) <= {"", "COUPON_HELD"}
    assert await brand.red() == {}


async def test_one_hold_id_for_two_orders_at_once_gives_one_hold(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=1000)
    answers = await asyncio.gather(*(reason_of(brand.hold(hold_id="h", budgets=[("p", 10)])) for _ in range(10)))
    assert sorted(answers) == [""] + ["HOLD_EXISTS"] * 9
    assert (await brand.read_promotion("p")).held_minor == 10


async def test_a_repeated_request_answers_the_same_for_ever(brand: Brand) -> None:
    await brand.template("t")
    coupon = await brand.coupon("t")
    uses = {"hold_id": "h", "coupons": [(coupon.coupon_id, 100)], "request_id": "r1"}
    first = await brand.hold(**uses)
    assert await brand.hold(**uses) == first
    captured = await brand.capture("h", request_id="r2")
    assert await brand.hold(**uses) == first
    assert await brand.capture("h", request_id="r2") == captured
    assert await reason_of(brand.hold(**uses | {"coupons": [(coupon.coupon_id, 99)]})) == "REQUEST_ID_REUSED"


async def test_a_refusal_is_kept_so_that_a_late_duplicate_cannot_succeed(brand: Brand) -> None:
    await brand.template("t")
    coupon = await brand.coupon("t")
    await brand.hold(hold_id="h", coupons=[(coupon.coupon_id, 100)])
    late = {"hold_id": "h2", "coupons": [(coupon.coupon_id, 100)], "request_id": "r"}
    assert await reason_of(brand.hold(**late)) == "COUPON_HELD"
    await brand.void("h")
    assert await reason_of(brand.hold(**late)) == "COUPON_HELD"
    assert await reason_of(brand.hold(**late | {"request_id": "r3"})) == ""


async def test_what_an_overdue_hold_holds_is_free_before_the_sweeper_comes(brand: Brand) -> None:
    await brand.template("t")
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=10)
    coupon = await brand.coupon("t")
    uses = {"coupons": [(coupon.coupon_id, 100)], "budgets": [("p", 10)]}
    await brand.hold(**uses)
    assert await reason_of(brand.hold(**uses)) == "COUPON_HELD"
    brand.campaign.clock.advance(timedelta(seconds=900))
    quoted = await brand.quote(line("s", 500), codes=[coupon.code])
    assert quoted.net_minor == 400
    assert await reason_of(brand.hold(**uses)) == ""
    assert (await brand.read_promotion("p")).held_minor == 10


async def test_a_broken_hold_keeps_no_other_brand_waiting(brand: Brand) -> None:
    """It is a bug or a damaged row, told with its stack; the sweeper, and whatever shares its process, goes on."""
    others = [replace(brand, tenant_id=new_id()) for _ in range(4)]
    for each in (brand, *others):
        await each.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=100)
        await each.hold(budgets=[("p", 10)], ttl_s=60)

    async def claim_is(amount_minor: int) -> None:
        async def work(connection: Connection) -> None:
            await raw(connection).execute(
                "UPDATE budget_claims SET amount_minor = $2 WHERE tenant_id = $1::uuid", brand.tenant_id, amount_minor
            )

        await brand.campaign.app.run(brand.tenant_id, work)

    async def held() -> list[int]:
        return [(await each.read_promotion("p")).held_minor for each in (brand, *others)]

    # more than the budget says that is held
    await claim_is(11)
    await brand.sweep(after=timedelta(seconds=60))
    assert await held() == [10, 0, 0, 0, 0]
    await claim_is(10)
    await brand.sweep()
    assert await held() == [0, 0, 0, 0, 0]


async def test_the_sweeper_gives_back_by_machine_time(brand: Brand) -> None:
    member = new_id()
    await brand.template("t")
    coupon = await brand.coupon("t", member_id=member)
    await brand.hold(coupons=[(coupon.coupon_id, 100)], member_id=member, ttl_s=60)
    await brand.sweep(after=timedelta(seconds=59))
    assert (await brand.read_template("t")).held == 1
    await brand.sweep(after=timedelta(seconds=1))
    assert (await brand.read_template("t")).held == 0
    assert await states(brand, member) == [ISSUED]


async def test_the_hold_of_a_paid_order_is_captured_by_time_and_never_given_back(brand: Brand) -> None:
    await brand.template("t")
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=10)
    coupon = await brand.coupon("t")
    await brand.hold(hold_id="h", order_id="o", coupons=[(coupon.coupon_id, 100)], budgets=[("p", 10)])
    await brand.take(
        paid("o", share("COUPON", "t", 100, coupon_id=coupon.coupon_id), share("ORDER_PROMOTION", "p", 10))
    )
    assert await reason_of(brand.void("h")) == "HOLD_CAPTURED"
    await brand.sweep(after=timedelta(hours=1))
    assert (await brand.read_template("t")).used == 1
    assert await reason_of(brand.capture("h")) == "HOLD_CAPTURED"
    assert await reason_of(brand.hold(budgets=[("p", 1)])) == "BUDGET_SPENT"
    assert await brand.red() == {}


async def test_a_capture_after_the_refund_returns_the_coupon_at_once(brand: Brand) -> None:
    await brand.template("t", returnable=True)
    coupon = await brand.coupon("t")
    used = share("COUPON", "t", 100, coupon_id=coupon.coupon_id)
    await brand.hold(hold_id="h", order_id="o", coupons=[(coupon.coupon_id, 100)])
    await brand.take(paid("o", used), refunded("o", used, whole=True))
    assert (await brand.read_template("t")).held == 1
    await brand.capture("h")
    counts = await brand.read_template("t")
    assert (counts.held, counts.used) == (0, 0)
    assert await brand.sent() == [
        ("campaign.CouponUsed", coupon.coupon_id),
        ("campaign.CouponReturned", coupon.coupon_id),
    ]
    assert await brand.red() == {}


async def test_one_request_many_times_at_once_has_one_effect(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=1000)
    same = {"hold_id": "h", "budgets": [("p", 10)], "request_id": "r"}
    other = same | {"budgets": [("p", 11)]}
    first = await brand.hold(**same)
    answers = await asyncio.gather(
        *(brand.hold(**same) for _ in range(20)), *(reason_of(brand.hold(**other)) for _ in range(5))
    )
    assert answers == [first] * 20 + ["REQUEST_ID_REUSED"] * 5
    assert (await brand.read_promotion("p")).held_minor == 10


async def test_first_calls_of_one_request_at_once_have_one_effect(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=1000)
    for turn in range(10):
        same = {"hold_id": f"h{turn}", "budgets": [("p", 10)], "request_id": f"r{turn}"}
        answers = await asyncio.gather(*(brand.hold(**same) for _ in range(20)))
        assert all(answer == answers[0] for answer in answers)
        assert (await brand.read_promotion("p")).held_minor == 10 * (turn + 1)
    assert await brand.red() == {}


async def test_a_refusal_in_a_batch_fails_none_of_its_neighbours(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=10_000)
    answers = await asyncio.gather(
        *(reason_of(brand.hold(budgets=[("p" if turn % 3 else "nobody-knows", 10)])) for turn in range(60))
    )
    assert answers == ["" if turn % 3 else "PROMOTION_NOT_FOUND" for turn in range(60)]
    assert (await brand.read_promotion("p")).held_minor == 400
    assert await brand.red() == {}
