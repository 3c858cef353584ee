"""The brand's sources of supplier goods, and its policy for units that a supplier does not ship."""

from services.commerce.domain import sourcing as rules
from services.commerce.domain.refusals import UnknownProduct, UnknownSupplier
from services.commerce.domain.sourcing import OnUnfilled, Source, Sourcing
from services.commerce.store import sourcing as store
from services.commerce.store import suppliers
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.idempotency import Once
from services.runtime.ids import Sku


async def put_policy(shop: Shop, call: Call, on_unfilled: OnUnfilled, once: Once[OnUnfilled]) -> bytes:
    """Sets the policy for answers that come from now on."""

    async def work(connection: Connection) -> OnUnfilled:
        await store.put_policy(connection, call.tenant_id, on_unfilled)
        return on_unfilled

    return await once.run(shop.database, work)


async def put_sources(
    shop: Shop, call: Call, sku: Sku, sources: tuple[Source, ...], once: Once[tuple[Source, ...]]
) -> bytes:
    """Replaces a SKU's sources; none: refused units are refunded.

    Raises UnknownProduct, UnknownSupplier, Invalid for a supplier that stands twice.
    """
    rules.check_sources(sources)

    async def work(connection: Connection) -> tuple[Source, ...]:
        if not await store.lock_product(connection, call.tenant_id, sku):
            raise UnknownProduct({"sku": sku})
        known = await suppliers.find_suppliers(connection, call.tenant_id, [each.supplier_id for each in sources])
        for at, source in enumerate(sources):
            if source.supplier_id not in known:
                raise UnknownSupplier(source.supplier_id, field=f"sources[{at}].supplier_id")
        await store.put(connection, call.tenant_id, sku, sources)
        return sources

    return await once.run(shop.database, work)


async def of_sku(shop: Shop, call: Call, sku: Sku) -> Sourcing:
    """The policy and a SKU's sources."""

    async def read(connection: Connection) -> Sourcing:
        found = await store.sources(connection, call.tenant_id, [sku])
        return Sourcing(
            on_unfilled=await store.policy(connection, call.tenant_id),
            sources=found.get(sku, ()),
        )

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())
