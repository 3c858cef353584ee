"""What a merge of members does to the ledger."""

from collections.abc import Sequence
from datetime import datetime

from services.loyalty.domain.points import BalanceTooLarge
from services.runtime.database import Connection, raw, sqlstate_of

_ENTER = "SELECT enter_members($1::uuid, $2, $3::uuid[])"
_MERGE = "SELECT merge_members($1::uuid, $2, $3::uuid, $4::uuid, $5::uuid)"
_OVERFLOW = "22003"


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
