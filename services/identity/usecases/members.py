"""Finding members, linking identifiers to them, and merging two."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.domain.events import Event, IdentifierLinked, MemberMerged
from services.identity.domain.members import Member, Merge, older_first
from services.identity.domain.refusals import (
    IdentifierTaken,
    OwnershipRace,
    PhoneNotVerified,
    SameMember,
    UnknownMember,
)
from services.identity.domain.registration import Found
from services.identity.store import merges
from services.identity.store.members import Link, Locked, Members
from services.identity.usecases.naming import Naming, Said
from services.identity.usecases.races import settled
from services.runtime.batching import Batcher
from services.runtime.call import Call
from services.runtime.database import Connection, Database, Lane
from services.runtime.errors import DomainError
from services.runtime.idempotency import Once
from services.runtime.ids import MemberId, new_id
from services.runtime.outbox import Outbox

Owner = tuple[MemberId, int]
Resolver = Batcher[Lane, bytes, Owner]


def resolver(lanes: Sequence[Lane], members: Members, *, max_queue: int) -> Resolver:
    """Answers who owns an identifier: whatever calls wait when a lane is free go in one statement."""

    async def owners(lane: Lane, tenant_id: str, lookups: Sequence[bytes]) -> list[Owner | DomainError]:
        found = await members.resolve(lane, tenant_id, lookups)
        return [found.get(lookup) or UnknownMember() for lookup in lookups]

    return Batcher(lanes, owners, name="resolve", max_queue=max_queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberDesk:
    """What can be asked of, and done with, members that exist."""

    database: Database
    members: Members
    naming: Naming
    resolver: Resolver
    outbox: Outbox[Event]

    async def resolve(self, call: Call, said: Said) -> Owner:
        """The member that owns the identifier, and its version; merges moved identifiers, so it is a live one.

        Raises UnknownMember; an unverified phone is a claim and finds nobody.
        """
        found = await self.naming.find(call.tenant_id, said)
        return await self.resolver.submit(call.tenant_id, found.lookup, deadline_at=call.deadline_at)

    async def get(self, call: Call, member_id: str) -> Member:
        """The member, or the one that it was merged into. Raises UnknownMember."""

        async def work(connection: Connection) -> Member:
            survivor = await self._survivor(connection, call.tenant_id, member_id)
            members = await self.members.load(connection, call.tenant_id, (survivor,))
            if survivor not in members:
                raise OwnershipRace
            return members[survivor]

        return await settled(lambda: self.database.read(call.tenant_id, work, timeout_s=call.remaining_s()))

    async def link(self, call: Call, once: Once[Member], *, member_id: str, said: Said) -> bytes:
        """Links an identifier to the member; the encoded member.

        Raises UnknownMember, IdentifierTaken, PhoneNotVerified.
        """
        found = await self.naming.find(call.tenant_id, said)

        async def work(connection: Connection) -> Member:
            survivor = await self._survivor(connection, call.tenant_id, member_id)
            locked = await self._lock(connection, call.tenant_id, survivor)
            ownership = await self.members.ownership_of(connection, call.tenant_id, (found.lookup,))
            owner = ownership.owners.get(found.lookup)
            if owner is None:
                await self._link(connection, call, found, locked[survivor])
            elif owner != survivor:
                raise IdentifierTaken((owner,))
            return (await self.members.load(connection, call.tenant_id, (survivor,)))[survivor]

        return await settled(lambda: once.run(self.database, work))

    async def merge(self, call: Call, once: Once[Merge], *, member_id: str, other_id: str, evidence: str) -> bytes:
        """Makes one member of two: the older survives, the other becomes its alias; the encoded merge.

        Raises UnknownMember, SameMember.
        """

        async def work(connection: Connection) -> Merge:
            one = await self._survivor(connection, call.tenant_id, member_id)
            other = await self._survivor(connection, call.tenant_id, other_id, field="other_member_id")
            if one == other:
                raise SameMember(one)
            locked = await self._lock(connection, call.tenant_id, one, other)
            older, younger = older_first(locked[one].age, locked[other].age)
            return await self._merge(
                connection, call, locked[older.member_id], merged=younger.member_id, evidence=evidence
            )

        return await settled(lambda: once.run(self.database, work))

    async def _survivor(
        self, connection: Connection, tenant_id: str, member_id: str, *, field: str = "member_id"
    ) -> MemberId:
        survivor = (await self.members.survivors_of(connection, tenant_id, (member_id,))).get(member_id)
        if survivor is None:
            raise UnknownMember(member_id, field=field)
        return survivor

    async def _lock(self, connection: Connection, tenant_id: str, *member_ids: MemberId) -> dict[MemberId, Locked]:
        """The members, locked and live. Raises OwnershipRace if a merge took one while we waited for its lock."""
        locked = await self.members.lock(connection, tenant_id, member_ids)
        if any(member.merged_into for member in locked.values()):
            raise OwnershipRace
        return locked

    async def _link(self, connection: Connection, call: Call, found: Found, member: Locked) -> None:
        if not found.named.owns:
            raise PhoneNotVerified
        assert member.data_key is not None, "an erased member was found"
        member_id = member.age.member_id
        version = member.version + 1
        link = Link(member_id=member_id, found=found, data_key=member.data_key, linked_at=call.now)
        await self.members.link(connection, call.tenant_id, (link,))
        await self.members.set_versions(connection, call.tenant_id, {member_id: version})
        event = IdentifierLinked(
            member_id=member_id, identifier_type=found.named.type, linked_at=call.now, version=version
        )
        await self.outbox.append(connection, call, event)

    async def _merge(
        self, connection: Connection, call: Call, survivor: Locked, *, merged: MemberId, evidence: str
    ) -> Merge:
        assert survivor.data_key is not None, "an erased member was found"
        survivor_id, merge_id = survivor.age.member_id, new_id()
        await merges.record(
            connection,
            call.tenant_id,
            merge_id=merge_id,
            survivor=survivor_id,
            merged=merged,
            evidence=evidence,
            evidence_key=survivor.data_key,
            merged_by=call.actor.id,
            occurred_at=call.now,
        )
        await merges.unite(connection, call.tenant_id, survivor=survivor_id, merged=merged)
        version = survivor.version + 1
        await self.members.set_versions(connection, call.tenant_id, {survivor_id: version})
        event = MemberMerged(
            merge_id=merge_id, member_id=survivor_id, merged_member_id=merged, merged_at=call.now, version=version
        )
        await self.outbox.append(connection, call, event)
        members = await self.members.load(connection, call.tenant_id, (survivor_id,))
        return Merge(merge_id=merge_id, survivor=members[survivor_id], merged_member_id=merged)
