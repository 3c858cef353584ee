"""The seeded price lists say what the reference derives from the files for itself."""

import pytest

from services.console.demo.dataset import Basket, DataSet, Product
from services.console.demo.intake import accepted_lines, price_quantity
from services.console.demo.prices import charged_offline, member_discounts, shelf_prices
from tests.reference import files
from tests.reference.pricing import member_discount

WEEK = 33


@pytest.fixture(scope="module")
def baskets(data: DataSet) -> list[Basket]:
    """A week."""
    return data.baskets(WEEK)


def test_member_discounts_are_the_reference_s(baskets: list[Basket], products: dict[int, Product]) -> None:
    seeded = member_discounts(baskets, products)
    assert seeded == files.member_prices(WEEK, files.products())
    assert min(seeded.values()) > 0


def test_an_offline_till_charges_what_the_reference_charges(
    baskets: list[Basket], products: dict[int, Product]
) -> None:
    discounts = member_discounts(baskets, products)
    for basket in baskets[:300]:
        visit_lines = accepted_lines(basket)
        assert charged_offline(basket, discounts, products, has_list=False) == [
            line.shelf_cents for line in visit_lines
        ]
        assert charged_offline(basket, discounts, products, has_list=True) == [
            line.shelf_cents
            - member_discount(
                files.Item(
                    number=line.number,
                    product=line.product_id,
                    units=max(line.quantity, 1),
                    shelf=line.shelf_cents,
                    recorded_off=0,
                ),
                discounts.get(line.product_id, 0),
                price_quantity(products[line.product_id]),
            )
            for line in visit_lines
        ]


def test_every_sold_product_has_a_list_price(baskets: list[Basket], products: dict[int, Product]) -> None:
    prices = shelf_prices(baskets, products)
    assert set(prices) == {line.product_id for basket in baskets for line in accepted_lines(basket)}
    assert all(cents >= 0 for cents in prices.values())
