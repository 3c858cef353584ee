"""What customers, tills and suppliers will do that the files don't say: all of it from the printed seed.

The plan holds intents and no arithmetic: which sale burns, not how many points; which units come back, not what they
were worth. It is written to a file that the reference implementation reads, so that both do the same day.

The order of a household's day, which both keep to:
 1. morning: its off-line sales of the day before are uploaded, store by store, oldest first;
 2. its refunds, in the plan's order;
 3. its sales of the day, oldest first, but for those at an off-line till;
 4. evening: its suppliers answer, in the order of the sales;
 5. the clock moves to the next day's end: points mature and expire, tiers change.
"""

import json
import random
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Literal

from services.console.demo import rules
from services.console.demo.dataset import Basket, Campaign, DataSet, Product, Redemption
from services.console.demo.intake import accepted_lines, is_fuel, supplier_of, units

NO_QUALIFYING_PRODUCT = "NO_QUALIFYING_PRODUCT"
TILL_OFFLINE = "TILL_OFFLINE"
NO_SALE_THAT_DAY = "NO_SALE_THAT_DAY"
MAX_COUPONS_PER_SALE = 20

Answer = Literal["accept", "part", "reject", "late"]
Coupons = Mapping[tuple[int, int], frozenset[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundIntent:
    """Units of lines that come back on a day; `lines` are (line number, units)."""

    day: str
    basket_id: int
    lines: tuple[tuple[int, int], ...]

    @property
    def when(self) -> date:
        """The day as a date."""
        return date.fromisoformat(self.day)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierIntent:
    """A supplier's answer to its part of a sale. With "part", `lines` are (line number, accepted units)."""

    answer: Answer
    lines: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True, kw_only=True)
class Plan:
    """The intents of a replay, by basket id. A sample (`one_in` above 1) takes one household in so many."""

    seed: str
    weeks: tuple[int, ...]
    one_in: int = 1
    first_day: str = ""
    last_day: str = ""
    sales: int = 0
    coupon_values: dict[str, int] = field(default_factory=dict)
    coupon_uses: dict[int, list[str]] = field(default_factory=dict)
    unmatched_redemptions: dict[str, int] = field(default_factory=dict)
    burns: set[int] = field(default_factory=set)
    offline: dict[int, str] = field(default_factory=dict)
    refunds: list[RefundIntent] = field(default_factory=list)
    suppliers: dict[int, dict[str, SupplierIntent]] = field(default_factory=dict)

    def takes(self, household_id: int) -> bool:
        """Whether the household is replayed."""
        return household_id % self.one_in == 0

    def baskets(self, data: DataSet, week: int) -> list[Basket]:
        """The week's baskets that are replayed."""
        return [basket for basket in data.baskets(week) if self.takes(basket.household_id)]

    def text(self) -> str:
        """The plan as JSON; the same plan, the same text."""
        return json.dumps(asdict(self) | {"burns": sorted(self.burns)}, indent=1, sort_keys=True)


def template_id(campaign_id: int, coupon_upc: int) -> str:
    """The coupon template of a campaign's coupon."""
    return f"c{campaign_id}-{coupon_upc}"


def coupon_code(campaign_id: int, coupon_upc: int, household_id: int, copy: int) -> str:
    """The code of a household's coupon; `copy` counts from 1 where it redeems the same one again."""
    return f"{campaign_id}-{coupon_upc}-{household_id}-{copy}"


def coupon_value_cents(seed: str, template: str) -> int:
    """What a template's coupons take off; the files don't say."""
    return _dice(seed, "coupon", template).randint(rules.COUPON_MIN_CENTS, rules.COUPON_MAX_CENTS)


def campaigns_in(data: DataSet, first_day: date, last_day: date) -> list[Campaign]:
    """The campaigns that run on at least one of the days."""
    return [c for c in data.campaigns().values() if c.first_day <= last_day and c.last_day >= first_day]


def make_plan(data: DataSet, *, weeks: tuple[int, ...], seed: str, one_in: int = 1) -> Plan:
    """Draws the intents of all weeks. Only the intents are kept, so that a year fits."""
    products = data.products()
    days = sorted(day for day, week in data.week_of_day().items() if week in set(weeks))
    first_day, last_day = days[0].isoformat(), days[-1].isoformat()
    plan = Plan(seed=seed, weeks=weeks, one_in=one_in, first_day=first_day, last_day=last_day)
    running = campaigns_in(data, days[0], days[-1])
    coupons = {key: frozenset(ids) for key, ids in data.coupons(c.campaign_id for c in running).items()}
    plan.coupon_values = {template_id(*key): coupon_value_cents(seed, template_id(*key)) for key in coupons}
    redemptions: dict[tuple[int, date], list[tuple[Redemption, str]]] = defaultdict(list)
    for redemption, code in _coded(data.redemptions(), coupons):
        if plan.takes(redemption.household_id):
            redemptions[redemption.household_id, redemption.day].append((redemption, code))
    unmatched: dict[str, int] = defaultdict(int)
    for week in weeks:
        visits: dict[tuple[int, date], list[Basket]] = defaultdict(list)
        for basket in plan.baskets(data, week):
            if accepted_lines(basket):
                plan.sales += 1
                visits[basket.household_id, basket.day].append(basket)
                _plan_basket(plan, basket, products, days)
        for key, wanted in redemptions.items():
            if key[1] in days and visits.get(key):
                _match(plan, visits[key], wanted, coupons, unmatched)
    plan.refunds.sort(key=lambda refund: (refund.day, refund.basket_id))
    covered = set(days)
    total = sum(len(wanted) for (_, day), wanted in redemptions.items() if day in covered)
    missed = total - sum(map(len, plan.coupon_uses.values())) - sum(unmatched.values())
    plan.unmatched_redemptions = dict(unmatched) | ({NO_SALE_THAT_DAY: missed} if missed else {})
    return plan


def _plan_basket(plan: Plan, basket: Basket, products: Mapping[int, Product], open_days: Sequence[date]) -> None:
    offline = _dice(plan.seed, "offline", f"{basket.store_id}/{basket.day}").random() < rules.OFFLINE_STORE_DAY_SHARE
    # the replay's last day has no next morning on which a till could upload
    if offline and basket.day < open_days[-1]:
        stale = _dice(plan.seed, "list", str(basket.basket_id)).random() < rules.STALE_LIST_SHARE
        plan.offline[basket.basket_id] = "stale" if stale else "cached"
    elif _dice(plan.seed, "burn", str(basket.basket_id)).random() < rules.BURN_SHARE:
        plan.burns.add(basket.basket_id)
    _plan_suppliers(plan, basket, products)
    _plan_refunds(plan, basket, products, open_days)


def _plan_suppliers(plan: Plan, basket: Basket, products: Mapping[int, Product]) -> None:
    asked: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for line in accepted_lines(basket):
        supplier = supplier_of(products[line.product_id])
        if supplier:
            asked[supplier].append((line.number, units(line)))
    for supplier, lines in sorted(asked.items()):
        intent = _supplier_intent(_dice(plan.seed, f"supplier/{supplier}", str(basket.basket_id)), lines)
        plan.suppliers.setdefault(basket.basket_id, {})[supplier] = intent


def _supplier_intent(dice: random.Random, lines: list[tuple[int, int]]) -> SupplierIntent:
    drawn = dice.random()
    if drawn < rules.SUPPLIER_REJECT_SHARE:
        return SupplierIntent(answer="reject")
    drawn -= rules.SUPPLIER_REJECT_SHARE
    asked = sum(quantity for _, quantity in lines)
    if drawn < rules.SUPPLIER_PART_SHARE and asked > 1:
        left = dice.randint(1, asked - 1)
        taken: list[tuple[int, int]] = []
        for number, quantity in lines:
            taken.append((number, min(quantity, left)))
            left -= taken[-1][1]
        return SupplierIntent(answer="part", lines=tuple(taken))
    late = drawn - rules.SUPPLIER_PART_SHARE
    return SupplierIntent(answer="late" if 0 <= late < rules.SUPPLIER_LATE_SHARE else "accept")


def _plan_refunds(plan: Plan, basket: Basket, products: Mapping[int, Product], open_days: Sequence[date]) -> None:
    dice = _dice(plan.seed, "refund", str(basket.basket_id))
    if dice.random() >= rules.REFUND_SHARE:
        return
    answers = plan.suppliers.get(basket.basket_id, {})
    lines = []
    for line in accepted_lines(basket):
        product = products[line.product_id]
        supplier = supplier_of(product)
        settled = not supplier or answers[supplier].answer == "accept"
        if settled and line.shelf_cents and not is_fuel(product):
            lines.append((line.number, units(line)))
    day = _open_from(basket.day + timedelta(days=dice.randint(1, rules.REFUND_MAX_DAYS)), open_days)
    if not lines or day is None:
        return
    if dice.random() < rules.REFUND_WHOLE_SHARE:
        chosen, first = lines, lines
    else:
        chosen = sorted(dice.sample(lines, dice.randint(1, min(3, len(lines)))))
        first = [(number, dice.randint(1, quantity)) for number, quantity in chosen]
    plan.refunds.append(RefundIntent(day=day.isoformat(), basket_id=basket.basket_id, lines=tuple(first)))
    rest = tuple(
        (number, quantity - returned)
        for (number, quantity), (_, returned) in zip(chosen, first, strict=True)
        if quantity > returned
    )
    again = _open_from(day + timedelta(days=dice.randint(1, 3)), open_days)
    if rest and dice.random() < rules.REFUND_AGAIN_SHARE and again is not None:
        plan.refunds.append(RefundIntent(day=again.isoformat(), basket_id=basket.basket_id, lines=rest))


def _open_from(day: date, open_days: Sequence[date]) -> date | None:
    """The day if the shops are open on it, else the next one on which they are; None if that is too far off."""
    place = bisect_left(open_days, day)
    if place == len(open_days) or (open_days[place] - day).days > rules.CLOSED_AT_MOST_DAYS:
        return None
    return open_days[place]


def _coded(redemptions: Iterable[Redemption], coupons: Coupons) -> Iterable[tuple[Redemption, str]]:
    copies: dict[tuple[int, int, int], int] = defaultdict(int)
    for redemption in redemptions:
        if (redemption.campaign_id, redemption.coupon_upc) not in coupons:
            continue
        key = (redemption.campaign_id, redemption.coupon_upc, redemption.household_id)
        copies[key] += 1
        yield redemption, coupon_code(*key, copies[key])


def _match(
    plan: Plan,
    visits: list[Basket],
    wanted: list[tuple[Redemption, str]],
    coupons: Coupons,
    unmatched: dict[str, int],
) -> None:
    """Gives each redemption to the first basket of the household's day that holds one of the coupon's products."""
    for redemption, code in wanted:
        qualifying = coupons[redemption.campaign_id, redemption.coupon_upc]
        fitting = [
            basket
            for basket in visits
            if any(line.shelf_cents and line.product_id in qualifying for line in accepted_lines(basket))
        ]
        online = [basket for basket in fitting if basket.basket_id not in plan.offline]
        if not fitting:
            unmatched[NO_QUALIFYING_PRODUCT] += 1
        elif not online:
            unmatched[TILL_OFFLINE] += 1
        else:
            uses = plan.coupon_uses.setdefault(online[0].basket_id, [])
            assert len(uses) < MAX_COUPONS_PER_SALE, f"basket {online[0].basket_id} shows too many coupons"
            uses.append(code)


def _dice(seed: str, kind: str, key: str) -> random.Random:
    # one generator per decision: what is drawn for one basket does not depend on any other
    return random.Random(f"{seed}/{kind}/{key}")  # noqa: S311 -- a story, not a secret
