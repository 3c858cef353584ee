"""Seeds what makes things cheaper: member prices by week, the weekend's offer, and the households' coupons."""

import random
from collections import Counter
from collections.abc import Sequence

from services.console.demo import rules
from services.console.demo.dataset import Campaign
from services.console.demo.intake import sku
from services.console.demo.opening import Opening, OpeningFailed, batches, end_stamp, start_stamp
from services.console.demo.plan import campaigns_in, coupon_code, template_id
from services.console.demo.prices import member_discounts
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc, promotion_pb2, promotion_pb2_grpc

MEMBER_PRICES_A_CALL = 5_000
COUPONS_A_CALL = 1_000


async def put_promotions(opening: Opening, week: int) -> int:
    """The week's member prices and, every second week, the weekend's offer; returns the member prices."""
    stub = opening.wire.stub(promotion_pb2_grpc.PromotionServiceStub)
    days = opening.days_of(week)
    name = f"member-prices-w{week}"
    await opening.call(
        stub.PutPromotion,
        promotion_pb2.PutPromotionRequest(
            request_id=name,
            promotion=promotion_pb2.Promotion(
                promotion_id=name,
                display_name=f"Member prices of week {week}",
                kind=promotion_pb2.PROMOTION_KIND_MEMBER_PRICE,
                valid_from=start_stamp(days[0]),
                valid_until=end_stamp(days[-1]),
                priority=100,
            ),
        ),
    )
    discounts = sorted(member_discounts(opening.data.baskets(week), opening.products).items())

    async def put(batch: Sequence[tuple[int, int]]) -> None:
        await opening.call(
            stub.BatchPutMemberPrices,
            promotion_pb2.BatchPutMemberPricesRequest(
                request_id=f"{name}-{batch[0][0]}",
                promotion_id=name,
                prices=[
                    promotion_pb2.MemberPrice(sku=sku(product), amount_off_minor=cents) for product, cents in batch
                ],
            ),
        )

    await opening.each(batches(discounts, MEMBER_PRICES_A_CALL), put)
    weekend = opening.weekend_of_offer(week)
    if weekend:
        await opening.call(
            stub.PutPromotion,
            promotion_pb2.PutPromotionRequest(
                request_id=f"weekend-w{week}",
                promotion=promotion_pb2.Promotion(
                    promotion_id=f"weekend-w{week}",
                    display_name=f"{rules.WEEKEND_PERCENT}% off the weekend's larger shopping, week {week}",
                    kind=promotion_pb2.PROMOTION_KIND_ORDER_PERCENT,
                    valid_from=start_stamp(weekend[0]),
                    valid_until=end_stamp(weekend[-1]),
                    priority=50,
                    percent=rules.WEEKEND_PERCENT,
                    threshold_minor=rules.WEEKEND_THRESHOLD_CENTS,
                    members_only=True,
                    budget_minor=rules.WEEKEND_BUDGET_CENTS,
                ),
            ),
        )
    return len(discounts)


async def put_templates(opening: Opening, campaigns: Sequence[Campaign]) -> int:
    """One template a campaign's coupon. The most valuable is taken first; equal ones by their name."""
    stub = opening.wire.stub(coupon_pb2_grpc.CouponServiceStub)
    window = {campaign.campaign_id: campaign for campaign in campaigns}
    pools = opening.data.coupons(window)
    values = opening.plan.coupon_values
    ranked = sorted(values, key=lambda template: (-values[template], template))
    priority = {template: len(ranked) - rank for rank, template in enumerate(ranked)}

    async def put(pool: tuple[tuple[int, int], tuple[int, ...]]) -> None:
        (campaign_id, upc), product_ids = pool
        template = template_id(campaign_id, upc)
        await opening.call(
            stub.PutTemplate,
            coupon_pb2.PutTemplateRequest(
                request_id=f"template-{template}",
                template=coupon_pb2.CouponTemplate(
                    template_id=template,
                    display_name=f"Coupon {upc} of campaign {campaign_id}",
                    discount=coupon_pb2.COUPON_DISCOUNT_AMOUNT,
                    amount_minor=values[template],
                    skus=[sku(product) for product in product_ids],
                    valid_from=start_stamp(window[campaign_id].first_day),
                    valid_until=end_stamp(window[campaign_id].last_day),
                    returnable=True,
                    priority=priority[template],
                ),
            ),
        )

    await opening.each(pools.items(), put)
    return len(pools)


def coupons_to_issue(opening: Opening, campaigns: Sequence[Campaign]) -> list[tuple[str, int, str]]:
    """(template, household, code) of every coupon that the campaigns sent out."""
    pools: dict[int, list[int]] = {campaign.campaign_id: [] for campaign in campaigns}
    for campaign_id, upc in opening.data.coupons(pools):
        pools[campaign_id].append(upc)
    redeemed: dict[tuple[int, int], Counter[int]] = {}
    for redemption in opening.data.redemptions():
        if redemption.coupon_upc in pools.get(redemption.campaign_id, ()):
            chosen = redeemed.setdefault((redemption.campaign_id, redemption.household_id), Counter())
            chosen[redemption.coupon_upc] += 1
    issued = []
    for campaign in campaigns:
        for household in filter(opening.plan.takes, campaign.households):
            used = redeemed.get((campaign.campaign_id, household), Counter())
            for upc in _sent_to(opening.plan.seed, campaign, household, pools[campaign.campaign_id], used):
                for copy in range(1, max(1, used[upc]) + 1):
                    code = coupon_code(campaign.campaign_id, upc, household, copy)
                    issued.append((template_id(campaign.campaign_id, upc), household, code))
    return issued


def _sent_to(seed: str, campaign: Campaign, household: int, pool: list[int], used: Counter[int]) -> list[int]:
    if campaign.kind != rules.PERSONAL_CAMPAIGN:
        return pool
    dice = random.Random(f"{seed}/sent/{campaign.campaign_id}/{household}")  # noqa: S311 -- a story, not a secret
    others = [upc for upc in pool if upc not in used]
    more = max(0, min(rules.PERSONAL_COUPONS - len(used), len(others)))
    return sorted([*used, *dice.sample(others, more)])


async def issue_coupons(opening: Opening, campaigns: Sequence[Campaign]) -> int:
    """Issues them all; returns how many."""
    stub = opening.wire.stub(coupon_pb2_grpc.CouponServiceStub)
    issued = coupons_to_issue(opening, campaigns)
    members = opening.brand.members

    async def issue(batch: Sequence[tuple[str, int, str]]) -> None:
        reply = await opening.call(
            stub.BatchIssueCoupons,
            coupon_pb2.BatchIssueCouponsRequest(
                request_id=f"issue-{batch[0][2]}",
                coupons=[
                    coupon_pb2.IssueCoupon(template_id=template, member_id=members[household], code=code)
                    for template, household, code in batch
                ],
            ),
        )
        refused = {verdict.refusal_reason for verdict in reply.verdicts if verdict.refusal_reason}
        if refused:
            raise OpeningFailed(f"coupons were not issued: {', '.join(sorted(refused))}")

    await opening.each(batches(issued, COUPONS_A_CALL), issue)
    return len(issued)


def running_campaigns(opening: Opening) -> list[Campaign]:
    """The campaigns that run in the window."""
    return campaigns_in(opening.data, min(opening.days), max(opening.days))
