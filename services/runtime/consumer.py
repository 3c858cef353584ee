"""Consumes another service's events exactly once and in order.

The cursor moves in the transaction of the effect, and only from where it was read: a block that comes twice finds it
moved, a block that is missing is fetched from the producer's log. Redis is the fast lane and never trusted to be whole.
A block that cannot be handled is tried again for ever, aloud: skipping it would be losing it.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.trace import SpanKind
from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.runtime import log, telemetry
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import DEFAULT_TIME_ZONE
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import Conflict, DomainError, Exhausted, Refused, TimedOut, Unavailable
from services.runtime.feed import FeedChannel
from services.runtime.leases import pause
from services.runtime.relay import redis_client, stream_of
from services.runtime.tenants import Tenant, Tenants
from siyu.common.v1 import feed_pb2

BLOCK_MS = 1000
# above BLOCK, or every idle wait would look like a dead server
REDIS_TIMEOUT_S = BLOCK_MS / 1000 + 2.0
READ_BLOCKS = 64
MAX_EVENTS = 500
HANDLE_TIMEOUT_S = 20.0
HEADS_CACHED_S = 0.5
FRESH_HEADS_S = 0.05
WITHOUT_REDIS_PAUSE_S = 0.2
SHORTEST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 15.0
LEAVE_TO_OTHERS_S = (0.5, 2.0)
OUTAGE_BACKOFF_S = 1.0

EVENTS = Counter("siyu_consumer_events_total", "Events handled", ["service", "queue"])
FAILURES = Counter("siyu_consumer_failures_total", "Attempts to handle events that failed", ["service", "queue"])
BEHIND = Gauge("siyu_consumer_behind_blocks", "Blocks in the log not yet handled", ["service", "queue", "partition"])
STUCK = Gauge("siyu_consumer_stuck", "1 while a partition cannot go on by itself", ["service", "queue", "partition"])

_PASSING = (Unavailable, TimedOut, Conflict, Exhausted)
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
_MOVE_CURSOR = """
    UPDATE cursors
    SET seq = $5, events_total = $6, checksum_total = $7, moved_at = now()
    WHERE producer = $1 AND queue = $2 AND partition = $3 AND seq = $4
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as a handler gets it. `trace` is the traceparent of the call that caused it; times are UTC."""

    id: str
    type: str
    tenant_id: str
    aggregate_type: str
    aggregate_id: str
    version: int
    occurred_at: datetime
    posted_at: datetime
    payload: bytes
    trace: str


Handler = Callable[[Connection, Sequence[Event], Call], Awaitable[None]]
"""Makes the effect of one tenant's events in the given transaction. It may run again: no effect outside of it."""


class PartitionState(StrEnum):
    """RUNNING goes on by itself; the others need a person, or a rebuild from a snapshot."""

    RUNNING = "running"
    FAILING = "failing"
    EVENTS_TRUNCATED = "events_truncated"
    AHEAD_OF_LOG = "ahead_of_log"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    seq: int
    tenant_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Cursor:
    seq: int = 0
    events_total: int = 0
    checksum_total: int = 0


class MovedError(Exception):
    """Another process moved the cursor; this one's transaction is undone."""


class OutOfStepError(Exception):
    """The log and the cursor do not belong together, and no retry will change it."""

    def __init__(self, state: PartitionState, message: str) -> None:
        """`state` is what the partition is in from now on."""
        super().__init__(message)
        self.state = state


@dataclass(slots=True)
class _Heads:
    """The producer's heads, asked for at most twice a second over all partitions; tells it where we stand."""

    feed: FeedChannel
    reader: str
    positions: dict[int, int] = field(default_factory=dict)
    log_id: str = ""
    _heads: dict[int, int] = field(default_factory=dict)
    _asked_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def forget(self) -> None:
        """Asks anew next time."""
        self._asked_at = float("-inf")

    async def of(self, partition: int, *, within_s: float = HEADS_CACHED_S) -> int:
        """The last number of a partition, as it was at most `within_s` ago."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= within_s:
                request = feed_pb2.GetHeadsRequest(reader=self.reader)
                for own, seq in self.positions.items():
                    request.positions.add(partition=own, seq=seq)
                response = await self.feed.get_heads(request)
                self.log_id = response.log_id
                self._heads = {head.partition: head.seq for head in response.heads}
                self._asked_at = time.monotonic()
            return self._heads.get(partition, 0)


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
        redis_url: str,
        feed_channel: FeedChannel,
        handler: Handler,
        tenants: Tenants,
        partitions: int,
    ) -> None:
        """`database` is on the app role; `partitions` is the producer's number of them."""
        self.states: dict[int, PartitionState] = dict.fromkeys(range(partitions), PartitionState.RUNNING)
        self._service = service
        self._producer = producer
        self._queue = queue
        self._database = database
        self._redis_url = redis_url
        self._feed = feed_channel
        self._handler = handler
        self._tenants = tenants
        self._partitions = partitions
        self._heads = _Heads(feed=feed_channel, reader=f"{service}.{queue}")

    async def run(self, stop: asyncio.Event) -> None:
        """Consumes every partition until told to stop; what is being handled is finished."""
        async with asyncio.TaskGroup() as group:
            for partition in range(self._partitions):
                group.create_task(self._run_partition(partition, stop))

    async def _run_partition(self, partition: int, stop: asyncio.Event) -> None:
        reader = _Reader(
            stream=stream_of(self._producer, partition),
            partition=partition,
            redis=redis_client(self._redis_url, timeout_s=REDIS_TIMEOUT_S),
            feed=self._feed,
            heads=self._heads,
        )
        try:
            await self._consume(reader, partition, stop)
        finally:
            await reader.close()

    async def _consume(self, reader: "_Reader", partition: int, stop: asyncio.Event) -> None:
        failures = 0
        cursor: _Cursor | None = None
        while not stop.is_set():
            try:
                cursor = cursor or await self._load_cursor(partition)
                self._heads.positions[partition] = cursor.seq
                blocks = await reader.after(cursor.seq, stop)
                if blocks:
                    # until it is answered nobody knows whether the cursor in the database has moved
                    known, cursor = cursor, None
                    cursor = await self._advance(partition, known, blocks, one_by_one=failures > 0)
                self._mark(partition, PartitionState.RUNNING)
                failures = 0
            except MovedError:
                # another process works on this partition: leave it to it, and see later whether it still does
                await pause(stop, random.uniform(*LEAVE_TO_OTHERS_S))  # noqa: S311 - jitter
            except Exception as error:  # noqa: BLE001 - a poison event is a bug of any kind, and must not end the queue
                failures += 1
                if not isinstance(error, _PASSING):
                    cursor = None
                reader.distrust()
                self._tell(partition, error, failures)
                await pause(stop, _backoff_s(failures, error))

    async def _advance(self, partition: int, cursor: _Cursor, blocks: Sequence[_Block], *, one_by_one: bool) -> _Cursor:
        """Handles the blocks, neighbours of one tenant together; one by one after a failure, to find which it is."""
        for tenant_id, events, seq in _batches(blocks, one_by_one=one_by_one):
            cursor = await self._handle(partition, cursor, tenant_id, events, seq)
        return cursor

    async def _handle(
        self, partition: int, cursor: _Cursor, tenant_id: str, events: Sequence[Event], seq: int
    ) -> _Cursor:
        moved = _Cursor(
            seq,
            cursor.events_total + len(events),
            log.checksum((event.id for event in events), before=cursor.checksum_total),
        )
        name = f"{self._service}.{self._queue} consume"
        with telemetry.entered(name, events[0].trace, kind=SpanKind.CONSUMER) as trace:
            call = await self._call(tenant_id, trace)

            async def work(connection: Connection) -> None:
                # the cursor first: whoever comes second waits here, and does not make the effect in vain
                status = await raw(connection).execute(
                    _MOVE_CURSOR,
                    self._producer,
                    self._queue,
                    partition,
                    cursor.seq,
                    moved.seq,
                    moved.events_total,
                    moved.checksum_total,
                )
                if status != "UPDATE 1":
                    raise MovedError(status)
                await self._handler(connection, events, call)

            await self._database.run(tenant_id, work, timeout_s=HANDLE_TIMEOUT_S)
        EVENTS.labels(self._service, self._queue).inc(len(events))
        return moved

    async def _call(self, tenant_id: str, trace: telemetry.Trace) -> Call:
        tenant = await self._tenant(tenant_id)
        return Call(
            tenant_id=tenant_id,
            client_id=f"{self._service}.{self._queue}",
            actor=Actor(kind=ActorKind.SERVICE, id=self._service),
            now=self._tenants.now_of(tenant) if tenant else self._tenants.clock.now(),
            time_zone=tenant.time_zone if tenant else DEFAULT_TIME_ZONE,
            deadline_at=deadline_in(HANDLE_TIMEOUT_S),
            trace_id=trace.trace_id,
            trace=trace.traceparent,
        )

    async def _tenant(self, tenant_id: str) -> Tenant | None:
        try:
            return await self._tenants.get(tenant_id)
        except Unavailable as unknown:
            # identity's events bring the tenants, so the first of them comes before its tenant
            if unknown.reason == "TENANT_NOT_READY" and self._producer == "identity":
                return None
            raise

    async def _load_cursor(self, partition: int) -> _Cursor:
        async def work(connection: Connection) -> _Cursor:
            driver = raw(connection)
            row = await driver.fetchrow(_LOAD_CURSOR, self._producer, self._queue, partition)
            if row is None:
                await driver.execute(_MAKE_CURSOR, self._producer, self._queue, partition)
                row = await driver.fetchrow(_LOAD_CURSOR, self._producer, self._queue, partition)
            return _Cursor(row["seq"], row["events_total"], row["checksum_total"])

        return await self._database.run(EVERY_TENANT, work)

    def _tell(self, partition: int, error: Exception, failures: int) -> None:
        known = {"service": self._service, "queue": self._queue, "partition": partition, "failures": failures}
        FAILURES.labels(self._service, self._queue).inc()
        if isinstance(error, OutOfStepError):
            self._mark(partition, error.state)
            _log.error("this partition cannot go on", reason=error.state.value, detail=str(error), **known)
        elif isinstance(error, _PASSING):
            _log.warning("events wait", reason=error.reason, detail=error.message, **known)
        else:
            # a refusal here is as much a bug as any other error: an event is a fact and can't be refused
            self._mark(partition, PartitionState.FAILING)
            reason = error.reason if isinstance(error, DomainError) else type(error).__name__
            _log.error("an event can't be handled and is tried again", reason=reason, exc_info=error, **known)

    def _mark(self, partition: int, state: PartitionState) -> None:
        self.states[partition] = state
        STUCK.labels(self._service, self._queue, str(partition)).set(state is not PartitionState.RUNNING)


@dataclass(slots=True)
class _Reader:
    """The blocks of one partition after a number: from Redis while it has them, else from the producer's log."""

    stream: str
    partition: int
    redis: Redis
    feed: FeedChannel
    heads: _Heads
    _behind: bool = True

    async def after(self, seq: int, stop: asyncio.Event) -> list[_Block]:
        """The blocks that follow `seq` without a gap; none after an idle second.

        Raises OutOfStepError when the log no longer has them, or never had what the cursor says."""
        within_s = HEADS_CACHED_S
        if not self._behind:
            found = await self._from_redis(seq, stop)
            blocks = self._following(seq, found)
            if blocks:
                return blocks
            if found:
                # a gap, or another log's blocks: what is known of the head is older than them
                within_s = FRESH_HEADS_S
        # a relay that dies between commit and push leaves no gap to see, so an idle reader asks
        head = await self.heads.of(self.partition, within_s=within_s)
        if seq > head:
            head = await self.heads.of(self.partition, within_s=0.0)
        if seq > head:
            raise OutOfStepError(PartitionState.AHEAD_OF_LOG, f"the cursor is at {seq}, the log ends at {head}")
        self._behind = seq < head
        if self._behind:
            return await self._from_feed(seq)
        if within_s < HEADS_CACHED_S:
            # strangers in the stream end every blocking read at once
            await pause(stop, WITHOUT_REDIS_PAUSE_S)
        return []

    def distrust(self) -> None:
        """Asks the producer before Redis again: after an outage the log may be another one."""
        self._behind = True
        self.heads.forget()

    async def close(self) -> None:
        """Closes the client."""
        with contextlib.suppress(RedisError, OSError):
            await self.redis.aclose()

    async def _from_redis(self, seq: int, stop: asyncio.Event) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
        try:
            return _entries(await self.redis.xread({self.stream: f"{seq}-0"}, count=READ_BLOCKS, block=BLOCK_MS))
        except (RedisError, OSError, TimeoutError):
            await pause(stop, WITHOUT_REDIS_PAUSE_S)
            return ()

    def _following(self, seq: int, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[_Block]:
        """The entries that follow `seq` number by number, of the log that we know."""
        blocks: list[_Block] = []
        for entry_id, fields in entries:
            number = int(entry_id.partition(b"-")[0])
            if number != seq + len(blocks) + 1 or fields[b"log"].decode() != self.heads.log_id:
                break
            blocks.append(_Block(seq=number, tenant_id=fields[b"tenant"].decode(), payload=fields[b"payload"]))
        return blocks

    async def _from_feed(self, seq: int) -> list[_Block]:
        request = feed_pb2.ReadLogRequest(partition=self.partition, after_seq=seq, max_blocks=READ_BLOCKS)
        try:
            response = await self.feed.read_log(request)
        except Refused as refused:
            if refused.reason == log.EVENTS_TRUNCATED:
                raise OutOfStepError(PartitionState.EVENTS_TRUNCATED, refused.message) from refused
            raise
        blocks = [_Block(seq=block.seq, tenant_id=block.tenant_id, payload=block.payload) for block in response.blocks]
        assert [block.seq for block in blocks] == list(range(seq + 1, seq + 1 + len(blocks))), "a gap in the log"
        return blocks


def _entries(found: Any) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of the one stream that was read, in either of the protocol's shapes."""
    if not found:
        return ()
    if isinstance(found, dict):
        (streams,) = found.values()
        return streams[0] if streams and isinstance(streams[0], list) else streams
    entries: Sequence[tuple[bytes, dict[bytes, bytes]]] = found[0][1]
    return entries


def _batches(blocks: Sequence[_Block], *, one_by_one: bool) -> list[tuple[str, list[Event], int]]:
    """Blocks as (tenant, events, last number): neighbours of one tenant together up to 500 events."""
    batches: list[tuple[str, list[Event], int]] = []
    for block in blocks:
        events = _events_of(block)
        if batches and not one_by_one:
            tenant_id, gathered, _seq = batches[-1]
            if tenant_id == block.tenant_id and len(gathered) + len(events) <= MAX_EVENTS:
                batches[-1] = (tenant_id, [*gathered, *events], block.seq)
                continue
        batches.append((block.tenant_id, events, block.seq))
    return batches


def _events_of(block: _Block) -> list[Event]:
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
    longest_s = OUTAGE_BACKOFF_S if isinstance(error, _PASSING) else LONGEST_BACKOFF_S
    backoff_s = min(longest_s, SHORTEST_BACKOFF_S * 2.0 ** min(failures - 1, 16))
    return backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
