"""Valid calls of campaign."""

from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc, promotion_pb2, promotion_pb2_grpc
from tests.e2e.shop import TEA, Shop, at
from tests.e2e.valid_calls.table import NEXT_MONTH, YESTERDAY, Valid, calls, changed


def promotion(promotion_id: str, kind: int, **more: object) -> promotion_pb2.PutPromotionRequest:
    return promotion_pb2.PutPromotionRequest(
        request_id=new_id(),
        promotion=promotion_pb2.Promotion(
            promotion_id=promotion_id, display_name="Valid", kind=kind, valid_from=at(NEXT_MONTH), **more
        ),
    )


@calls("PromotionService.PutPromotion")
async def put_promotion(_shop: Shop) -> Valid:
    request = promotion("valid", promotion_pb2.PROMOTION_KIND_LINE_PERCENT, percent="5")
    other = changed(request)
    other.promotion.percent = "6"
    return Valid(request=request, other=other)


@calls("PromotionService.BatchPutMemberPrices")
async def batch_put_member_prices(shop: Shop) -> Valid:
    await shop.call(
        promotion_pb2_grpc.PromotionServiceStub,
        "PutPromotion",
        promotion("valid-members", promotion_pb2.PROMOTION_KIND_MEMBER_PRICE),
    )
    request = promotion_pb2.BatchPutMemberPricesRequest(
        request_id=new_id(),
        promotion_id="valid-members",
        prices=[promotion_pb2.MemberPrice(sku=TEA, amount_off_minor=10)],
    )
    other = changed(request)
    other.prices[0].amount_off_minor = 11
    return Valid(request=request, other=other)


@calls("CouponService.PutTemplate")
async def put_template(_shop: Shop) -> Valid:
    request = coupon_pb2.PutTemplateRequest(
        request_id=new_id(),
        template=coupon_pb2.CouponTemplate(
            template_id="valid",
            display_name="Valid",
            discount=coupon_pb2.COUPON_DISCOUNT_AMOUNT,
            amount_minor=100,
            valid_from=at(YESTERDAY),
            valid_until=at(NEXT_MONTH),
        ),
    )
    other = changed(request)
    other.template.amount_minor = 101
    return Valid(request=request, other=other)


@calls("CouponService.BatchIssueCoupons")
async def batch_issue_coupons(shop: Shop) -> Valid:
    issue = coupon_pb2.IssueCoupon(template_id="welcome", member_id=await shop.member())
    request = coupon_pb2.BatchIssueCouponsRequest(request_id=new_id(), coupons=[issue])
    return Valid(
        request=request, other=coupon_pb2.BatchIssueCouponsRequest(request_id=request.request_id, coupons=[issue] * 2)
    )


@calls("CouponService.HoldBenefits")
async def hold_benefits(shop: Shop) -> Valid:
    member_id = await shop.member()
    await shop.coupon(member_id)
    listed = await shop.call(
        coupon_pb2_grpc.CouponServiceStub, "ListCoupons", coupon_pb2.ListCouponsRequest(member_id=member_id)
    )
    use = promotion_pb2.CouponUse(coupon_id=listed.coupons[0].coupon_id, amount_minor=299)
    request = coupon_pb2.HoldBenefitsRequest(
        request_id=new_id(), hold_id=new_id(), member_id=member_id, order_id=new_id(), coupons=[use]
    )
    return Valid(request=request, other=changed(request, ttl_s=60))


async def held_benefits(shop: Shop) -> str:
    """A hold of head office."""
    request = (await hold_benefits(shop)).request
    await shop.call(coupon_pb2_grpc.CouponServiceStub, "HoldBenefits", request)
    return str(request.hold_id)


@calls("CouponService.CaptureBenefits")
async def capture_benefits(shop: Shop) -> Valid:
    request = coupon_pb2.CaptureBenefitsRequest(request_id=new_id(), hold_id=await held_benefits(shop))
    return Valid(request=request, other=changed(request, hold_id=new_id()))


@calls("CouponService.VoidBenefits")
async def void_benefits(shop: Shop) -> Valid:
    request = coupon_pb2.VoidBenefitsRequest(request_id=new_id(), hold_id=await held_benefits(shop))
    return Valid(request=request, other=changed(request, hold_id=new_id()))
