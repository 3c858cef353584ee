"""What of the files becomes a sale: which lines are accepted, in which units, and the sums of the ones that are not."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.console.demo import rules
from services.console.demo.dataset import Basket, Line, Product


def rejection(line: Line) -> str | None:
    """Why the line is no sale; None if it is one.

    A quantity without money is goods given away: sold for nothing. Money without a quantity (32 lines of the year, most
    of them loose produce) is one piece whose count the till did not record. Neither is nothing at all.
    """
    return rules.NOTHING_SOLD if line.quantity == 0 and line.shelf_cents == 0 else None


def units(line: Line) -> int:
    """The line's quantity in base units, at least 1."""
    return max(line.quantity, 1)


def accepted_lines(basket: Basket) -> tuple[Line, ...]:
    """The lines that a till would sell; empty if the basket holds none."""
    return tuple(line for line in basket.lines if rejection(line) is None)


def is_fuel(product: Product) -> bool:
    """Fuel is priced per gallon, counted in thousandths, not stocked, and not taken back."""
    return product.kind == rules.FUEL_KIND


def price_quantity(product: Product) -> int:
    """The units that a price of the product is for."""
    return rules.FUEL_PRICE_QUANTITY if is_fuel(product) else 1


def supplier_of(product: Product) -> str:
    """Who ships the product; empty: it is sold from the store's stock."""
    return _SUPPLIER_OF.get(product.department, "")


def sku(product_id: int) -> str:
    """The product's SKU at Siyu."""
    return str(product_id)


def store_id(number: int) -> str:
    """The store's id at Siyu."""
    return f"store-{number}"


def line_id(line: Line) -> str:
    """The line's id in its order: its number in the file's basket."""
    return str(line.number)


@dataclass(slots=True)
class Coverage:
    """Adds up the files' lines, accepted and rejected, so that none is lost on the way to the books."""

    accepted_lines: int = 0
    accepted_shelf_cents: int = 0
    accepted_discount_cents: int = 0
    baskets: int = 0
    baskets_sold: int = 0
    one_piece_lines: int = 0
    free_lines: int = 0
    fuel_lines: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_sales_cents: Counter[str] = field(default_factory=Counter)

    def add(self, baskets: Iterable[Basket], products: Mapping[int, Product]) -> None:
        """Adds whole baskets."""
        for basket in baskets:
            self.baskets += 1
            self.baskets_sold += bool(accepted_lines(basket))
            for line in basket.lines:
                reason = rejection(line)
                if reason is not None:
                    self.rejected[reason] += 1
                    self.rejected_sales_cents[reason] += line.sales_cents
                    continue
                self.accepted_lines += 1
                self.accepted_shelf_cents += line.shelf_cents
                self.accepted_discount_cents += line.recorded_discount_cents
                self.one_piece_lines += line.quantity == 0
                self.free_lines += line.shelf_cents == 0
                self.fuel_lines += is_fuel(products[line.product_id])

    @property
    def sales_cents(self) -> int:
        """Shelf price less recorded discounts over all lines: what the files' `sales_value` sums to."""
        rejected = sum(self.rejected_sales_cents.values())
        return self.accepted_shelf_cents - self.accepted_discount_cents + rejected


_SUPPLIER_OF = {supplier.department: supplier.supplier_id for supplier in rules.SUPPLIERS}
