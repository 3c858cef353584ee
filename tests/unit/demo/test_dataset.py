"""The files are what the demo says they are, and nothing is lost between them and the tills."""

from collections import Counter

import pytest

from services.console.demo import intake, rules
from services.console.demo.dataset import Basket, DataSet, DataSetError, Line, Product, busiest_weeks, parse_weeks

FUEL = Product(product_id=1, manufacturer_id=1, department="FUEL", category="", kind=rules.FUEL_KIND, package="")
FLOWERS = Product(product_id=2, manufacturer_id=1, department="FLORAL", category="", kind="ROSES", package="")


def test_the_whole_set_is_459_603_958_cents(data: DataSet) -> None:
    assert data.sales_cents == 459_603_958
    assert data.line_count == 1_469_307


def test_the_busiest_fortnight_is_printed_and_known(data: DataSet) -> None:
    assert busiest_weeks(data) == (33, 34)
    week_of = data.week_of_day()
    redeemed = Counter(week_of[redemption.day] for redemption in data.redemptions())
    assert redeemed[33] + redeemed[34] == 302
    assert sum(redeemed.values()) == 2_102


def test_a_local_day_has_one_week(data: DataSet) -> None:
    baskets = data.baskets(33)
    assert {basket.day for basket in baskets} == {day for day, week in data.week_of_day().items() if week == 33}
    assert len({basket.day for basket in baskets}) == 7


def test_coverage_of_a_fortnight_equals_the_files(data: DataSet, products: dict[int, Product]) -> None:
    coverage = intake.Coverage()
    for week in (33, 34):
        coverage.add(data.baskets(week), products)
    assert coverage.sales_cents == data.sales_cents_of((33, 34)) == 17_317_257
    sampled = intake.Coverage()
    for week in (33, 34):
        sampled.add([basket for basket in data.baskets(week) if basket.household_id % 7 == 0], products)
    assert 0 < sampled.sales_cents == data.sales_cents_of((33, 34), one_in=7) < 17_317_257
    assert coverage.rejected == {rules.NOTHING_SOLD: 424}
    assert coverage.rejected_sales_cents[rules.NOTHING_SOLD] == 0


@pytest.mark.parametrize(
    ("text", "weeks"),
    [
        pytest.param("", (33, 34), id="the busiest fortnight"),
        pytest.param("7", (7,), id="one week"),
        pytest.param("3,5-7,6", (3, 5, 6, 7), id="a list with a range"),
        pytest.param("all", tuple(range(1, 54)), id="the year"),
    ],
)
def test_weeks_are_chosen_by(data: DataSet, text: str, weeks: tuple[int, ...]) -> None:
    assert parse_weeks(data, text) == weeks


@pytest.mark.parametrize("text", ["0", "54", "a", "5-", "9-8", "1,,2", "-3"])
def test_other_weeks_are_refused(data: DataSet, text: str) -> None:
    with pytest.raises(DataSetError, match="weeks are"):
        parse_weeks(data, text)


def test_a_range_that_goes_down_is_told_the_other_way_round() -> None:
    with pytest.raises(DataSetError, match=r"^weeks are written from the lower to the higher, 30-35, not '7,35-30'$"):
        parse_weeks(None, "7,35-30")


@pytest.mark.parametrize(
    ("quantity", "shelf", "rejected", "units"),
    [
        pytest.param(2, 500, None, 2, id="pieces"),
        pytest.param(1, 0, None, 1, id="goods given away"),
        pytest.param(0, 261, None, 1, id="money without a count is one piece"),
        pytest.param(0, 0, rules.NOTHING_SOLD, 1, id="neither is nothing"),
        pytest.param(89_638, 20_000, None, 89_638, id="89.638 gallons"),
    ],
)
def test_a_line_is(quantity: int, shelf: int, rejected: str | None, units: int) -> None:
    line = _line(quantity=quantity, sales_cents=shelf)
    assert intake.rejection(line) == rejected
    assert intake.units(line) == units


def test_fuel_is_priced_per_gallon_and_flowers_are_a_suppliers() -> None:
    assert intake.price_quantity(FUEL) == 1000
    assert intake.price_quantity(FLOWERS) == 1
    assert intake.supplier_of(FLOWERS) == "florist"
    assert intake.supplier_of(FUEL) == ""


def test_the_shelf_price_is_before_both_of_the_chains_discounts() -> None:
    line = _line(quantity=1, sales_cents=300, retail=50, match=25)
    assert line.shelf_cents == 375
    assert line.recorded_discount_cents == 75


def _line(*, quantity: int, sales_cents: int, retail: int = 0, match: int = 0) -> Line:
    return Line(
        number=1,
        product_id=1,
        quantity=quantity,
        sales_cents=sales_cents,
        retail_discount_cents=retail,
        match_discount_cents=match,
    )


def test_a_basket_without_a_sold_line_is_no_sale(data: DataSet) -> None:
    empty = [basket for basket in data.baskets(33) if not intake.accepted_lines(basket)]
    assert empty
    assert all(isinstance(basket, Basket) and not any(line.shelf_cents for line in basket.lines) for basket in empty)
