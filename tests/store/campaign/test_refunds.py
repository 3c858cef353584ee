"""What a refund brings back, whatever an off-line till once wrote for a coupon."""

from services.runtime.ids import new_id
from tests.store.campaign.conftest import Brand, paid, refunded, share


async def test_a_coupon_that_nobody_knows_stops_no_refund(brand: Brand) -> None:
    """The queue would wait at it for ever, and every brand of its partition with it."""
    await brand.template("t", returnable=True)
    coupon = await brand.coupon("t", member_id=new_id())
    shares = (
        share("COUPON", "t", 5, coupon_id="scrawled"),
        share("COUPON", "t", 100, coupon_id=coupon.coupon_id),
    )
    await brand.take(paid("o1", *shares))
    await brand.take(refunded("o1", *shares, whole=True))
    assert [type_ for type_, _ in await brand.sent()] == ["campaign.CouponUsed", "campaign.CouponReturned"]
    await brand.hold(coupons=[(coupon.coupon_id, 100)], member_id=coupon.member_id)
