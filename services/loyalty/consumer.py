"""The queues of loyalty: `accrual` follows commerce, `members` follows identity."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.loyalty import convert
from services.loyalty.usecases.members import MemberFollowing
from services.loyalty.usecases.orders import OrderPosting
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class AccrualQueue:
    """Payments earn, refunds are their inverse."""

    posting: OrderPosting

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        """Posts a batch of commerce's events in one transaction."""
        facts = [convert.fact(event) for event in events]
        await self.posting.post(connection, call, [fact for fact in facts if fact is not None])


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersQueue:
    """Tenants and merges."""

    following: MemberFollowing

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        """Applies a batch of identity's events in one transaction."""
        told = [convert.told(event) for event in events]
        await self.following.follow(connection, call, [each for each in told if each is not None])
