"""Signing up members, one or hundreds: each finds the member that owns its identifiers, or becomes a new one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.identity.domain.events import Event, IdentifierLinked, MemberRegistered
from services.identity.domain.members import Member, sign_up_time
from services.identity.domain.refusals import OwnershipRace, UnknownStore
from services.identity.domain.registration import Registered, SignUp, distinct, register_all
from services.identity.store import requests, stores
from services.identity.store.members import Link, Locked, Members, NewMember
from services.identity.usecases.naming import Naming, Said
from services.identity.usecases.races import settled
from services.runtime.call import Call
from services.runtime.database import Connection, Database
from services.runtime.errors import AlreadyExists, DomainError
from services.runtime.idempotency import REQUEST_ID_REUSED
from services.runtime.ids import MemberId, new_id
from services.runtime.outbox import MAX_EVENTS, Outbox

FAMILY: Final = "identity.members"
Answer = bytes | DomainError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One person to sign up, under a request id; `fingerprint` is of everything else that was said."""

    request_id: str
    fingerprint: bytes
    identifiers: tuple[Said, ...]
    display_name: str
    channel: str
    store_id: str
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedUp:
    """The member of a sign-up."""

    member: Member
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a batch will write: verdicts by sign-up, and the existing members that get identifiers, locked."""

    verdicts: tuple[Registered | DomainError, ...]
    locked: Mapping[MemberId, Locked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Registers members. `encode` turns a result into the stored reply."""

    database: Database
    members: Members
    naming: Naming
    outbox: Outbox[Event]
    encode: Callable[[SignedUp], bytes]

    async def register(self, call: Call, asks: Sequence[Ask]) -> tuple[Answer, ...]:
        """One answer an ask, in order: the encoded result, or its refusal, which fails no neighbour.

        One transaction for all; it runs again when another call registers one of the same people at this moment.
        """
        await self.naming.prepare(call.tenant_id)
        prepared = [self._prepare(call, ask) for ask in asks]

        async def once() -> tuple[Answer, ...]:
            return await self.database.run(
                call.tenant_id,
                lambda connection: self._register(connection, call, asks, prepared),
                timeout_s=call.remaining_s(),
            )

        return await settled(once)

    def _prepare(self, call: Call, ask: Ask) -> SignUp | DomainError:
        try:
            store_id = ask.store_id or call.actor.store_id
            if ask.store_id:
                call.actor.check_store(ask.store_id, field="sign_up_store_id")
            return SignUp(
                member_id=MemberId(new_id()),
                identifiers=distinct(self.naming.find_now(call.tenant_id, said) for said in ask.identifiers),
                display_name=ask.display_name,
                channel=ask.channel,
                store_id=store_id,
                signed_up_at=sign_up_time(ask.occurred_at, now=call.now),
            )
        except DomainError as refusal:
            return refusal

    async def _register(
        self, connection: Connection, call: Call, asks: Sequence[Ask], prepared: Sequence[SignUp | DomainError]
    ) -> tuple[Answer, ...]:
        before = await requests.find(connection, call, FAMILY, sorted({ask.request_id for ask in asks}))
        known = await stores.known(
            connection,
            call.tenant_id,
            (item.store_id for item in prepared if isinstance(item, SignUp) and item.store_id),
        )
        answers: dict[int, Answer] = {}
        first: dict[str, int] = {}
        todo: dict[int, SignUp] = {}
        for at, (ask, item) in enumerate(zip(asks, prepared, strict=True)):
            if ask.request_id in before:
                earlier = before[ask.request_id]
                answers[at] = earlier.reply if earlier.fingerprint == ask.fingerprint else _reused(ask)
            elif ask.request_id in first:
                # the same request twice in one batch; answered below, when the first has its answer
                continue
            elif isinstance(item, DomainError):
                answers[at] = item
            elif item.store_id and item.store_id not in known:
                answers[at] = UnknownStore(item.store_id)
            else:
                first[ask.request_id] = at
                todo[at] = item
        answers |= await self._write(connection, call, todo)
        fresh = [
            requests.Answered(request_id=request_id, fingerprint=asks[at].fingerprint, reply=answer)
            for request_id, at in first.items()
            if isinstance(answer := answers[at], bytes)
        ]
        await requests.store(connection, call, FAMILY, fresh)
        return tuple(
            answers[at]
            if at in answers
            else _same_answer(ask, asks[first[ask.request_id]], answers[first[ask.request_id]])
            for at, ask in enumerate(asks)
        )

    async def _write(self, connection: Connection, call: Call, todo: Mapping[int, SignUp]) -> dict[int, Answer]:
        if not todo:
            return {}
        sign_ups = tuple(todo.values())
        plan = await self._plan(connection, call.tenant_id, sign_ups)
        versions, events = _events(sign_ups, plan)
        await self._write_members(connection, call, sign_ups, plan, versions)
        for start in range(0, len(events), MAX_EVENTS):
            await self.outbox.append(connection, call, *events[start : start + MAX_EVENTS])
        members = await self.members.load(
            connection, call.tenant_id, (v.member_id for v in plan.verdicts if isinstance(v, Registered))
        )
        answers: dict[int, Answer] = {}
        for at, verdict in zip(todo, plan.verdicts, strict=True):
            if isinstance(verdict, DomainError):
                answers[at] = verdict
            elif verdict.member_id not in members:
                # merged away between our look and now
                raise OwnershipRace
            else:
                answers[at] = self.encode(SignedUp(member=members[verdict.member_id], created=verdict.created))
        return answers

    async def _plan(self, connection: Connection, tenant_id: str, sign_ups: Sequence[SignUp]) -> _Plan:
        known = await self.members.ownership_of(
            connection, tenant_id, (found.lookup for sign_up in sign_ups for found in sign_up.identifiers)
        )
        verdicts = register_all(sign_ups, known)
        made = {v.member_id for v in verdicts if isinstance(v, Registered) and v.created}
        growing = {v.member_id for v in verdicts if isinstance(v, Registered) and v.links} - made
        locked = await self.members.lock(connection, tenant_id, growing)
        if any(member.merged_into for member in locked.values()):
            raise OwnershipRace
        assert locked.keys() == growing, "an identifier without a member"
        return _Plan(verdicts=verdicts, locked=locked)

    async def _write_members(
        self,
        connection: Connection,
        call: Call,
        sign_ups: Sequence[SignUp],
        plan: _Plan,
        versions: Mapping[MemberId, int],
    ) -> None:
        keys: dict[MemberId, bytes] = {}
        created: list[NewMember] = []
        for sign_up, verdict in zip(sign_ups, plan.verdicts, strict=True):
            if isinstance(verdict, Registered) and verdict.created:
                key = keys[verdict.member_id] = self.members.fresh_key()
                created.append(NewMember(sign_up=sign_up, version=versions[verdict.member_id], data_key=key))
        for member_id, locked in plan.locked.items():
            assert locked.data_key is not None, "an erased member owns identifiers"
            keys[member_id] = locked.data_key
        links = [
            Link(
                member_id=verdict.member_id,
                found=found,
                data_key=keys[verdict.member_id],
                linked_at=sign_up.signed_up_at,
            )
            for sign_up, verdict in zip(sign_ups, plan.verdicts, strict=True)
            if isinstance(verdict, Registered)
            for found in verdict.links
        ]
        await self.members.add(connection, call.tenant_id, created)
        await self.members.link(connection, call.tenant_id, links)
        await self.members.set_versions(
            connection, call.tenant_id, {member_id: versions[member_id] for member_id in plan.locked}
        )


def _events(sign_ups: Sequence[SignUp], plan: _Plan) -> tuple[dict[MemberId, int], list[Event]]:
    """The members' versions after the batch, and its events: each raises its member's version by one."""
    versions = {member_id: locked.version for member_id, locked in plan.locked.items()}
    events: list[Event] = []
    for sign_up, verdict in zip(sign_ups, plan.verdicts, strict=True):
        if isinstance(verdict, DomainError):
            continue
        member_id = verdict.member_id
        if verdict.created:
            versions[member_id] = 1
            events.append(
                MemberRegistered(
                    member_id=member_id,
                    channel=sign_up.channel,
                    store_id=sign_up.store_id,
                    signed_up_at=sign_up.signed_up_at,
                    identifier_types=tuple(found.named.type for found in verdict.links),
                    version=1,
                )
            )
            continue
        for found in verdict.links:
            versions[member_id] += 1
            events.append(
                IdentifierLinked(
                    member_id=member_id,
                    identifier_type=found.named.type,
                    linked_at=sign_up.signed_up_at,
                    version=versions[member_id],
                )
            )
    return versions, events


def _reused(ask: Ask) -> AlreadyExists:
    return AlreadyExists(
        "this request id was used with another body; a new request needs a new id",
        reason=REQUEST_ID_REUSED,
        metadata={"request_id": ask.request_id},
    )


def _same_answer(ask: Ask, first: Ask, answer: Answer) -> Answer:
    return answer if ask.fingerprint == first.fingerprint else _reused(ask)
