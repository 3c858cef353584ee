"""Price lists that the files imply: what a shelf asks per unit, and what a member pays less in a week."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from services.console.demo.dataset import Basket, Product
from services.console.demo.intake import accepted_lines, price_quantity, units
from services.runtime.money import price_of, round_ratio


def shelf_prices(baskets: Iterable[Basket], products: Mapping[int, Product]) -> dict[int, int]:
    """Per product, the shelf price per price unit that most lines had, in cents; ties to the lowest."""
    seen: dict[int, Counter[int]] = defaultdict(Counter)
    for basket in baskets:
        for line in accepted_lines(basket):
            per_price = price_quantity(products[line.product_id])
            seen[line.product_id][round_ratio(line.shelf_cents * per_price, units(line))] += 1
    return {product_id: _most_frequent(counts) for product_id, counts in seen.items()}


def member_discounts(baskets: Iterable[Basket], products: Mapping[int, Product]) -> dict[int, int]:
    """Per product, what a member pays less per price unit, in cents, above zero.

    It is the unit discount that most of the discounted lines had (`retail_disc`); ties to the smallest. A recorded
    discount of one line is thus no input to that line's price: every member gets the list's, in every store.
    """
    seen: dict[int, Counter[int]] = defaultdict(Counter)
    for basket in baskets:
        for line in basket.lines:
            if line.quantity > 0 and line.retail_discount_cents > 0:
                per_price = price_quantity(products[line.product_id])
                seen[line.product_id][round_ratio(line.retail_discount_cents * per_price, line.quantity)] += 1
    chosen = {product_id: _most_frequent(counts) for product_id, counts in seen.items()}
    return {product_id: cents for product_id, cents in chosen.items() if cents > 0}


def charged_offline(
    basket: Basket, discounts: Mapping[int, int], products: Mapping[int, Product], *, has_list: bool
) -> list[int]:
    """What an off-line till charges per line by its own copy of the member prices; without one, the shelf price."""
    charged = []
    for line in accepted_lines(basket):
        per_price = discounts.get(line.product_id, 0) if has_list else 0
        off = price_of(per_price, units(line), price_quantity(products[line.product_id]))
        charged.append(line.shelf_cents - min(off, line.shelf_cents))
    return charged


def _most_frequent(counts: Counter[int]) -> int:
    return min(counts, key=lambda value: (-counts[value], value))
