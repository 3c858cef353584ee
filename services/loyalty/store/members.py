"""Members that a merge made one: what it does to the ledger, and who survived."""

from collections.abc import Sequence
from datetime import datetime

from services.loyalty.domain.points import BalanceTooLarge
from services.runtime.database import Connection, raw, sqlstate_of

_ENTER = "SELECT enter_members($1::uuid, $2, $3::uuid[])"
_MERGE = "SELECT merge_members($1::uuid, $2, $3::uuid, $4::uuid, $5::uuid)"
_SURVIVORS = (
    "SELECT alias_id::text, member_id::text FROM aliases WHERE tenant_id = $1::uuid AND alias_id = ANY($2::uuid[])"
)
_OVERFLOW = "22003"


async def survivors(connection: Connection, tenant_id: str, member_ids: Sequence[str]) -> dict[str, str]:
    """The survivor of each of the members that were merged away."""
    rows = await raw(connection).fetch(_SURVIVORS, tenant_id, sorted(set(member_ids)))
    return dict(rows)


async def survivor(connection: Connection, tenant_id: str, member_id: str) -> str:
    """Whose points the member's are now: its survivor's, else its own."""
    return (await survivors(connection, tenant_id, [member_id])).get(member_id, member_id)


async def enter(connection: Connection, tenant_id: str, now: datetime, member_ids: Sequence[str]) -> None:
    """Locks all accounts of the members in one order and posts what is due."""
    await raw(connection).fetchval(_ENTER, tenant_id, now, sorted(set(member_ids)))


async def merge(
    connection: Connection, tenant_id: str, now: datetime, *, merge_id: str, member_id: str, alias_id: str
) -> None:
    """Moves all points of the alias to the survivor, by ledger transfer; known merges change nothing.

    Raises BalanceTooLarge if no balance can hold what both have."""
    try:
        await raw(connection).fetchval(_MERGE, tenant_id, now, merge_id, member_id, alias_id)
    except Exception as error:
        if sqlstate_of(error) == _OVERFLOW:
            raise BalanceTooLarge from error
        raise
