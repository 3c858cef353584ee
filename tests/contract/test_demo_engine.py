"""Campaign's engine, loyalty's rules and commerce's splits against the reference, over every basket of a fortnight."""

from collections import Counter, defaultdict
from decimal import Decimal

import pytest

from services.campaign.domain import pricing as engine
from services.campaign.domain.coupons import CouponDiscount, Template
from services.campaign.domain.promotions import Promotion, PromotionKind
from services.commerce.domain.splits import PartyKind, SplitEntry, held_by_units
from services.console.demo import rules
from services.console.demo.dataset import DataSet
from services.console.demo.intake import price_quantity
from services.console.demo.plan import Plan, make_plan
from services.console.demo.prices import member_discounts
from services.loyalty.domain import accrual
from services.loyalty.domain.programme import EarnRule, ExpiryClass, Programme
from services.runtime.clock import end_of_day, start_of_day
from services.runtime.ids import PromotionId, TemplateId
from services.runtime.money import tenders_by_line
from tests.reference import files
from tests.reference.shop import Sale, Shop

WEEKS = (33, 34)


@pytest.fixture(scope="module")
def data() -> DataSet:
    """The installed files."""
    return DataSet()


@pytest.fixture(scope="module")
def plan(data: DataSet) -> Plan:
    """The busiest fortnight."""
    return make_plan(data, weeks=WEEKS, seed="test")


@pytest.fixture(scope="module")
def shop(plan: Plan) -> Shop:
    """The reference after the fortnight."""
    import json

    shop = Shop(json.loads(plan.text()))
    shop.live()
    return shop


@pytest.fixture(scope="module")
def sales(shop: Shop) -> list[Sale]:
    """Every sale as the reference made it."""
    return list(shop.sales.values())


def test_the_engine_prices_every_basket_as_the_reference_does(data: DataSet, plan: Plan, sales: list[Sale]) -> None:
    catalogue = data.products()
    prices = {
        (f"member-prices-w{week}", str(product)): cents
        for week in WEEKS
        for product, cents in member_discounts(data.baskets(week), catalogue).items()
    }
    templates = _templates(data, plan)
    promotions = _promotions(data)
    online = [sale for sale in sales if not sale.offline]
    assert len(online) > 5_000
    for sale in online:
        visit = sale.visit
        basket = engine.Basket(
            lines=tuple(
                engine.Line(
                    line_id=str(item["number"]),
                    sku=str(item["product"]),
                    category="",
                    quantity=item["units"],
                    price_quantity=price_quantity(catalogue[item["product"]]),
                    shelf_minor=item["shelf"],
                )
                for item in visit["items"]
            ),
            is_member=True,
            store_id="",
            at=visit["at"],
        )
        coupons = [
            engine.ShownCoupon(code=code, coupon_id=code, template=templates["c" + "-".join(code.split("-")[:2])])
            for code in plan.coupon_uses.get(visit["basket"], ())
        ]
        priced = engine.best_price(basket, engine.Rules(promotions=promotions, member_prices=prices, coupons=coupons))
        assert [line.net_minor for line in priced.lines] == [line.net for line in sale.lines.values()]
        assert dict(priced.coupons) == sale.coupons_off


def _promotions(data: DataSet) -> list[Promotion]:
    days = data.week_of_day()
    made = []
    for week in WEEKS:
        own = sorted(day for day, of in days.items() if of == week)
        made.append(
            Promotion(
                promotion_id=PromotionId(f"member-prices-w{week}"),
                display_name="member prices",
                kind=PromotionKind.MEMBER_PRICE,
                valid_from=start_of_day(own[0], rules.TIME_ZONE),
                valid_until=end_of_day(own[-1], rules.TIME_ZONE),
                priority=100,
            )
        )
    made.append(
        Promotion(
            promotion_id=PromotionId("weekend"),
            display_name="weekend",
            kind=PromotionKind.ORDER_PERCENT,
            valid_from=start_of_day(own[-2], rules.TIME_ZONE),
            valid_until=end_of_day(own[-1], rules.TIME_ZONE),
            percent=Decimal(rules.WEEKEND_PERCENT),
            threshold_minor=rules.WEEKEND_THRESHOLD_CENTS,
            members_only=True,
        )
    )
    return made


def _templates(data: DataSet, plan: Plan) -> dict[str, Template]:
    campaigns = data.campaigns()
    pools = data.coupons(campaigns)
    ranked = sorted(plan.coupon_values, key=lambda template: (-plan.coupon_values[template], template))
    made = {}
    for (campaign_id, upc), products in pools.items():
        template = f"c{campaign_id}-{upc}"
        if template in plan.coupon_values:
            made[template] = Template(
                template_id=TemplateId(template),
                display_name=template,
                discount=CouponDiscount.AMOUNT,
                valid_from=start_of_day(campaigns[campaign_id].first_day, rules.TIME_ZONE),
                valid_until=end_of_day(campaigns[campaign_id].last_day, rules.TIME_ZONE),
                amount_minor=plan.coupon_values[template],
                skus=frozenset(map(str, products)),
                priority=len(ranked) - ranked.index(template),
            )
    return made


def test_loyalty_earns_for_every_sale_what_the_reference_gives(sales: list[Sale]) -> None:
    programme = Programme(
        point_currency=rules.POINT_CURRENCY,
        display_name="points",
        expiry_classes=(ExpiryClass(class_id="base", days=365), ExpiryClass(class_id="bonus", days=7)),
        earn_rules=tuple(
            EarnRule(
                rule_id=earning.rule_id,
                points=Decimal(earning.points),
                per_minor=earning.per_cents,
                expiry_class=earning.expiry_class,
                categories=frozenset(earning.departments),
                weekdays=frozenset(earning.weekdays),
                tier_multiplied=earning.tier_multiplied,
            )
            for earning in rules.EARNINGS
        ),
    )
    catalogue = files.products()
    multipliers = {tier.tier_id: Decimal(tier.multiplier) for tier in rules.TIERS}
    earned_something = 0
    for sale in sales:
        lines = [
            accrual.Line(
                line_id=str(number),
                category=catalogue.get(line.item["product"], {"department": ""})["department"],
                quantity=line.item["units"],
                base_minor=line.net - line.tender,
            )
            for number, line in sale.lines.items()
        ]
        wanted = [
            {rule: line.earned[rule] for rule in ("base", "fresh-days") if line.earned.get(rule)}
            for line in sale.lines.values()
        ]
        told = [
            accrual.earn(
                programme,
                lines,
                multiplier=multiplier,
                occurred_at=sale.visit["at"],
                time_zone=rules.TIME_ZONE,
            )
            for multiplier in multipliers.values()
        ]
        shares = [
            [
                {rule.rule_id: rule.line_points[at] for rule in earned if rule.line_points[at]}
                for at in range(len(lines))
            ]
            for earned in told
        ]
        # the tier is the reference's secret; one of the three must give exactly what it gave
        assert wanted in shares
        earned_something += any(wanted)
    assert earned_something > 5_000


def test_commerce_splits_and_reverses_as_the_reference_does(shop: Shop, sales: list[Sale]) -> None:
    told: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for sale in sales:
        for number, sold in sale.lines.items():
            if not sold.split:
                continue
            units = sold.item["units"]
            names = {PartyKind[kind]: name for kind, name, _ in sold.split}
            cells = tenders_by_line([part for _, _, part in sold.split], (sold.tender, sold.net - sold.tender))
            entries = [
                SplitEntry(
                    line_no=number,
                    party=party,
                    party_id=party_id,
                    amount_minor=sum(parts),
                    rule_version=1,
                    tenders_minor=parts,
                )
                for (party, party_id), parts in zip(names.items(), cells, strict=True)
            ]
            for entry, back in held_by_units(entries, units=units, first=0, count=sold.back):
                sums = told[f"{entry.party.name}/{entry.party_id}"]
                sums["earned"] += entry.amount_minor
                sums["reversed"] += sum(back)
    assert {party: +sums for party, sums in told.items()} == {
        party: +sums for party, sums in shop.totals.parties.items()
    }
    assert sum(sums["reversed"] for sums in told.values()) > 10_000
