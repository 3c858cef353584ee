"""Events that were taken from a producer's log and could not be handled: kept until they can, in order.

A shelf holds what one tenant's events of one partition wait for one queue. What fails goes there in the transaction
that moves the cursor, and so does all that follows of that tenant while anything is on its shelf: whoever has the
cursor's row sees whether there is. An event leaves in the transaction of its effect, the first of the shelf head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.runtime.database import Connection, raw
from services.runtime.events import Event

BEHIND = "BEHIND"
"""The reason of an event that has not failed itself: one before it on its shelf has."""

MAX_SHELVES_AT_ONCE = 100
MAX_COUNTED = 10_000
MAX_TOLD = 3

_ON_SHELF = "tenant_id = $1::uuid AND producer = $2 AND queue = $3 AND partition = $4"
_PARK = """
    INSERT INTO parked_events (
        tenant_id, producer, queue, partition, seq, place, event_id, type, aggregate_type, aggregate_id, version,
        occurred_at, posted_at, payload, trace, reason
    )
    SELECT $1::uuid, $2::text, $3::text, $4::smallint, e.seq, e.place - 1, e.event_id, e.type, e.aggregate_type,
           e.aggregate_id, e.version, e.occurred_at, e.posted_at, e.payload, e.trace, $5::text
    FROM unnest($6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::timestamptz[],
                $13::timestamptz[], $14::bytea[], $15::text[])
         WITH ORDINALITY
         AS e(seq, event_id, type, aggregate_type, aggregate_id, version, occurred_at, posted_at, payload, trace, place)
"""
# in the order of their index, or the rows of another queue may be read on the way
_COUNT = """
    SELECT count(*)
    FROM (
        SELECT FROM parked_events
        WHERE producer = $1 AND queue = $2
        ORDER BY tenant_id, partition, seq, place
        LIMIT $3
    ) AS counted
"""
# From the first event of a shelf to the first of the next one: what waits behind them is not read.
_DUE = """
    WITH RECURSIVE heads AS (
        (
            SELECT tenant_id, partition, next_try_at FROM parked_events
            WHERE producer = $1 AND queue = $2
            ORDER BY tenant_id, partition, seq, place
            LIMIT 1
        )
        UNION ALL
        SELECT following.tenant_id, following.partition, following.next_try_at
        FROM heads
        CROSS JOIN LATERAL (
            SELECT tenant_id, partition, next_try_at FROM parked_events
            WHERE producer = $1 AND queue = $2 AND (tenant_id, partition) > (heads.tenant_id, heads.partition)
            ORDER BY tenant_id, partition, seq, place
            LIMIT 1
        ) AS following
    )
    SELECT tenant_id::text, partition
    FROM heads
    WHERE next_try_at <= now()
    -- by chance: those that wait for something that passes stay due, and must not take the others' turns
    ORDER BY random()
    LIMIT $3
"""
# The first of the shelf, or nothing: whoever holds its row has the shelf, and the next one waits its turn elsewhere.
# SKIP LOCKED passes over one named row and never to the one behind it.
_HOLD_FIRST = f"""
    SELECT seq, place, event_id, type, aggregate_type, aggregate_id, attempts
    FROM parked_events
    WHERE {_ON_SHELF}
      AND (seq, place) = (SELECT seq, place FROM parked_events WHERE {_ON_SHELF} ORDER BY seq, place LIMIT 1)
      AND next_try_at <= now()
    FOR UPDATE SKIP LOCKED
"""
_TAKE = f"""
    WITH front AS (
        SELECT seq, place FROM parked_events WHERE {_ON_SHELF} ORDER BY seq, place LIMIT $5
    ), last AS (
        SELECT seq, place FROM front ORDER BY seq DESC, place DESC LIMIT 1
    ), taken AS (
        DELETE FROM parked_events
        WHERE {_ON_SHELF} AND (seq, place) <= (SELECT seq, place FROM last)
        RETURNING seq, place, event_id, type, tenant_id, aggregate_type, aggregate_id, version, occurred_at, posted_at,
                  payload, trace
    )
    SELECT event_id AS id, type, tenant_id::text, aggregate_type, aggregate_id, version, occurred_at, posted_at,
           payload, trace
    FROM taken
    ORDER BY seq, place
"""
# two processes may both have tried: one of the tries counts
_FAILED = f"""
    UPDATE parked_events
    SET attempts = attempts + 1, reason = $7, next_try_at = now() + make_interval(secs => $8)
    WHERE {_ON_SHELF} AND seq = $5 AND place = $6 AND attempts = $9
"""
_OF_TENANT = """
    WITH shelves AS (
        SELECT producer, queue, partition, count(*) AS events
        FROM parked_events
        WHERE tenant_id = $1::uuid
        GROUP BY producer, queue, partition
    )
    SELECT s.producer, s.queue, s.partition, s.events, sum(s.events) OVER ()::bigint AS of_tenant,
           head.type, head.event_id, head.aggregate_type, head.aggregate_id, head.reason, head.attempts,
           head.parked_at
    FROM shelves s
    CROSS JOIN LATERAL (
        SELECT type, event_id, aggregate_type, aggregate_id, reason, attempts, parked_at
        FROM parked_events
        WHERE tenant_id = $1::uuid AND producer = s.producer AND queue = s.queue AND partition = s.partition
        ORDER BY seq, place
        LIMIT 1
    ) head
    ORDER BY head.parked_at, s.producer, s.queue, s.partition
    LIMIT $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Where one tenant's events of one partition are parked."""

    tenant_id: str
    producer: str
    queue: str
    partition: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What leads the parameters of every statement about a shelf."""
        return self.tenant_id, self.producer, self.queue, self.partition


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """The event that is in the way of its shelf's others; `attempts` that failed since it is parked."""

    seq: int
    place: int
    event_id: str
    type: str
    aggregate_type: str
    aggregate_id: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What is parked of a tenant, for the audit: how many events, and what is in the way on the oldest shelves."""

    events: int
    told: tuple[str, ...]


async def park(
    connection: Connection, shelf: Shelf, events: Sequence[tuple[int, Event]], *, reason: str = BEHIND
) -> None:
    """Puts the events, each with the number of its block, behind all that the shelf holds."""
    of_events = [event for _, event in events]
    await raw(connection).execute(
        _PARK,
        *shelf.key,
        reason,
        [seq for seq, _ in events],
        [event.id for event in of_events],
        [event.type for event in of_events],
        [event.aggregate_type for event in of_events],
        [event.aggregate_id for event in of_events],
        [event.version for event in of_events],
        [event.occurred_at for event in of_events],
        [event.posted_at for event in of_events],
        [event.payload for event in of_events],
        [event.trace for event in of_events],
    )


async def count(connection: Connection, *, producer: str, queue: str) -> int:
    """How many events are parked of all tenants, up to 10,000; on the system role."""
    counted: int = await raw(connection).fetchval(_COUNT, producer, queue, MAX_COUNTED)
    return counted


async def due(connection: Connection, *, producer: str, queue: str) -> tuple[Shelf, ...]:
    """The shelves whose first event may be tried now, a bounded number; on the system role."""
    rows = await raw(connection).fetch(_DUE, producer, queue, MAX_SHELVES_AT_ONCE)
    return tuple(
        Shelf(tenant_id=row["tenant_id"], producer=producer, queue=queue, partition=row["partition"]) for row in rows
    )


async def hold_first(connection: Connection, shelf: Shelf) -> First | None:
    """The first event, held until the transaction ends; None where there is none, it is not due, or another has it."""
    row = await raw(connection).fetchrow(_HOLD_FIRST, *shelf.key)
    return None if row is None else First(**row)


async def take(connection: Connection, shelf: Shelf, *, limit: int) -> tuple[Event, ...]:
    """Removes up to `limit` events from the front, and returns them; only for who holds the first."""
    return tuple(Event(**row) for row in await raw(connection).fetch(_TAKE, *shelf.key, limit))


async def failed(connection: Connection, shelf: Shelf, first: First, *, reason: str, next_try_s: float) -> None:
    """Notes one more attempt in vain, and when the next one is due."""
    await raw(connection).execute(_FAILED, *shelf.key, first.seq, first.place, reason, next_try_s, first.attempts)


async def waiting(connection: Connection, tenant_id: str) -> Waiting:
    """What is parked of the tenant, in words, for the audit."""
    rows = await raw(connection).fetch(_OF_TENANT, tenant_id, MAX_TOLD)
    return Waiting(events=rows[0]["of_tenant"] if rows else 0, told=tuple(_told(row) for row in rows))


def _told(row: Any) -> str:
    event = f"{row['type']} {row['event_id']} of {row['aggregate_type']} {row['aggregate_id']}"
    behind = f", {row['events'] - 1} wait behind it" if row["events"] > 1 else ""
    return (
        f"queue {row['queue']} can't handle {event} ({row['producer']}'s log, partition {row['partition']}): "
        f"{row['reason']}, parked {row['parked_at']:%Y-%m-%d %H:%M} UTC, tried again {row['attempts']} times{behind}"
    )
