"""All checks and totals of one tenant, on the system role.

Each selects rows `id, broken`. All of them run in one statement and so see the same moment.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.commerce.store.audit import orders, settlement, statements, stock, suppliers
from services.commerce.store.audit.figures import FIGURES
from services.runtime.audit import Finding
from services.runtime.database import Connection, raw

CHECKS: Final = {
    **stock.CHECKS,
    **orders.CHECKS,
    **settlement.CHECKS,
    **statements.CHECKS,
    **suppliers.CHECKS,
}


async def run(
    connection: Connection, tenant_id: str, names: Sequence[str], *, now: datetime, machine_now: datetime
) -> list[Finding]:
    """What the checks find, in one statement: all of them see the same moment, whatever is sold meanwhile."""
    if not names:
        return []
    checks = " UNION ALL ".join(
        f"""
        SELECT '{name}' AS name, count(*) AS examined, count(*) FILTER (WHERE broken) AS broken,
               (array_agg(id) FILTER (WHERE broken))[1:5] AS first
        FROM ({CHECKS[name]}) AS checked
        """
        for name in names
    )
    return [
        Finding(
            check=row["name"],
            ok=row["broken"] == 0,
            examined=row["examined"],
            detail=f"{row['broken']} rows, first {', '.join(row['first'])}" if row["broken"] else "",
        )
        for row in await raw(connection).fetch(checks, tenant_id)
    ]


async def figures(connection: Connection, tenant_id: str) -> dict[str, int]:
    """The totals, by name."""
    return dict(await raw(connection).fetchrow(FIGURES, tenant_id))
