"""Consumes another service's events exactly once and in order.

The cursor moves in the transaction of the effect, and only from where it was read: a block that comes twice finds it
moved, a block that is missing is fetched from the producer's log. An event that cannot be handled is parked after a few
attempts with all that follows of its tenant in its partition, and tried again from there: skipping it would be losing
it, and waiting for it would stop every other tenant of the partition.
"""

import asyncio
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.trace import SpanKind
from prometheus_client import Gauge

from services.runtime import log, parking, telemetry
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.events import (
    EVENTS,
    FAILURES,
    HANDLE_TIMEOUT_S,
    PASSING,
    Event,
    Handler,
    Queue,
    reason_of,
    stack_of,
)
from services.runtime.feed import FeedChannel
from services.runtime.leases import pause
from services.runtime.parking import Shelf
from services.runtime.reading import REDIS_TIMEOUT_S, Block, Heads, PartitionState, Reader, StuckError
from services.runtime.relay import redis_client, stream_of
from services.runtime.tenants import TenantNotReady, Tenants
from services.runtime.unparking import Unparking

MAX_EVENTS = 500
SHORTEST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 15.0
LEAVE_TO_OTHERS_S = (0.5, 2.0)
OUTAGE_BACKOFF_S = 1.0
ATTEMPTS_BEFORE_PARKING = 3

STUCK = Gauge("siyu_consumer_stuck", "1 while a partition does not go on", ["service", "queue", "partition"])

_log = structlog.get_logger(__name__)

_LOAD_CURSOR = """
    SELECT seq, events_total, checksum_total
    FROM cursors
    WHERE producer = $1 AND queue = $2 AND partition = $3
"""
_MAKE_CURSOR = """
    INSERT INTO cursors (producer, queue, partition) VALUES ($1, $2, $3)
    ON CONFLICT (producer, queue, partition) DO NOTHING
"""
# and whether anything of the tenant is parked there: what follows may not overtake it
_MOVE_CURSOR = """
    UPDATE cursors
    SET seq = $5, events_total = $6, checksum_total = $7, moved_at = now()
    WHERE producer = $1 AND queue = $2 AND partition = $3 AND seq = $4
    RETURNING EXISTS (
        SELECT FROM parked_events p
        WHERE p.tenant_id = $8::uuid AND p.producer = $1 AND p.queue = $2 AND p.partition = $3
    )
"""


@dataclass(frozen=True, slots=True)
class _Cursor:
    seq: int = 0
    events_total: int = 0
    checksum_total: int = 0


class MovedError(Exception):
    """Another process moved the cursor; this one's transaction is undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Neighbouring blocks of one tenant: their events, each with the number of its block, and the last number."""

    tenant_id: str
    seq: int
    events: list[tuple[int, Event]]
    is_one_block: bool

    def with_next(self, following: "_Batch") -> "_Batch | None":
        """Both as one, unless they are of two tenants or too many."""
        if self.tenant_id != following.tenant_id or len(self.events) + len(following.events) > MAX_EVENTS:
            return None
        events = [*self.events, *following.events]
        return _Batch(tenant_id=self.tenant_id, seq=following.seq, events=events, is_one_block=False)


@dataclass(slots=True)
class _Trial:
    """The attempts in vain at the block that follows a cursor. Other processes count their own."""

    after_seq: int = -1
    attempts: int = 0

    def is_over(self, after_seq: int) -> bool:
        """Counts one more; True when no other is due before the block is parked."""
        if self.after_seq != after_seq:
            self.after_seq, self.attempts = after_seq, 0
        self.attempts += 1
        return self.attempts >= ATTEMPTS_BEFORE_PARKING


class Consumer:
    """One queue of one service over one producer's events.

    Several processes may run the same queue; the cursor lets one of them through, block by block.
    """

    def __init__(
        self,
        *,
        service: str,
        producer: str,
        queue: str,
        database: Database,
        system: Database,
        redis_url: str,
        feed_channel: FeedChannel,
        handler: Handler,
        tenants: Tenants,
        partitions: int,
    ) -> None:
        """`database` is on the app role, `system` looks over all tenants; `partitions` is the producer's number."""
        self.states: dict[int, PartitionState] = dict.fromkeys(range(partitions), PartitionState.RUNNING)
        self._queue = Queue(
            service=service, producer=producer, name=queue, database=database, handler=handler, tenants=tenants
        )
        self._unparking = Unparking(queue=self._queue, system=system)
        self._redis_url = redis_url
        self._feed = feed_channel
        self._partitions = partitions
        self._heads = Heads(feed=feed_channel, reader=f"{service}.{queue}")

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes every partition, and what is parked, until told to stop; what is being handled is finished."""
        async with asyncio.TaskGroup() as group:
            for partition in range(self._partitions):
                group.create_task(self._run_partition(partition, stop))
            group.create_task(self._unparking.run(stop))

    async def _run_partition(self, partition: int, stop: asyncio.Event) -> None:
        reader = Reader(
            stream=stream_of(self._queue.producer, partition),
            partition=partition,
            redis=redis_client(self._redis_url, timeout_s=REDIS_TIMEOUT_S),
            feed=self._feed,
            heads=self._heads,
        )
        try:
            await self._consume(reader, partition, stop)
        finally:
            await reader.close()

    async def _consume(self, reader: Reader, partition: int, stop: asyncio.Event) -> None:
        failures = 0
        trial = _Trial()
        cursor: _Cursor | None = None
        while not stop.is_set():
            try:
                cursor = cursor or await self._load_cursor(partition)
                self._heads.positions[partition] = cursor.seq
                blocks = await reader.after(cursor.seq, stop)
                if blocks:
                    # until it is answered nobody knows whether the cursor in the database has moved
                    known, cursor = cursor, None
                    batches = _batches(blocks, one_by_one=failures > 0)
                    cursor = await self._advance(partition, known, batches, trial)
                self._mark(partition, PartitionState.RUNNING)
                failures = 0
            except MovedError:
                # another process works on this partition: leave it to it, and see later whether it still does
                await pause(stop, random.uniform(*LEAVE_TO_OTHERS_S))  # noqa: S311 - jitter
            except Exception as error:  # noqa: BLE001 - a bug of any kind must not end the queue
                failures += 1
                if not isinstance(error, PASSING):
                    cursor = None
                reader.distrust()
                self._tell(partition, error, failures)
                await pause(stop, _backoff_s(failures, error))

    async def _advance(self, partition: int, cursor: _Cursor, batches: Iterator[_Batch], trial: _Trial) -> _Cursor:
        """Handles the batches in turn, and parks the one at which its trial is over."""
        for batch in batches:
            try:
                cursor = await self._handle(partition, cursor, batch)
            except MovedError:
                raise
            except Exception as error:
                # the first failure only says where to go on block by block: one of several is to blame
                if not batch.is_one_block or not await self._queue.is_their_own(error) or not trial.is_over(cursor.seq):
                    raise
                cursor = await self._park(partition, cursor, batch, error)
        return cursor

    async def _handle(self, partition: int, cursor: _Cursor, batch: _Batch) -> _Cursor:
        """Makes the batch's effect, or parks it where events of its tenant are parked that come before it."""
        moved = _moved(cursor, batch)
        events = [event for _, event in batch.events]
        tenant, not_ready = None, None
        try:
            tenant = await self._queue.tenant(batch.tenant_id)
        except TenantNotReady as error:
            not_ready = error
        with telemetry.entered(self._queue.span, events[0].trace, kind=SpanKind.CONSUMER) as trace:
            call = self._queue.call(batch.tenant_id, tenant, trace)

            async def work(connection: Connection) -> bool:
                # the cursor first: whoever comes second waits here, and does not make the effect in vain
                is_behind = await self._move(connection, partition, cursor, moved, batch.tenant_id)
                if is_behind:
                    await parking.park(connection, self._shelf(batch.tenant_id, partition), batch.events)
                elif not_ready:
                    raise not_ready
                else:
                    await self._queue.handler(connection, events, call)
                return is_behind

            is_parked = await self._queue.database.run(batch.tenant_id, work, timeout_s=HANDLE_TIMEOUT_S)
        if not is_parked:
            EVENTS.labels(self._queue.service, self._queue.name).inc(len(events))
        return moved

    async def _park(self, partition: int, cursor: _Cursor, batch: _Batch, error: Exception) -> _Cursor:
        """Moves on over a batch that cannot be handled, and keeps its events."""
        moved = _moved(cursor, batch)
        reason = reason_of(error)

        async def work(connection: Connection) -> None:
            await self._move(connection, partition, cursor, moved, batch.tenant_id)
            shelf = self._shelf(batch.tenant_id, partition)
            await parking.park(connection, shelf, batch.events, reason=reason)

        await self._queue.database.run(batch.tenant_id, work, timeout_s=HANDLE_TIMEOUT_S)
        FAILURES.labels(self._queue.service, self._queue.name).inc()
        _log.error(
            "events are parked",
            service=self._queue.service,
            queue=self._queue.name,
            partition=partition,
            tenant_id=batch.tenant_id,
            seq=batch.seq,
            events=len(batch.events),
            reason=reason,
            stack=stack_of(error),
        )
        return moved

    async def _move(
        self, connection: Connection, partition: int, cursor: _Cursor, moved: _Cursor, tenant_id: str
    ) -> bool:
        """Moves the cursor; whether events of the tenant are parked. Raises MovedError if it is not where it was."""
        is_behind: bool | None = await raw(connection).fetchval(
            _MOVE_CURSOR,
            self._queue.producer,
            self._queue.name,
            partition,
            cursor.seq,
            moved.seq,
            moved.events_total,
            moved.checksum_total,
            tenant_id,
        )
        if is_behind is None:
            raise MovedError
        return is_behind

    def _shelf(self, tenant_id: str, partition: int) -> Shelf:
        return Shelf(tenant_id=tenant_id, producer=self._queue.producer, queue=self._queue.name, partition=partition)

    async def _load_cursor(self, partition: int) -> _Cursor:
        async def work(connection: Connection) -> _Cursor:
            driver = raw(connection)
            row = await driver.fetchrow(_LOAD_CURSOR, self._queue.producer, self._queue.name, partition)
            if row is None:
                await driver.execute(_MAKE_CURSOR, self._queue.producer, self._queue.name, partition)
                row = await driver.fetchrow(_LOAD_CURSOR, self._queue.producer, self._queue.name, partition)
            return _Cursor(row["seq"], row["events_total"], row["checksum_total"])

        return await self._queue.database.run(EVERY_TENANT, work)

    def _tell(self, partition: int, error: Exception, failures: int) -> None:
        service, queue = self._queue.service, self._queue.name
        known = {"service": service, "queue": queue, "partition": partition, "failures": failures}
        FAILURES.labels(service, queue).inc()
        if isinstance(error, StuckError):
            self._mark(partition, error.state)
            _log.error("this partition cannot go on", reason=error.state.value, detail=str(error), **known)
        elif isinstance(error, PASSING):
            _log.warning("events wait", reason=error.reason, detail=error.message, **known)
        else:
            # a refusal here is as much a bug as any other error: an event is a fact and can't be refused
            self._mark(partition, PartitionState.FAILING)
            reason = reason_of(error)
            _log.error("an event can't be handled and is tried again", reason=reason, stack=stack_of(error), **known)

    def _mark(self, partition: int, state: PartitionState) -> None:
        self.states[partition] = state
        STUCK.labels(self._queue.service, self._queue.name, str(partition)).set(state is not PartitionState.RUNNING)


def _moved(cursor: _Cursor, batch: _Batch) -> _Cursor:
    """Where the cursor stands when the batch is taken, handled or parked."""
    return _Cursor(
        batch.seq,
        cursor.events_total + len(batch.events),
        log.checksum((event.id for _, event in batch.events), before=cursor.checksum_total),
    )


def _batches(blocks: Sequence[Block], *, one_by_one: bool) -> Iterator[_Batch]:
    """Blocks as batches: neighbours of one tenant together up to 500 events, unless one by one.

    Raises StuckError at a block that cannot be read, when those before it have been taken."""
    gathered: _Batch | None = None
    for block in blocks:
        try:
            events = [(block.seq, event) for event in _events_of(block)]
        except (zlib.error, DecodeError, ValueError, OverflowError):
            events = []
        if not events:
            if gathered:
                yield gathered
            # whose events it holds cannot be known, so nothing of it can be parked: its producer has to mend its log
            raise StuckError(PartitionState.UNREADABLE, f"block {block.seq} of the producer's log is damaged")
        batch = _Batch(tenant_id=block.tenant_id, seq=block.seq, events=events, is_one_block=True)
        both = gathered.with_next(batch) if gathered and not one_by_one else None
        if gathered and not both:
            yield gathered
        gathered = both or batch
    if gathered:
        yield gathered


def _events_of(block: Block) -> list[Event]:
    return [
        Event(
            id=event.event_id,
            type=event.type,
            tenant_id=event.tenant_id,
            aggregate_type=event.aggregate_type,
            aggregate_id=event.aggregate_id,
            version=event.aggregate_version,
            occurred_at=_utc(event.occurred_at),
            posted_at=_utc(event.posted_at),
            payload=event.payload,
            trace=event.traceparent,
        )
        for event in log.unpack(block.payload).events
    ]


def _utc(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _backoff_s(failures: int, error: Exception) -> float:
    # an outage ends for all at once and must not be slept through
    longest_s = OUTAGE_BACKOFF_S if isinstance(error, PASSING) else LONGEST_BACKOFF_S
    backoff_s = min(longest_s, SHORTEST_BACKOFF_S * 2.0 ** min(failures - 1, 16))
    return backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
