"""AuditService over commerce's schema."""

from dataclasses import dataclass

from services.commerce.usecases.audit import AuditDesk
from services.runtime.call import Call
from siyu.common.v1 import audit_pb2

SERVICE = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]


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
