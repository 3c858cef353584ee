"""What commerce's events record: facts that budgets, coupons and reports follow."""

from datetime import timedelta

import pytest

from services.runtime.ids import new_id
from services.runtime.tenants import load
from siyu.campaign.v1 import coupon_pb2, promotion_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2
from tests.store.campaign.conftest import NOW, Brand, line, paid, refunded, share, stamp
from tests.store.campaign.test_holds import reason_of


async def test_a_held_order_is_counted_once_whichever_comes_first(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=100)
    given = share("ORDER_PROMOTION", "p", 10)
    for turn, event_first in enumerate((True, False)):
        hold_id, order_id = f"h{turn}", f"o{turn}"
        await brand.hold(hold_id=hold_id, order_id=order_id, budgets=[("p", 10)])
        if event_first:
            await brand.take(paid(order_id, given))
            await brand.capture(hold_id)
        else:
            await brand.capture(hold_id)
            await brand.take(paid(order_id, given))
    read = await brand.read_promotion("p")
    assert (read.given_minor, read.held_minor) == (20, 0)
    # 80 is left: not 60, as if each had counted twice
    assert await reason_of(brand.hold(budgets=[("p", 81)])) == "BUDGET_SPENT"
    assert await reason_of(brand.hold(budgets=[("p", 80)])) == ""
    assert await brand.red() == {}


async def test_an_offline_sale_takes_from_the_budget_even_beyond_it(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=15)
    given = share("ORDER_PROMOTION", "p", 10)
    await brand.take(paid("a", given, offline=True), paid("b", given, offline=True))
    assert (await brand.read_promotion("p")).given_minor == 20
    quoted = await brand.quote(line("s", 500))
    assert [(each.source_id, each.rejection_reason) for each in quoted.candidates] == [("p", "BUDGET_SPENT")]
    assert await brand.red() == {}


async def test_refunds_lower_what_was_given_and_free_the_budget(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=10)
    await brand.take(paid("o", share("ORDER_PROMOTION", "p", 6), share("ORDER_PROMOTION", "p", 4)))
    assert await reason_of(brand.hold(budgets=[("p", 1)])) == "BUDGET_SPENT"
    await brand.take(refunded("o", share("ORDER_PROMOTION", "p", 4)))
    assert (await brand.read_promotion("p")).given_minor == 6
    assert await reason_of(brand.hold(budgets=[("p", 5)])) == "BUDGET_SPENT"
    assert await reason_of(brand.hold(budgets=[("p", 4)])) == ""
    await brand.take(refunded("o", share("ORDER_PROMOTION", "p", 6), whole=True))
    assert (await brand.read_promotion("p")).given_minor == 0
    assert await brand.red() == {}


async def test_an_order_or_refund_that_is_told_twice_counts_once(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10)
    given = share("ORDER_PROMOTION", "p", 10)
    back = refunded("o", share("ORDER_PROMOTION", "p", 3), refund_id=new_id())
    await brand.take(paid("o", given), back)
    await brand.take(paid("o", given), back)
    assert (await brand.read_promotion("p")).given_minor == 7
    assert await brand.red() == {}


async def test_a_coupon_used_offline_is_used_and_a_second_use_is_an_excess(brand: Brand) -> None:
    await brand.template("t")
    coupon = await brand.coupon("t")
    used = share("COUPON", "t", 100, coupon_id=coupon.coupon_id)
    await brand.take(paid("a", used, offline=True), paid("b", used, offline=True))
    await brand.take(paid("c", used, offline=True), paid("d", share("COUPON", "t", 5, coupon_id="scrawled")))
    assert (await brand.read_template("t")).used == 1
    assert await reason_of(brand.hold(coupons=[(coupon.coupon_id, 100)])) == "COUPON_USED"
    figures = (await brand.audited()).figures
    assert (figures["campaign.coupons_used"], figures["campaign.coupons_used_in_excess"]) == (4, 3)
    assert await brand.sent() == [("campaign.CouponUsed", coupon.coupon_id)] * 3
    assert await brand.red() == {}


async def test_a_coupon_under_an_overdue_hold_is_free_off_line_too(brand: Brand) -> None:
    """Swept or not: the use is no excess, and the coupon can't be used again when the sweeper comes."""
    await brand.template("t")
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=100)
    coupon, paid_for = await brand.coupon("t"), await brand.coupon("t")
    await brand.hold(hold_id="left", order_id="left", coupons=[(coupon.coupon_id, 100)], budgets=[("p", 60)])
    await brand.hold(hold_id="slow", order_id="slow", coupons=[(paid_for.coupon_id, 100)])
    brand.campaign.clock.advance(timedelta(hours=1))

    def used(each: coupon_pb2.Coupon) -> promotion_pb2.LineDiscount:
        return share("COUPON", "t", 100, coupon_id=each.coupon_id)

    # an order that is paid keeps what its hold held, however late the capture
    await brand.take(
        paid("till", used(coupon), offline=True), paid("slow", used(paid_for)), paid("b", used(paid_for), offline=True)
    )
    figures = (await brand.audited()).figures
    assert (figures["campaign.coupons_used"], figures["campaign.coupons_used_in_excess"]) == (3, 1)
    assert (await brand.read_promotion("p")).held_minor == 0
    await brand.sweep()
    for each in (coupon, paid_for):
        assert await reason_of(brand.hold(coupons=[(each.coupon_id, 100)])) == "COUPON_USED"
    assert await reason_of(brand.capture("left")) == "HOLD_EXPIRED"
    assert await brand.red() == {}


@pytest.mark.parametrize("returnable", [True, False])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_coupon_comes_back_with_the_whole_order_if_its_template_says_so(
    brand: Brand, returnable: bool, whole: bool
) -> None:
    await brand.template("t", returnable=returnable)
    coupon = await brand.coupon("t")
    # what a later version says does not change what was issued
    await brand.template("t", returnable=not returnable)
    used = share("COUPON", "t", 100, coupon_id=coupon.coupon_id)
    await brand.hold(hold_id="h", order_id="o", coupons=[(coupon.coupon_id, 100)])
    await brand.capture("h")
    await brand.take(paid("o", used))
    await brand.take(refunded("o", used, whole=whole))
    back = returnable and whole
    assert await reason_of(brand.hold(coupons=[(coupon.coupon_id, 100)])) == ("" if back else "COUPON_USED")
    events = [type_ for type_, _ in await brand.sent()]
    assert events == ["campaign.CouponUsed", *(["campaign.CouponReturned"] if back else [])]
    assert await brand.red() == {}


async def test_a_returned_coupon_can_be_used_by_another_order(brand: Brand) -> None:
    await brand.template("t", returnable=True)
    coupon = await brand.coupon("t")
    used = share("COUPON", "t", 100, coupon_id=coupon.coupon_id)
    await brand.take(paid("a", used), refunded("a", used, whole=True))
    await brand.take(paid("b", used))
    assert (await brand.read_template("t")).used == 1
    assert (await brand.audited()).figures["campaign.coupons_used_in_excess"] == 0
    assert await brand.red() == {}


async def test_a_block_of_hundreds_of_orders(brand: Brand) -> None:
    await brand.template("t")
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10)
    issued = [(await brand.coupon("t")).coupon_id for _ in range(20)]
    orders = [
        paid(f"o{at}", share("ORDER_PROMOTION", "p", 10), share("COUPON", "t", 7, coupon_id=issued[at % 20]))
        for at in range(400)
    ]
    await brand.take(*orders, *(refunded(f"o{at}", share("ORDER_PROMOTION", "p", 10)) for at in range(100)))
    assert (await brand.read_promotion("p")).given_minor == 3000
    figures = (await brand.audited()).figures
    assert (figures["campaign.orders_seen"], figures["campaign.refunds_seen"]) == (400, 100)
    assert figures["campaign.coupons_used_in_excess"] == 380
    assert await brand.red() == {}


async def test_a_merge_moves_coupons_and_keeps_limits(brand: Brand) -> None:
    old, young, third = new_id(), new_id(), new_id()
    await brand.template("t", member_limit=1)
    await brand.coupon("t", member_id=old)
    moved = await brand.coupon("t", member_id=young)
    await brand.follow(identity_pb2.MemberMerged(merge_id=new_id(), member_id=old, merged_member_id=young))
    assert {coupon.coupon_id for coupon in (await brand.coupons_of(old)).coupons} >= {moved.coupon_id}
    # the alias is followed everywhere: lists, quotes, holds, limits
    assert len((await brand.coupons_of(young)).coupons) == 2
    assert (await brand.quote(line("s", 500), member_id=young, codes=[moved.code])).net_minor == 400
    (verdict,) = await brand.issue(coupon_pb2.IssueCoupon(template_id="t", member_id=young))
    assert verdict.refusal_reason == "MEMBER_LIMIT_REACHED"
    await brand.follow(identity_pb2.MemberMerged(merge_id=new_id(), member_id=third, merged_member_id=old))
    assert await reason_of(brand.hold(coupons=[(moved.coupon_id, 1)], member_id=young)) == ""


async def test_merges_of_a_chain_come_in_any_order(brand: Brand) -> None:
    """Each is an event of its survivor, and two members' events have no order between them."""
    first, second, third = new_id(), new_id(), new_id()
    await brand.template("t")
    moved = await brand.coupon("t", member_id=first)
    await brand.follow(identity_pb2.MemberMerged(merge_id=new_id(), member_id=third, merged_member_id=second))
    await brand.follow(identity_pb2.MemberMerged(merge_id=new_id(), member_id=second, merged_member_id=first))
    for member_id in (first, second, third):
        assert [each.coupon_id for each in (await brand.coupons_of(member_id)).coupons] == [moved.coupon_id]
        held = await brand.hold(coupons=[(moved.coupon_id, 1)], member_id=member_id)
        await brand.void(held.hold_id)


async def test_tenants_are_followed_and_never_moved_back(brand: Brand) -> None:
    def changed(version: int, zone: str) -> identity_pb2.TenantChanged:
        return identity_pb2.TenantChanged(
            tenant_id=brand.tenant_id,
            time_zone=zone,
            currency_code="CNY",
            version=version,
            test_clock_at=stamp(NOW),
        )

    await brand.follow(changed(1, "Asia/Shanghai"), changed(3, "Asia/Tokyo"))
    await brand.follow(changed(2, "Europe/Zurich"))
    tenant = await brand.campaign.app.read(brand.tenant_id, lambda connection: load(connection, brand.tenant_id))
    assert tenant is not None
    assert (tenant.time_zone, tenant.test_clock_at) == ("Asia/Tokyo", NOW)


async def test_what_a_till_took_off_by_itself_is_nobodys_budget(brand: Brand) -> None:
    await brand.promotion("offline", "ORDER_AMOUNT", amount_minor=10, budget_minor=10)
    own = share("TILL", "offline", 9)
    await brand.take(paid("o", own, offline=True), refunded("o", own, whole=True))
    assert (await brand.read_promotion("offline")).given_minor == 0
    figures = (await brand.audited()).figures
    assert (figures["campaign.orders_seen"], figures["campaign.discount_given_minor"]) == (1, 0)
    assert figures["campaign.discount_refunded_minor"] == 0
    assert await brand.red() == {}
