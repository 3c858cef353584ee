"""Following identity: tenants and their clocks, and members that became one."""

from collections.abc import Sequence

from services.campaign.store import members
from services.runtime import tenants
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.tenants import Tenant


async def follow(
    connection: Connection, call: Call, *, changed: Sequence[Tenant], merges: Sequence[tuple[str, str]]
) -> None:
    """Applies tenants' changes and merges (merged member, survivor), in their order; in the consumer's transaction."""
    for tenant in changed:
        await tenants.apply(connection, tenant)
    if merges:
        await members.merge(connection, call.tenant_id, merges)
