"""Products and list prices: one catalogue for every store."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.errors import Invalid
from services.runtime.ids import Sku, StoreId, SupplierId
from services.runtime.money import price_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product. Its price is for `price_quantity` base units."""

    sku: Sku
    display_name: str
    category: str
    base_unit: int
    price_quantity: int
    supplier_id: SupplierId
    cost_minor: int
    untracked: bool

    @property
    def from_stock(self) -> bool:
        """Whether selling it takes goods from the store's stock."""
        return not (self.untracked or self.supplier_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPrice:
    """A price per `price_quantity` units; an empty store or channel is every one."""

    sku: Sku
    store_id: StoreId
    channel: str
    price_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """How many rows a batch made, and how many it changed."""

    created: int
    updated: int


def shelf_price(price_minor: int, *, quantity: int, price_quantity: int) -> int:
    """A line's total before discounts, half away from zero, once per line."""
    return price_of(price_minor, quantity, price_quantity)


def check_unique(skus: Sequence[str], *, field: str) -> None:
    """Raises Invalid for a SKU that stands twice in a request."""
    seen: set[str] = set()
    for at, sku in enumerate(skus):
        if sku in seen:
            raise Invalid(f"{sku!r} stands twice in the request", field=f"{field}[{at}].sku")
        seen.add(sku)
