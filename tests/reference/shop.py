"""The chain's fortnight (or year), sale by sale: prices, points, tiers, refunds, and who gets which part."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.reference import brand, files
from tests.reference.arithmetic import divide, of_first_units
from tests.reference.files import Item, Visit
from tests.reference.points import Purse
from tests.reference.pricing import (
    earned_points,
    is_weekend_of_offer,
    member_discount,
    points_to_burn,
    price,
    share_tender,
)
from tests.reference.tiers import Card

Plan = dict[str, Any]


@dataclass(kw_only=True)
class SoldLine:
    """A line as it was sold, and how many of its units came back."""

    item: Item
    net: int
    tender: int
    burnt: int
    earned: dict[str, int]
    split: list[tuple[str, str, int]]
    back: int = 0


@dataclass(kw_only=True)
class Sale:
    """A sale in the books."""

    visit: Visit
    offline: bool
    lines: dict[int, SoldLine]
    member_off: int
    weekend_off: int
    coupons_off: dict[str, int]
    burnt: int
    refunded: int = 0
    given_back: int = 0


@dataclass(kw_only=True)
class Customer:
    """A household with its points and its tier."""

    purse: Purse
    card: Card


@dataclass(kw_only=True)
class Totals:
    """What the report compares besides orders and customers."""

    coupons: Counter[str] = field(default_factory=Counter)
    parties: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    suppliers: Counter[str] = field(default_factory=Counter)


class Shop:
    """Lives the days of the plan in order."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.weeks: list[int] = plan["weeks"]
        self.catalogue = files.products()
        self.coupon_products = files.coupon_products()
        self.burns = set(plan["burns"])
        self.sales: dict[int, Sale] = {}
        self.told: dict[int, dict[str, Any]] = {}
        self.totals = Totals()
        self.prices: dict[int, dict[int, int]] = {}
        self.today = date.fromisoformat(plan["first_day"]) - timedelta(days=1)
        self.customers: dict[int, Customer] = {}
        for row in files.rows("transactions", ["household_id"]):
            if row["household_id"] not in self.customers and row["household_id"] % plan["one_in"] == 0:
                purse = Purse(self.today)
                purse.earn("welcome", "welcome", brand.WELCOME, sold_on=self.today, returnable=False)
                self.customers[row["household_id"]] = Customer(purse=purse, card=Card(self.today))

    def live(self) -> None:
        """All days, from the first morning to the midnight after the last day."""
        days: dict[date, list[Visit]] = defaultdict(list)
        late: list[Visit] = []
        before: int | None = None
        refunds: dict[date, list[Plan]] = defaultdict(list)
        for refund in self.plan["refunds"]:
            refunds[date.fromisoformat(refund["day"])].append(refund)
        for week in self.weeks:
            self.prices = {week: files.member_prices(week, self.catalogue)} | {
                known: prices for known, prices in self.prices.items() if known == before
            }
            before = week
            calendar: set[date] = set()
            for visit in files.visits(week):
                # a sample may buy nothing on a day, and still bring something back on it
                calendar.add(visit["day"])
                if visit["household"] % self.plan["one_in"]:
                    continue
                days[visit["day"]].append(visit)
            for day in sorted(day for day in calendar if day > self.today):
                self._midnight(day)
                today = days.pop(day, [])
                offline = [visit for visit in today if str(visit["basket"]) in self.plan["offline"]]
                online = [visit for visit in today if str(visit["basket"]) not in self.plan["offline"]]
                self._live(day, online, late=late, refunds=refunds.pop(day, []))
                # uploaded on the next morning on which the shops open: none does at Christmas
                late = offline
            self._file_away()
        self._midnight(self.today + timedelta(days=1))
        left = [*days, *late, *refunds]
        assert not left, f"the plan has {len(left)} left that no day of it did"

    def _live(self, day: date, online: list[Visit], *, late: list[Visit], refunds: list[Plan]) -> None:
        uploads = sorted(late, key=lambda visit: (visit["store"], visit["at"], visit["basket"]))
        sold: list[Sale] = [self._sell(visit) for visit in uploads]
        for refund in refunds:
            self._give_back(self.sales[refund["basket_id"]], [(number, units) for number, units in refund["lines"]])
        sold += [self._sell(visit) for visit in online]
        for sale in sold:
            self._suppliers_answer(sale)
        assert self.today == day

    def _file_away(self) -> None:
        """Nothing comes back after so long: only the figures of old sales are kept, so that a year fits."""
        old = self.today - timedelta(days=brand.NOTHING_COMES_BACK_AFTER)
        for basket in [basket for basket, sale in self.sales.items() if sale.visit["day"] < old]:
            self.told[basket] = _order(self.sales.pop(basket))

    def _midnight(self, day: date) -> None:
        while self.today < day:
            self.today += timedelta(days=1)
            for customer in self.customers.values():
                customer.purse.next_day(self.today)
                customer.card.next_day(self.today)

    # --- a sale -------------------------------------------------------------------------------------------------------

    def _sell(self, visit: Visit) -> Sale:
        customer = self.customers[visit["household"]]
        basket = visit["basket"]
        till = self.plan["offline"].get(str(basket))
        prices = {} if till == "stale" else self.prices[visit["week"]]
        member_offs = [self._member_off(item, prices) for item in visit["items"]]
        priced = price(
            visit["items"],
            member_offs,
            weekend=till is None and is_weekend_of_offer(visit["day"], visit["week"], self.weeks),
            coupons=self._coupons(basket),
        )
        burnt = 0
        if basket in self.burns:
            burnt = points_to_burn(customer.purse.available(), sum(priced.net))
            if burnt:
                customer.purse.burn(str(basket), burnt)
        tender = share_tender(priced.net, burnt // brand.POINTS_PER_CENT)
        sale = Sale(
            visit=visit,
            offline=till is not None,
            lines={},
            member_off=priced.member_off,
            weekend_off=priced.weekend_off,
            coupons_off=priced.coupons_off,
            burnt=burnt,
        )
        points = divide(burnt, tender) if burnt else [0] * len(tender)
        for item, net, paid_by_points, of_burnt in zip(visit["items"], priced.net, tender, points, strict=True):
            sale.lines[item["number"]] = SoldLine(
                item=item,
                net=net,
                tender=paid_by_points,
                burnt=of_burnt,
                earned={},
                split=self._split(item, net, visit["store"]),
            )
        self._earn(sale, customer)
        self.sales[basket] = sale
        for code in priced.coupons_off:
            self.totals.coupons["used"] += 1
            self.totals.coupons["cents"] += priced.coupons_off[code]
        return sale

    def _member_off(self, item: Item, prices: dict[int, int]) -> int:
        per_price = prices.get(item["product"], 0)
        return member_discount(item, per_price, files.units_per_price(self.catalogue, item["product"]))

    def _coupons(self, basket: int) -> list[tuple[str, int, set[int]]]:
        """The basket's coupons: the most valuable first, then by the coupon's number."""
        shown = []
        for code in self.plan["coupon_uses"].get(str(basket), []):
            campaign, coupon, _, _ = code.split("-")
            value = self.plan["coupon_values"][f"c{campaign}-{coupon}"]
            shown.append(((-value, f"c{campaign}-{coupon}", code), self.coupon_products[f"{campaign}-{coupon}"]))
        shown.sort(key=lambda coupon: coupon[0])
        return [(code, -less, products) for (less, _, code), products in shown]

    def _earn(self, sale: Sale, customer: Customer) -> None:
        visit = sale.visit
        lines = list(sale.lines.values())
        bases = [line.net - line.tender for line in lines]
        everything = dict.fromkeys(range(len(lines)), True)
        fresh = {
            position: self._department(line.item["product"]) in brand.FRESH_DEPARTMENTS
            and visit["day"].strftime("%a") in brand.FRESH_WEEKDAYS
            for position, line in enumerate(lines)
        }
        for rule, pool, rate, factor, counts in (
            ("base", "base", brand.BASE_POINTS_PER_CENT, customer.card.factor(), everything),
            ("fresh-days", "fresh", brand.FRESH_POINTS_PER_CENT, Fraction(1), fresh),
        ):
            points, shares = earned_points(bases, rate=rate, factor=factor, counts=counts)
            if points:
                customer.purse.earn(f"{visit['basket']}/{rule}", pool, points, sold_on=visit["day"], returnable=True)
                for line, share in zip(lines, shares, strict=True):
                    line.earned[rule] = share
        customer.card.paid(visit["day"], sum(bases))

    # --- who gets what -----------------------------------------------------------------------------------------------

    def _department(self, product: int) -> str:
        return str(self.catalogue[product]["department"]) if product in self.catalogue else ""

    def _split(self, item: Item, net: int, store: int) -> list[tuple[str, str, int]]:
        supplier = brand.SUPPLIER_OF_DEPARTMENT.get(self._department(item["product"]))
        if supplier is None:
            return []
        names = {"SUPPLIER": supplier, "STORE": f"store-{store}", "BRAND": "brand", "PLATFORM": "platform"}
        rates = [Fraction(rate) for _, rate in brand.SPLITS[supplier]]
        split = [
            (kind, names[kind], part)
            for (kind, _), part in zip(brand.SPLITS[supplier], divide(net, rates), strict=True)
        ]
        for kind, name, part in split:
            self.totals.parties[f"{kind}/{name}"]["earned"] += part
        return split

    @staticmethod
    def _split_by_tender(line: SoldLine) -> list[list[int]]:
        """What each party has of the points first, of the money then: the parties take their turn at what is left."""
        left = [line.tender, line.net - line.tender]
        parts: list[list[int]] = [[], []]
        for _, _, part in line.split:
            for tender, taken in enumerate(divide(part, left)):
                parts[tender].append(taken)
                left[tender] -= taken
        return parts

    # --- what comes back ---------------------------------------------------------------------------------------------

    def _give_back(self, sale: Sale, units: list[tuple[int, int]]) -> None:
        burnt = 0
        earned: Counter[str] = Counter()
        amount = 0
        counted = 0
        for number, quantity in units:
            line = sale.lines[number]
            before, after = line.back, line.back + quantity
            assert after <= line.item["units"], f"more units of {sale.visit['basket']}/{number} than were sold"

            def share(total: int, line: SoldLine = line, before: int = before, after: int = after) -> int:
                units = line.item["units"]
                return of_first_units(total, units, after) - of_first_units(total, units, before)

            amount += share(line.net)
            counted += share(line.net - line.tender)
            burnt += share(line.burnt)
            for rule, points in line.earned.items():
                earned[rule] += share(points)
            # the parties give back what the customer gets, unit by unit and tender by tender: running sums are divided,
            # not single parts
            together = 0
            for of_tender in self._split_by_tender(line):
                for (kind, name, _), part in zip(line.split, of_tender, strict=True):
                    self.totals.parties[f"{kind}/{name}"]["reversed"] += share(together + part) - share(together)
                    together += part
            line.back = after
        basket = sale.visit["basket"]
        customer = self.customers[sale.visit["household"]]
        customer.purse.refund(
            burnt=[(str(basket), burnt)] if burnt else [],
            earned=[(f"{basket}/{rule}", points) for rule, points in earned.items() if points],
        )
        customer.card.unpaid(sale.visit["day"], counted)
        sale.refunded += amount
        sale.given_back += burnt
        if all(line.back == line.item["units"] for line in sale.lines.values()):
            self.totals.coupons["returned"] += len(sale.coupons_off)

    def _suppliers_answer(self, sale: Sale) -> None:
        for supplier, intent in sorted(self.plan["suppliers"].get(str(sale.visit["basket"]), {}).items()):
            asked = [
                line
                for line in sale.lines.values()
                if brand.SUPPLIER_OF_DEPARTMENT.get(self._department(line.item["product"])) == supplier
            ]
            taken = {int(number): int(units) for number, units in intent["lines"]}
            if intent["answer"] in {"accept", "late"}:
                taken = {line.item["number"]: line.item["units"] for line in asked}
            self.totals.suppliers[intent["answer"]] += 1
            missing = [(line.item["number"], line.item["units"] - taken.get(line.item["number"], 0)) for line in asked]
            refused = [(number, units) for number, units in missing if units]
            if refused:
                self._give_back(sale, refused)

    # --- what it all comes to ----------------------------------------------------------------------------------------

    def write(self, path: Path) -> None:
        """Writes every order, every customer and the totals as JSON."""
        path.write_text(
            json.dumps(
                {
                    "orders": {
                        str(basket): order
                        for basket, order in [
                            *self.told.items(),
                            *((basket, _order(sale)) for basket, sale in self.sales.items()),
                        ]
                    },
                    "customers": {str(number): _customer(each) for number, each in self.customers.items()},
                    "coupons": dict(self.totals.coupons),
                    "suppliers": dict(self.totals.suppliers),
                    "parties": {party: dict(sums) for party, sums in sorted(self.totals.parties.items())},
                }
            )
        )


def _order(sale: Sale) -> dict[str, Any]:
    shelf = sum(line.item["shelf"] for line in sale.lines.values())
    net = sum(line.net for line in sale.lines.values())
    return {
        "shelf": shelf,
        "net": net,
        "member_off": sale.member_off,
        "weekend_off": sale.weekend_off,
        "coupon_off": sum(sale.coupons_off.values()),
        "coupons": dict(sorted(sale.coupons_off.items())),
        "burnt": sale.burnt,
        "earned": sum(points for line in sale.lines.values() for points in line.earned.values()),
        "refunded": sale.refunded,
        "given_back": sale.given_back,
        "lines": {
            str(number): [line.item["shelf"], line.net, line.tender, line.burnt, line.back]
            for number, line in sale.lines.items()
        },
    }


def _customer(customer: Customer) -> dict[str, Any]:
    purse = customer.purse
    return {
        "available": purse.available(),
        "pending": purse.waiting(),
        "debt": purse.debt(),
        "tier": customer.card.tier,
        **{name: purse.told[name] for name in ("earned", "burnt", "given_back", "taken_back", "expired", "owed")},
    }
