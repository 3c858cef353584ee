"""Writes a use case's events in its own transaction; the relay numbers and publishes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Generic, TypeVar

from services.runtime.call import Call
from services.runtime.database import Connection, raw
from services.runtime.ids import new_id, stable_hash

E = TypeVar("E")

MAX_EVENTS = 1000

_APPEND = """
    INSERT INTO outbox (tenant_id, event_id, type, aggregate_type, aggregate_id, version, partition, payload,
                        occurred_at, trace)
    SELECT $1::uuid, e.event_id, e.type, e.aggregate_type, e.aggregate_id, e.version, e.partition, e.payload,
           e.occurred_at, $2
    FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::smallint[], $9::bytea[],
                $10::timestamptz[])
         AS e(event_id, type, aggregate_type, aggregate_id, version, partition, payload, occurred_at)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as it is stored. `partition_key` is the member's id, else the aggregate's: its events stay in order.

    `version` is the aggregate's after the change and rises with every event of the aggregate.
    """

    type: str
    aggregate_type: str
    aggregate_id: str
    version: int
    partition_key: str
    payload: bytes
    occurred_at: datetime


# no slots: `Outbox[T](…)` would fail on a slotted generic
@dataclass(frozen=True, kw_only=True)
class Outbox(Generic[E]):
    """A service's outbox: `encode` turns its domain events into what is stored."""

    encode: Callable[[E], Recorded]
    partitions: int

    async def append(self, connection: Connection, call: Call, *events: E) -> None:
        """Writes the events in one statement, in the caller's transaction; none is fine."""
        if events:
            await record(connection, call, [self.encode(event) for event in events], partitions=self.partitions)


async def record(connection: Connection, call: Call, events: Sequence[Recorded], *, partitions: int) -> None:
    """Writes stored forms of events; for who has no domain event of its own."""
    assert len(events) <= MAX_EVENTS, f"{len(events)} events in one transaction"
    await raw(connection).execute(
        _APPEND,
        call.tenant_id,
        call.trace,
        [new_id() for _ in events],
        [event.type for event in events],
        [event.aggregate_type for event in events],
        [event.aggregate_id for event in events],
        [event.version for event in events],
        [partition_of(event.partition_key, partitions) for event in events],
        [event.payload for event in events],
        [event.occurred_at for event in events],
    )


# who comes once mostly comes again, and a cryptographic hash takes 1 µs; call it by place, a keyword costs half of that
@lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """The partition of a member or aggregate, the same for ever: the number of partitions is fixed at installation."""
    return stable_hash(key) % partitions
