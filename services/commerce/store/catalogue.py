"""Products and prices."""

from collections.abc import Sequence
from typing import Any

from services.commerce.domain.catalogue import ListPrice, Product, Upserted
from services.runtime.database import Connection, raw
from services.runtime.ids import Sku, SupplierId

# in SKU order: two batches must not deadlock; xmax is 0 for a row that this statement made
_UPSERT = """
    WITH upserted AS (
        INSERT INTO products AS p (tenant_id, sku, display_name, category, base_unit, price_quantity, supplier_id,
                                   cost_minor, untracked)
        SELECT $1::uuid, n.sku, n.display_name, n.category, n.base_unit, n.price_quantity, n.supplier_id,
               n.cost_minor, n.untracked
        FROM unnest($2::text[], $3::text[], $4::text[], $5::smallint[], $6::bigint[], $7::text[], $8::bigint[],
                    $9::boolean[])
             AS n(sku, display_name, category, base_unit, price_quantity, supplier_id, cost_minor, untracked)
        ORDER BY n.sku
        ON CONFLICT (tenant_id, sku) DO UPDATE
        SET display_name = excluded.display_name, category = excluded.category, base_unit = excluded.base_unit,
            price_quantity = excluded.price_quantity, supplier_id = excluded.supplier_id,
            cost_minor = excluded.cost_minor, untracked = excluded.untracked, changed_at = now()
        RETURNING p.xmax = 0 AS created
    )
    SELECT count(*) FILTER (WHERE created)::int AS created, count(*) FILTER (WHERE NOT created)::int AS updated
    FROM upserted
"""
_FIND = """
    SELECT p.sku, p.display_name, p.category, p.base_unit, p.price_quantity, p.supplier_id, p.cost_minor, p.untracked
    FROM products AS p
    WHERE p.tenant_id = $1::uuid AND p.sku = ANY($2::text[])
"""
_SET_PRICES = """
    INSERT INTO prices (tenant_id, sku, store_id, channel, price_minor)
    SELECT $1::uuid, n.sku, n.store_id, n.channel, n.price_minor
    FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS n(sku, store_id, channel, price_minor)
    ORDER BY n.sku, n.store_id, n.channel
    ON CONFLICT (tenant_id, sku, store_id, channel) DO UPDATE
    SET price_minor = excluded.price_minor, changed_at = now()
"""
# the most particular price wins: store and channel, store, channel, the brand's
_PRICES = """
    SELECT DISTINCT ON (p.sku) p.sku, p.price_minor
    FROM prices AS p
    WHERE p.tenant_id = $1::uuid AND p.sku = ANY($2::text[]) AND p.store_id IN ($3, '') AND p.channel IN ($4, '')
    ORDER BY p.sku, p.store_id = '', p.channel = ''
"""


async def upsert(connection: Connection, tenant_id: str, products: Sequence[Product]) -> Upserted:
    """Makes or changes products; SKUs are unique."""
    row = await raw(connection).fetchrow(
        _UPSERT,
        tenant_id,
        [product.sku for product in products],
        [product.display_name for product in products],
        [product.category for product in products],
        [product.base_unit for product in products],
        [product.price_quantity for product in products],
        [product.supplier_id for product in products],
        [product.cost_minor for product in products],
        [product.untracked for product in products],
    )
    return Upserted(created=row["created"], updated=row["updated"])


async def find(connection: Connection, tenant_id: str, skus: Sequence[Sku]) -> dict[Sku, Product]:
    """Products by SKU; unknown ones are left out."""
    return {row["sku"]: _product(row) for row in await raw(connection).fetch(_FIND, tenant_id, sorted(set(skus)))}


async def set_prices(connection: Connection, tenant_id: str, prices: Sequence[ListPrice]) -> None:
    """Sets list prices; (SKU, store, channel) are unique."""
    await raw(connection).execute(
        _SET_PRICES,
        tenant_id,
        [price.sku for price in prices],
        [price.store_id for price in prices],
        [price.channel for price in prices],
        [price.price_minor for price in prices],
    )


async def prices(
    connection: Connection, tenant_id: str, skus: Sequence[Sku], *, store_id: str, channel: str
) -> dict[Sku, int]:
    """The list price of each SKU in the store and channel, per price_quantity; those without one are left out."""
    rows = await raw(connection).fetch(_PRICES, tenant_id, sorted(set(skus)), store_id, channel)
    return {row["sku"]: row["price_minor"] for row in rows}


def _product(row: Any) -> Product:
    return Product(
        sku=row["sku"],
        display_name=row["display_name"],
        category=row["category"],
        base_unit=row["base_unit"],
        price_quantity=row["price_quantity"],
        supplier_id=SupplierId(row["supplier_id"]),
        cost_minor=row["cost_minor"],
        untracked=row["untracked"],
    )
