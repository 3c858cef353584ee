"""What campaign does with the other services' events: a block of one tenant's at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.campaign import convert
from services.campaign.usecases import members
from services.campaign.usecases.usage import UsageRecorder
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.events import Event

ORDER_PAID = "commerce.OrderPaid"
LINE_REFUNDED = "commerce.LineRefunded"
TENANT_CHANGED = "identity.TenantChanged"
MEMBER_MERGED = "identity.MemberMerged"


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageHandler:
    """Queue "usage", over commerce's events."""

    recorder: UsageRecorder

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        """Records what orders used and refunds brought back; other events say nothing about either."""
        await self.recorder.record(
            connection,
            call,
            orders=[convert.paid_order(event.payload) for event in events if event.type == ORDER_PAID],
            refunds=[convert.refund(event.payload) for event in events if event.type == LINE_REFUNDED],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersHandler:
    """Queue "members", over identity's events."""

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        """Follows tenants and merges."""
        await members.follow(
            connection,
            call,
            changed=[convert.tenant(event.payload) for event in events if event.type == TENANT_CHANGED],
            merges=[convert.merge(event.payload) for event in events if event.type == MEMBER_MERGED],
        )
