"""Seeds what is sold: suppliers and their splits, the catalogue, list prices, and stock where something is sold."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.console.demo import rules
from services.console.demo.dataset import Basket, Product
from services.console.demo.intake import accepted_lines, is_fuel, price_quantity, sku, store_id, supplier_of, units
from services.console.demo.opening import Opening, batches
from services.console.demo.prices import shelf_prices
from siyu.commerce.v1 import catalogue_pb2, catalogue_pb2_grpc, supplier_pb2, supplier_pb2_grpc

PRODUCTS_A_CALL = 5_000
PRICES_A_CALL = 5_000
STOCK_LINES_A_DOCUMENT = 5_000
MAX_NAME = 200
SPARE_UNITS = 10
NO_RECEIPT_SHARE = 0.25
"""Of the goods that a store sells off-line only: nobody booked their receipt, so that the sale finds a shortfall."""


@dataclass(slots=True)
class Sold:
    """What the window sells, store by store, counted week by week so that a year fits."""

    units: Counter[tuple[int, int]] = field(default_factory=Counter)
    online: set[tuple[int, int]] = field(default_factory=set)

    def add(self, baskets: Iterable[Basket], offline: Iterable[int]) -> None:
        """Counts the baskets' lines."""
        without_link = set(offline)
        for basket in baskets:
            for line in accepted_lines(basket):
                key = (basket.store_id, line.product_id)
                self.units[key] += units(line)
                if basket.basket_id not in without_link:
                    self.online.add(key)

    def stores(self) -> list[int]:
        """The stores that sell."""
        return sorted({store for store, _ in self.units})

    def products(self) -> set[int]:
        """The products that are sold."""
        return {product for _, product in self.units}


async def put_suppliers(opening: Opening) -> None:
    """The suppliers, each with its split rule."""
    stub = opening.wire.stub(supplier_pb2_grpc.SupplierServiceStub)
    settlement = opening.wire.stub(supplier_pb2_grpc.SettlementServiceStub)
    for supplier in rules.SUPPLIERS:
        await opening.call(
            stub.PutSupplier,
            supplier_pb2.PutSupplierRequest(
                request_id=f"supplier-{supplier.supplier_id}",
                supplier=supplier_pb2.Supplier(
                    supplier_id=supplier.supplier_id,
                    display_name=supplier.name,
                    accept_within_s=rules.SUPPLIER_ACCEPT_WITHIN_S,
                ),
            ),
        )
        await opening.call(
            settlement.PublishSplitRule,
            supplier_pb2.PublishSplitRuleRequest(
                request_id=f"split-{supplier.supplier_id}",
                supplier_id=supplier.supplier_id,
                shares=[
                    supplier_pb2.SplitShare(party=supplier_pb2.PartyKind.Value(f"PARTY_KIND_{party}"), percent=percent)
                    for party, percent in supplier.split
                ],
            ),
        )


async def put_products(opening: Opening) -> int:
    """The whole catalogue; returns how many products."""
    stub = opening.wire.stub(catalogue_pb2_grpc.CatalogueServiceStub)

    async def put(batch: Sequence[Product]) -> None:
        await opening.call(
            stub.BatchUpsertProducts,
            catalogue_pb2.BatchUpsertProductsRequest(
                request_id=f"products-{batch[0].product_id}", products=[_product(product) for product in batch]
            ),
        )

    ordered = sorted(opening.products.values(), key=lambda product: product.product_id)
    await opening.each(batches(ordered, PRODUCTS_A_CALL), put)
    return len(ordered)


def _product(product: Product) -> catalogue_pb2.Product:
    name = " ".join(part for part in (product.kind or product.category, product.package) if part)
    return catalogue_pb2.Product(
        sku=sku(product.product_id),
        display_name=(name or f"Product {product.product_id}")[:MAX_NAME],
        category=product.department,
        base_unit=catalogue_pb2.BASE_UNIT_PIECE,
        price_quantity=price_quantity(product),
        supplier_id=supplier_of(product),
        # a pump measures its own stock
        untracked=is_fuel(product),
    )


async def set_prices(opening: Opening, baskets: Iterable[Basket]) -> int:
    """The list prices of what these baskets hold; tills have authority over their own, others don't."""
    stub = opening.wire.stub(catalogue_pb2_grpc.CatalogueServiceStub)
    prices = sorted(shelf_prices(baskets, opening.products).items())

    async def put(batch: Sequence[tuple[int, int]]) -> None:
        await opening.call(
            stub.BatchSetPrices,
            catalogue_pb2.BatchSetPricesRequest(
                request_id=f"prices-{batch[0][0]}",
                prices=[catalogue_pb2.ListPrice(sku=sku(product), price_minor=cents) for product, cents in batch],
            ),
        )

    await opening.each(batches(prices, PRICES_A_CALL), put)
    return len(prices)


async def receive_stock(opening: Opening, sold: Sold) -> int:
    """One receipt a store, of what it will sell and some more; returns the stock lines."""
    stub = opening.wire.stub(catalogue_pb2_grpc.StockServiceStub)
    by_store: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (store, product), quantity in sorted(sold.units.items()):
        described = opening.products[product]
        stocked = not is_fuel(described) and not supplier_of(described)
        if stocked and not _forgotten(opening.plan.seed, store, product, is_online=(store, product) in sold.online):
            by_store[store].append((product, quantity + SPARE_UNITS))
    documents = [
        (store, number, lines)
        for store, pairs in by_store.items()
        for number, lines in enumerate(batches(pairs, STOCK_LINES_A_DOCUMENT))
    ]

    async def post(document: tuple[int, int, Sequence[tuple[int, int]]]) -> None:
        store, number, lines = document
        await opening.call(
            stub.PostDocument,
            catalogue_pb2.PostDocumentRequest(
                request_id=f"receipt-{store}-{number}",
                kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
                store_id=store_id(store),
                lines=[
                    catalogue_pb2.StockDocumentLine(sku=sku(product), quantity=quantity) for product, quantity in lines
                ],
                reason="opening stock",
            ),
        )

    await opening.each(documents, post)
    return sum(len(lines) for _, _, lines in documents)


def _forgotten(seed: str, store: int, product: int, *, is_online: bool) -> bool:
    dice = random.Random(f"{seed}/receipt/{store}/{product}")  # noqa: S311 -- a story, not a secret
    return not is_online and dice.random() < NO_RECEIPT_SHARE
