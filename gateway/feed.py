"""The event feed: one tenant's events out of the logs of all services, page by page, from a cursor.

Within one service and partition, and so for one member or order, events come in order; between partitions there is
none. The feed keeps nothing: the logs do, for seven days.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from gateway.contracts import messages
from gateway.cursor import Cursor, CursorSeal
from services.runtime.call import Call
from services.runtime.errors import DomainError, Refused, TimedOut, Unavailable
from services.runtime.log import EVENTS_TRUNCATED, unpack
from siyu.common.v1 import event_pb2, feed_pb2

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
BLOCKS_PER_READ = 8
READS_AT_ONCE = 4

Start = Literal["oldest", "now"]
At = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How the services' logs are read, in the tenant of the call."""

    heads: Callable[[str, Call], Awaitable[feed_pb2.GetHeadsResponse]]
    """By service."""
    read: Callable[[str, feed_pb2.ReadLogRequest, Call], Awaitable[feed_pb2.ReadLogResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some events and where to go on. `away` names the services that did not answer; their events come later."""

    events: tuple[dict[str, Any], ...]
    next_cursor: str
    has_more: bool
    away: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """What the partner gets."""
        return {
            "events": list(self.events),
            "nextCursor": self.next_cursor,
            "hasMore": self.has_more,
            "unavailableServices": list(self.away),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What one partition gave: the events, and where it is now."""

    events: tuple[event_pb2.EventEnvelope, ...]
    position: int
    inside: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What all partitions gave, where the page ends, how many partitions had their turn, and who is away since."""

    events: tuple[event_pb2.EventEnvelope, ...]
    at: Cursor
    partitions: int
    away: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Reads the logs of `services`, in this order."""

    services: tuple[str, ...]
    logs: Logs
    seal: CursorSeal

    async def page(self, call: Call, *, cursor: str, limit: int, start: Start) -> Page:
        """Up to `limit` events after the cursor; without one, from the oldest that is kept or from now on.

        Raises Invalid for a cursor that is not this tenant's, and Refused (EVENTS_TRUNCATED, with a `restart_cursor`)
        for one that lies before what is kept."""
        heads, away = await self._heads(call)
        if cursor:
            at = self.seal.read(cursor, tenant_id=call.tenant_id)
            self._check_kept(at, heads, call)
        elif away:
            # a start that leaves a service out would tell its old events as new ones, or as lost
            raise Unavailable(f"{' and '.join(away)} can't be read right now; start again in a moment")
        else:
            at = _from_oldest(heads) if start == "oldest" else _from_now(heads)
        ahead = [place for place in sorted(heads) if at.after(*place) < heads[place].seq]
        turn = at.turn % len(ahead) if ahead else 0
        read = await self._read(call, at, [*ahead[turn:], *ahead[:turn]], limit)
        moved = Cursor(positions=read.at.positions, taken=read.at.taken, turn=turn + read.partitions if ahead else 0)
        return Page(
            events=tuple(as_json(event) for event in read.events),
            next_cursor=self.seal.write(moved, tenant_id=call.tenant_id),
            # of what can be read: whoever waits for a service that is away would ask without end
            has_more=any(moved.after(*place) < heads[place].seq for place in ahead if place[0] not in read.away),
            away=tuple(name for name in self.services if name in away or name in read.away),
        )

    async def _heads(self, call: Call) -> tuple[dict[At, feed_pb2.LogHead], tuple[str, ...]]:
        """The heads by service and partition, and the services that did not answer. Raises if none did."""
        found = await asyncio.gather(*(self.logs.heads(name, call) for name in self.services), return_exceptions=True)
        heads: dict[At, feed_pb2.LogHead] = {}
        failed: dict[str, DomainError] = {}
        for name, reply in zip(self.services, found, strict=True):
            if isinstance(reply, Unavailable | TimedOut):
                failed[name] = reply
            elif isinstance(reply, BaseException):
                raise reply
            else:
                heads.update({(name, head.partition): head for head in reply.heads})
        if len(failed) == len(self.services):
            raise next(iter(failed.values()))
        return heads, tuple(failed)

    def _check_kept(self, at: Cursor, heads: Mapping[At, feed_pb2.LogHead], call: Call) -> None:
        behind = {place: head.floor_seq - 1 for place, head in heads.items() if at.after(*place) + 1 < head.floor_seq}
        if behind:
            restart = Cursor(
                positions={**at.positions, **behind},
                taken={place: count for place, count in at.taken.items() if place not in behind},
                turn=at.turn,
            )
            raise Refused(
                "events after this cursor are no longer kept; read the state anew and go on with the restart cursor",
                subject="cursor",
                reason=EVENTS_TRUNCATED,
                metadata={"restart_cursor": self.seal.write(restart, tenant_id=call.tenant_id)},
            )

    async def _read(self, call: Call, at: Cursor, ahead: Sequence[At], limit: int) -> _Read:
        """Reads partition by partition until the page is full. A service that dies meanwhile is where it was."""
        events: list[event_pb2.EventEnvelope] = []
        positions, taken, read = dict(at.positions), dict(at.taken), 0
        away: set[str] = set()
        for group in (ahead[first : first + READS_AT_ONCE] for first in range(0, len(ahead), READS_AT_ONCE)):
            replies = await self._replies(call, at, group, away)
            for place, reply in zip(group, replies, strict=True):
                if len(events) == limit:
                    break
                if reply is None:
                    away.add(place[0])
                    read += 1
                    continue
                part = _take(
                    reply, call.tenant_id, skip=taken.get(place, 0), room=limit - len(events), after=at.after(*place)
                )
                events.extend(part.events)
                positions[place] = part.position
                taken[place] = part.inside
                read += 1
            if len(events) == limit:
                break
        kept = {place: count for place, count in taken.items() if count}
        moved = Cursor(positions=positions, taken=kept, turn=at.turn)
        return _Read(events=tuple(events), at=moved, partitions=read, away=frozenset(away))

    async def _replies(
        self, call: Call, at: Cursor, group: Sequence[At], away: Set[str]
    ) -> list[feed_pb2.ReadLogResponse | None]:
        """What each partition's service told; None where it is away, or is known to be, and is not waited for again."""
        asked = [place for place in group if place[0] not in away]
        reads = (self._blocks(call, place, at.after(*place)) for place in asked)
        found = dict(zip(asked, await asyncio.gather(*reads, return_exceptions=True), strict=True))
        told: list[feed_pb2.ReadLogResponse | None] = []
        for reply in (found.get(place) for place in group):
            if isinstance(reply, BaseException) and not isinstance(reply, Unavailable | TimedOut):
                raise reply
            told.append(None if isinstance(reply, BaseException) else reply)
        return told

    async def _blocks(self, call: Call, place: At, after_seq: int) -> feed_pb2.ReadLogResponse:
        service, partition = place
        request = feed_pb2.ReadLogRequest(
            partition=partition, after_seq=after_seq, max_blocks=BLOCKS_PER_READ, only_tenant_id=call.tenant_id
        )
        return await self.logs.read(service, request, call)


def _take(reply: feed_pb2.ReadLogResponse, tenant_id: str, *, skip: int, room: int, after: int) -> _Taken:
    """Up to `room` events of the blocks, without the first `skip`, which went out with an earlier page."""
    events: list[event_pb2.EventEnvelope] = []
    position = after
    for block in reply.blocks:
        # the service filters by tenant; an event of another's would be a leak, so it is looked at here once more
        assert block.tenant_id == tenant_id, "a log gave a block of another tenant"
        of_block = unpack(block.payload).events
        wanted = of_block[skip : skip + room - len(events)]
        events.extend(wanted)
        if skip + len(wanted) < len(of_block):
            return _Taken(events=tuple(events), position=position, inside=skip + len(wanted))
        position, skip = block.seq, 0
    return _Taken(events=tuple(events), position=max(position, reply.next_seq), inside=0)


def _from_oldest(heads: Mapping[At, feed_pb2.LogHead]) -> Cursor:
    return Cursor(positions={place: max(0, head.floor_seq - 1) for place, head in heads.items()})


def _from_now(heads: Mapping[At, feed_pb2.LogHead]) -> Cursor:
    return Cursor(positions={place: head.seq for place, head in heads.items()})


def as_json(event: event_pb2.EventEnvelope) -> dict[str, Any]:
    """An event as protobuf's JSON writes it, its payload by its type."""
    return {
        "eventId": event.event_id,
        "type": event.type,
        "aggregateType": event.aggregate_type,
        "aggregateId": event.aggregate_id,
        "aggregateVersion": str(event.aggregate_version),
        "occurredAt": event.occurred_at.ToJsonString(),
        "postedAt": event.posted_at.ToJsonString(),
        "payload": payload_as_json(event.type, event.payload),
    }


def payload_as_json(type_name: str, payload: bytes) -> dict[str, Any]:
    """The payload's fields. An event of a type that this edge does not know yet keeps its bytes, as base64."""
    service, _, name = type_name.partition(".")
    descriptor = messages().get(f"siyu.{service}.v1.{name}")
    if descriptor is not None:
        try:
            message = GetMessageClass(descriptor).FromString(payload)
        except DecodeError:
            pass
        else:
            found: dict[str, Any] = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
            return found
    return {"@type": f"siyu.{service}.v1.{name}", "value": base64.b64encode(payload).decode()}
