"""What the ledger's batch functions share: one statement, one transaction, a verdict an item."""

from collections.abc import Sequence
from typing import Any

from services.runtime.database import Lane, constraint_of
from services.runtime.errors import Conflict

_RACES = frozenset({"holds_pkey", "point_requests_pkey"})


async def run(lane: Lane, statement: str, *parameters: Any) -> Any:
    """The row of a batch's verdicts. Raises Conflict if a request or hold of it came elsewhere at this moment."""
    try:
        (row,) = await lane.fetch(statement, *parameters)
    except Exception as error:
        # looked for before the other committed, and written after: whoever runs again finds it
        if constraint_of(error) in _RACES:
            raise Conflict("another call has this request or hold at this moment; try again") from error
        raise
    return row


def firsts(clients: Sequence[str], request_ids: Sequence[str]) -> list[bool]:
    """Which items are the first of their request in the batch."""
    seen: set[tuple[str, str]] = set()
    found = []
    for key in zip(clients, request_ids, strict=True):
        found.append(key not in seen)
        seen.add(key)
    return found
