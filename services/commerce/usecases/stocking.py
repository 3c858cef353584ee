"""The catalogue, prices, and stock documents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.commerce.domain import stock as rules
from services.commerce.domain.catalogue import ListPrice, Product, Upserted, check_unique
from services.commerce.domain.moments import check_fact
from services.commerce.domain.refusals import UnknownProduct, UnknownSupplier
from services.commerce.domain.stock import DocumentKind, Level
from services.commerce.store import catalogue, stock, suppliers
from services.commerce.store.stock import Cause, StockLine
from services.commerce.usecases import stores
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Invalid
from services.runtime.idempotency import Once
from services.runtime.ids import Sku, StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class StockDocument:
    """A document to post: quantities by SKU, as its kind means them."""

    kind: DocumentKind
    store_id: StoreId
    lines: tuple[tuple[Sku, int], ...]
    reason: str
    occurred_at: datetime | None


async def upsert_products(shop: Shop, call: Call, products: Sequence[Product], once: Once[Upserted]) -> bytes:
    """Makes or changes products, all or none. Raises UnknownSupplier, Invalid for a SKU that stands twice."""
    check_unique([product.sku for product in products], field="products")
    whole = [replace(product, price_quantity=product.price_quantity or 1) for product in products]
    named = {product.supplier_id for product in whole if product.supplier_id}

    async def work(connection: Connection) -> Upserted:
        if named:
            known = await suppliers.find_suppliers(connection, call.tenant_id, sorted(named))
            for at, product in enumerate(whole):
                if product.supplier_id and product.supplier_id not in known:
                    raise UnknownSupplier(product.supplier_id, field=f"products[{at}].supplier_id")
        return await catalogue.upsert(connection, call.tenant_id, whole)

    return await once.run(shop.database, work)


async def product(shop: Shop, call: Call, sku: Sku) -> Product:
    """One product. Raises UnknownProduct."""

    async def read(connection: Connection) -> dict[Sku, Product]:
        return await catalogue.find(connection, call.tenant_id, [sku])

    found = await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())
    if sku not in found:
        raise UnknownProduct({"sku": sku})
    return found[sku]


async def set_prices(shop: Shop, call: Call, prices: Sequence[ListPrice], once: Once[int]) -> bytes:
    """Sets list prices, all or none; the encoded count. A store has its prices before it opens.

    Raises UnknownStore, UnknownProduct, Invalid for a price given twice.
    """
    seen: set[tuple[str, str, str]] = set()
    for at, price in enumerate(prices):
        key = (price.sku, price.store_id, price.channel)
        if key in seen:
            raise Invalid(f"the price of {price.sku!r} stands twice in the request", field=f"prices[{at}].sku")
        seen.add(key)
    named: dict[StoreId, str] = {}
    for at, price in enumerate(prices):
        if price.store_id:
            named.setdefault(price.store_id, f"prices[{at}].store_id")

    async def work(connection: Connection) -> int:
        await _check_known(connection, call, [price.sku for price in prices], field="prices")
        await catalogue.set_prices(connection, call.tenant_id, prices)
        return len(prices)

    return await stores.once_in(shop, call, once, named, work)


async def post_document(shop: Shop, call: Call, document: StockDocument, once: Once[str]) -> bytes:
    """Posts a receipt, a count or an adjustment, all or none; the encoded document id.

    A store is filled before it opens and counted out after it has closed.

    Raises NotAllowed for another store's stock, UnknownStore, UnknownProduct, StockBelowReserved, OccurredOutOfRange
    for a time that is no fact's, and Invalid for a quantity that the kind does not take.
    """
    call.actor.check_store(document.store_id, field="store_id")
    if document.occurred_at is not None:
        check_fact(document.occurred_at, now=call.now, field="occurred_at")
    skus = [sku for sku, _ in document.lines]
    check_unique(skus, field="lines")

    async def work(connection: Connection) -> str:
        await _check_known(connection, call, skus, field="lines")
        levels = await stock.lock(connection, call.tenant_id, document.store_id, skus, make=True)
        movement = rules.post(levels, kind=document.kind, lines=document.lines)
        cause = Cause(reason=document.reason, occurred_at=document.occurred_at or call.now)
        written = await stock.write(connection, call.tenant_id, document.store_id, movement, cause)
        return written[document.kind]

    return await stores.once_in(shop, call, once, {document.store_id: "store_id"}, work)


async def level(shop: Shop, call: Call, *, store_id: StoreId, sku: Sku) -> Level:
    """A SKU's stock in a location; zeros where nothing was ever posted."""

    async def read(connection: Connection) -> Level:
        return await stock.read(connection, call.tenant_id, store_id, sku)

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def lines(
    shop: Shop, call: Call, *, store_id: StoreId, sku: Sku, before: int, limit: int
) -> tuple[StockLine, ...]:
    """The lines behind a stock figure, newest first, below a version."""

    async def read(connection: Connection) -> tuple[StockLine, ...]:
        return await stock.lines(connection, call.tenant_id, store_id, sku, before=before, limit=limit)

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def _check_known(connection: Connection, call: Call, skus: Sequence[Sku], *, field: str) -> None:
    """Raises UnknownProduct, which names the places in the list of this field."""
    found = await catalogue.find(connection, call.tenant_id, skus)
    unknown = {f"{field}[{at}].sku": sku for at, sku in enumerate(skus) if sku not in found}
    if unknown:
        raise UnknownProduct(unknown)
