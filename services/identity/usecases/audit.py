"""The audit of identity's own books."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.identity.domain.audit import Finding
from services.identity.store import audit
from services.runtime import log
from services.runtime.call import Call
from services.runtime.database import Connection, Database

LOG_RUNS_ON: Final = "identity.log_runs_on"


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
        """Everything whose name starts with `prefix`; it changes nothing."""

        async def work(connection: Connection) -> Audited:
            findings = [
                await audit.check(connection, call.tenant_id, name) for name in audit.CHECKS if name.startswith(prefix)
            ]
            if LOG_RUNS_ON.startswith(prefix):
                findings.append(await _log_runs_on(connection))
            return Audited(
                findings=tuple(findings),
                figures=await audit.figures(connection, call.tenant_id),
                positions=await log.positions(connection),
                heads=tuple((await log.heads(connection)).values()),
            )

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())


async def _log_runs_on(connection: Connection) -> Finding:
    blocks, broken = await log.broken(connection)
    detail = (
        f"partitions {', '.join(map(str, broken))}: a block is missing, or the totals don't run on" if broken else ""
    )
    return Finding(check=LOG_RUNS_ON, ok=not broken, examined=blocks, detail=detail)
