"""Following identity: tenants and their clocks, stores, and members that became one."""

from collections.abc import Sequence

from services.commerce.domain.stores import Store
from services.commerce.store import members, stores
from services.runtime import tenants
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.tenants import Tenant


async def follow(
    connection: Connection,
    call: Call,
    *,
    changed: Sequence[Tenant],
    changed_stores: Sequence[Store],
    merges: Sequence[tuple[str, str]],
) -> None:
    """Writes what identity told, in the transaction that moves the cursor; `merges` are (merged, survivor)."""
    for tenant in changed:
        await tenants.apply(connection, tenant)
    await stores.apply(connection, call.tenant_id, changed_stores)
    for merged_id, survivor_id in merges:
        await members.alias(connection, call.tenant_id, merged_id=merged_id, survivor_id=survivor_id)
