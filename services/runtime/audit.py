"""A service audits its own schema: its checks are its own; how they are asked and told is the same everywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from services.runtime import log, parking
from services.runtime.call import Call
from services.runtime.clock import Clock, SystemClock
from services.runtime.database import Connection, Database
from siyu.common.v1 import audit_pb2

MOST: Final = 2**63 - 1
"""Figures are told in 64 bits: a total beyond ends here. Checks sum in numeric, so that none fails for its size."""

SERVICE = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: whether it holds, over how many rows, and the first of those that break it."""

    check: str
    ok: bool
    examined: int
    detail: str


class Books(Protocol):
    """A service's checks and figures: the module `audit` of its store."""

    @property
    def CHECKS(self) -> Mapping[str, Any]:  # noqa: N802 - a module's constant
        """The checks by name, in the order in which they are told."""
        ...

    async def run(
        self, connection: Connection, tenant_id: str, names: Sequence[str], /, *, now: datetime, machine_now: datetime
    ) -> list[Finding]:
        """What the named checks find, at one business and one machine time."""
        ...

    async def figures(self, connection: Connection, tenant_id: str, /) -> dict[str, int]:
        """Named totals; another service that tells one of these names must tell the same number."""
        ...


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
    books: Books
    clock: Clock = field(default_factory=SystemClock)

    async def audit(self, call: Call, *, prefix: str) -> Audited:
        """Every check whose name starts with `prefix`, the figures if any does, in one snapshot; it changes nothing."""
        names = [name for name in self.books.CHECKS if name.startswith(prefix)]
        log_runs_on = f"{self.database.service}.log_runs_on"
        none_parked = f"{self.database.service}.no_event_is_parked"

        async def work(connection: Connection) -> Audited:
            findings = await self.books.run(
                connection, call.tenant_id, names, now=call.now, machine_now=self.clock.now()
            )
            if log_runs_on.startswith(prefix):
                findings.append(await _runs_on(connection, log_runs_on))
            positions = await log.positions(connection)
            # who stands nowhere follows nobody
            if positions and none_parked.startswith(prefix):
                findings.append(await _none_parked(connection, none_parked, call.tenant_id))
            return Audited(
                findings=tuple(findings),
                figures=await self.books.figures(connection, call.tenant_id) if names else {},
                positions=positions,
                heads=tuple((await log.heads(connection)).values()),
            )

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditServicer:
    """Serves AuditService."""

    desk: AuditDesk

    async def audit(self, request: audit_pb2.AuditRequest, call: Call) -> audit_pb2.AuditResponse:
        """What the audit finds."""
        audited = await self.desk.audit(call, prefix=request.check_prefix)
        return audit_pb2.AuditResponse(
            findings=[
                audit_pb2.AuditFinding(check=f.check, ok=f.ok, examined=f.examined, detail=f.detail)
                for f in audited.findings
            ],
            figures=audited.figures,
            positions=[
                audit_pb2.ConsumerPosition(
                    producer=p.producer,
                    queue=p.queue,
                    partition=p.partition,
                    seq=p.seq,
                    events_total=p.events_total,
                    checksum_total=p.checksum_total,
                )
                for p in audited.positions
            ],
            log=[
                audit_pb2.LogPosition(
                    partition=h.partition, seq=h.seq, events_total=h.events_total, checksum_total=h.checksum_total
                )
                for h in audited.heads
            ],
        )


async def _runs_on(connection: Connection, name: str) -> Finding:
    blocks, broken = await log.broken(connection)
    detail = (
        f"partitions {', '.join(map(str, broken))}: a block is missing, or the totals don't run on" if broken else ""
    )
    return Finding(check=name, ok=not broken, examined=blocks, detail=detail)


async def _none_parked(connection: Connection, name: str, tenant_id: str) -> Finding:
    """Consumers count what is parked as taken; that it has no effect in the books yet is told here."""
    parked = await parking.waiting(connection, tenant_id)
    detail = f"{parked.events} events have no effect here yet: {'; '.join(parked.told)}" if parked.events else ""
    return Finding(check=name, ok=not parked.events, examined=parked.events, detail=detail)
