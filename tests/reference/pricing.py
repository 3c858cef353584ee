"""What a sale costs: member prices, the weekend's 5%, coupons, then points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction

from tests.reference import brand
from tests.reference.arithmetic import divide, half_away
from tests.reference.files import Item


@dataclass(kw_only=True)
class Priced:
    """A sale's lines: what each costs in the end, and who gave how much."""

    net: list[int]
    member_off: int
    weekend_off: int
    coupons_off: dict[str, int]


def member_discount(item: Item, per_price: int, price_units: int) -> int:
    """A member's discount for a line, never more than the line."""
    return min(item["shelf"], half_away(Fraction(per_price * item["units"], price_units)))


def price(
    items: Sequence[Item],
    member_offs: Sequence[int],
    *,
    weekend: bool,
    coupons: Sequence[tuple[str, int, set[int]]],
) -> Priced:
    """The price of a sale. `coupons` are (code, cents, products), in the order in which they are taken.

    Member prices may bring a sale below the weekend's threshold; the customer gets what costs less in the end.
    """
    shelf = [item["shelf"] for item in items]
    members = list(member_offs)
    everything = _price(items, members, weekend=weekend, coupons=coupons)
    misses = weekend and sum(shelf) - sum(members) < brand.WEEKEND_FROM_CENTS <= sum(shelf)
    if not misses:
        return everything
    without_members = _price(items, [0] * len(shelf), weekend=True, coupons=coupons)
    return min(everything, without_members, key=lambda priced: (sum(priced.net), len(priced.coupons_off)))


def _price(
    items: Sequence[Item],
    member_offs: Sequence[int],
    *,
    weekend: bool,
    coupons: Sequence[tuple[str, int, set[int]]],
) -> Priced:
    net = [item["shelf"] - off for item, off in zip(items, member_offs, strict=True)]
    weekend_off = 0
    if weekend and sum(net) >= brand.WEEKEND_FROM_CENTS:
        weekend_off = half_away(Fraction(Decimal(sum(net)) * brand.WEEKEND_RATE))
        net = [left - part for left, part in zip(net, divide(weekend_off, net), strict=True)]
    coupons_off: dict[str, int] = {}
    for code, value, products in coupons:
        fitting = [left if item["product"] in products else 0 for item, left in zip(items, net, strict=True)]
        off = min(value, sum(fitting))
        if off:
            coupons_off[code] = off
            net = [left - part for left, part in zip(net, divide(off, fitting), strict=True)]
    return Priced(net=net, member_off=sum(member_offs), weekend_off=weekend_off, coupons_off=coupons_off)


def is_weekend_of_offer(day: date, week: int, weeks: Sequence[int]) -> bool:
    """Saturday and Sunday of every second week of the replay."""
    return day.strftime("%a") in brand.WEEKEND_DAYS and list(weeks).index(week) % 2 == 1


def points_to_burn(available: int, net: int) -> int:
    """What a customer who burns spends: whole hundreds, but no more than the sale costs."""
    wanted = min(available // brand.BURN_STEP * brand.BURN_STEP, brand.BURN_MOST)
    return min(wanted, net * brand.POINTS_PER_CENT)


def share_tender(net: Sequence[int], tender: int) -> list[int]:
    """What each line takes of one of two tenders that pay a sale together, the lines in order."""
    left, other = tender, sum(net) - tender
    shares: list[int] = []
    for line in net:
        share = divide(line, [left, other])[0] if left + other else 0
        left -= share
        other -= line - share
        shares.append(share)
    assert left == 0
    assert other == 0
    return shares


def earned_points(
    bases: Sequence[int], *, rate: Fraction, factor: Fraction, counts: Mapping[int, bool]
) -> tuple[int, list[int]]:
    """What one rule gives for a sale, rounded down, and its lines' shares; `counts` tells which lines it looks at."""
    weights = [base if counts[position] else 0 for position, base in enumerate(bases)]
    points = int(sum(weights) * rate * factor)
    return points, divide(points, weights) if points else [0] * len(bases)
