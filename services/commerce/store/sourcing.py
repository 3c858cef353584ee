"""The brand's policy for units that a supplier does not ship, and each SKU's sources in order."""

from collections.abc import Sequence

from services.commerce.domain.sourcing import OnUnfilled, Source
from services.runtime.database import Connection, raw
from services.runtime.ids import Sku

_PUT_POLICY = """
    INSERT INTO supply_policies (tenant_id, on_unfilled)
    VALUES ($1::uuid, $2)
    ON CONFLICT (tenant_id) DO UPDATE SET on_unfilled = excluded.on_unfilled, changed_at = now()
"""
_POLICY = "SELECT p.on_unfilled FROM supply_policies AS p WHERE p.tenant_id = $1::uuid"
# the product's row is locked: two lists for one SKU must not mix
_LOCK_PRODUCT = "SELECT 1 FROM products AS p WHERE p.tenant_id = $1::uuid AND p.sku = $2 FOR NO KEY UPDATE"
_CLEAR = "DELETE FROM sku_sources WHERE tenant_id = $1::uuid AND sku = $2"
_PUT = """
    INSERT INTO sku_sources (tenant_id, sku, place, supplier_id, cost_minor)
    SELECT $1::uuid, $2, n.place, n.supplier_id, n.cost_minor
    FROM unnest($3::text[], $4::bigint[]) WITH ORDINALITY AS n(supplier_id, cost_minor, place)
"""
_SOURCES = """
    SELECT s.sku, s.supplier_id, s.cost_minor
    FROM sku_sources AS s
    WHERE s.tenant_id = $1::uuid AND s.sku = ANY($2::text[])
    ORDER BY s.sku, s.place
"""


async def put_policy(connection: Connection, tenant_id: str, on_unfilled: OnUnfilled) -> None:
    """Sets the brand's policy."""
    await raw(connection).execute(_PUT_POLICY, tenant_id, on_unfilled)


async def policy(connection: Connection, tenant_id: str) -> OnUnfilled:
    """The brand's policy; REFUND where it never set one."""
    found = await raw(connection).fetchval(_POLICY, tenant_id)
    return OnUnfilled.REFUND if found is None else OnUnfilled(found)


async def lock_product(connection: Connection, tenant_id: str, sku: Sku) -> bool:
    """Locks the product's row; False if there is none."""
    return await raw(connection).fetchval(_LOCK_PRODUCT, tenant_id, sku) is not None


async def put(connection: Connection, tenant_id: str, sku: Sku, sources: Sequence[Source]) -> None:
    """Replaces the sources of a locked product."""
    await raw(connection).execute(_CLEAR, tenant_id, sku)
    await raw(connection).execute(
        _PUT,
        tenant_id,
        sku,
        [source.supplier_id for source in sources],
        [source.cost_minor for source in sources],
    )


async def sources(connection: Connection, tenant_id: str, skus: Sequence[Sku]) -> dict[Sku, tuple[Source, ...]]:
    """The sources of SKUs, in the order in which they are asked; a SKU without any is left out."""
    found: dict[Sku, tuple[Source, ...]] = {}
    for row in await raw(connection).fetch(_SOURCES, tenant_id, sorted(set(skus))):
        source = Source(supplier_id=row["supplier_id"], cost_minor=row["cost_minor"])
        found[row["sku"]] = (*found.get(row["sku"], ()), source)
    return found
