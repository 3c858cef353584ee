"""The audit of commerce's own books."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.commerce.domain.audit import Finding
from services.commerce.store import audit
from services.runtime import log
from services.runtime.call import Call
from services.runtime.database import Connection, Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """Findings in a fixed order, named totals, where our consumers stand, and the heads of our log."""

    findings: tuple[Finding, ...]
    figures: dict[str, int]
    positions: Sequence[log.Position]
    heads: Sequence[log.Head]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDesk:
    """Audits one tenant. `database` is on the system role."""

    database: Database

    async def audit(self, call: Call, *, prefix: str) -> Audited:
        """Every check whose name starts with `prefix`, the figures if any does; it changes nothing."""
        names = [name for name in audit.CHECKS if name.startswith(prefix)]

        async def work(connection: Connection) -> Audited:
            return Audited(
                findings=tuple(await audit.run(connection, call.tenant_id, names)),
                figures=await audit.figures(connection, call.tenant_id) if names else {},
                positions=await log.positions(connection),
                heads=tuple((await log.heads(connection)).values()),
            )

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
