"""The relay gives events their numbers: it moves them from the outbox to the log, and pushes the log to Redis.

Transactions commit out of the order of anything they can write, so the relay takes every row whose transaction is
older than the oldest that still runs: nothing can appear below that horizon any more. It never cuts that set, since an
aggregate's second event can carry the smaller transaction id. The log in Postgres is the record; Redis may lose what
it likes.
"""

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import Counter, Gauge
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from services.runtime.database import EVERY_TENANT, Database, Lane, RawConnection
from services.runtime.errors import DomainError
from services.runtime.leases import Lease, pause
from services.runtime.log import Block, Entry, Head, arrange, heads_in, log_id

# from one question to the next while nothing comes: an event that comes then goes out at once
SHORTEST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.05
# while they keep coming, many go together: a round costs what 50 events cost, and each block that a consumer takes a
# transaction
GATHERING_PAUSE_S = 0.1
OUTAGE_PAUSE_S = 0.5
LEASE_S = 3.0
STUCK_AFTER_S = 10.0
LOOK_FOR_STUCK_S = 5.0
ROUND_TIMEOUT_S = 60.0
# numbering what gathered in a long outage takes minutes, in which the transaction is idle
LARGE_ROUND = 10_000
LARGE_ROUND_IDLE_S = 600
STREAM_BLOCKS = 1000
PUSH_QUEUE_BLOCKS = 4096
PUSH_AT_ONCE = 64
LOOK_FOR_STOP_S = 0.5
REDIS_TIMEOUT_S = 1.0

EVENTS = Counter("siyu_relay_events_total", "Events given a number", ["service"])
UNPUSHED = Counter("siyu_relay_unpushed_blocks_total", "Blocks that Redis did not take", ["service"])
OLDEST_S = Gauge("siyu_relay_oldest_event_seconds", "Age of the oldest event without a number", ["service"])

_log = structlog.get_logger(__name__)

# the horizon beside each head: one row without a head where nothing was ever logged
_HORIZON = """
    SELECT r.horizon::text::bigint AS seen,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS following,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS newest,
           h.partition, h.next_seq, h.floor_seq, h.events_total, h.checksum_total
    FROM relay_horizon r
    LEFT JOIN log_heads h ON true
"""
_COLUMNS = """
    tenant_id::text, event_id::text, type, aggregate_type, aggregate_id, version, partition, payload, occurred_at,
    posted_at, trace
"""
_IS_WAITING = """
    SELECT horizon > pg_snapshot_xmax(pg_current_snapshot()) OR EXISTS (
        SELECT FROM outbox WHERE xid >= horizon AND xid < pg_snapshot_xmin(pg_current_snapshot())
    )
    FROM relay_horizon
"""
_TAKE = f"DELETE FROM outbox WHERE xid >= $1::text::xid8 AND xid < $2::text::xid8 RETURNING {_COLUMNS}"
# after a restore from a dump the transaction ids start anew: what is visible then is finished, whatever its number
_TAKE_ALL = f"DELETE FROM outbox WHERE xid < $1::text::xid8 OR xid >= $2::text::xid8 RETURNING {_COLUMNS}"
_MOVE_HORIZON = "UPDATE relay_horizon SET horizon = $2::text::xid8 WHERE horizon = $1::text::xid8"
_MAKE_HEADS = "INSERT INTO log_heads (partition) SELECT unnest($1::smallint[]) ON CONFLICT (partition) DO NOTHING"
# The horizon first: a second relay waits for its row, and then finds that it and all that hangs on it moved nothing.
_APPEND = """
    WITH horizon AS (
        UPDATE relay_horizon SET horizon = $2::text::xid8 WHERE horizon = $1::text::xid8
        RETURNING 1
    ), moved AS (
        UPDATE log_heads h
        SET next_seq = m.next_seq, events_total = m.events_total, checksum_total = m.checksum_total
        FROM unnest($3::smallint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
             AS m(partition, seen_seq, next_seq, events_total, checksum_total)
        WHERE EXISTS (SELECT FROM horizon) AND h.partition = m.partition AND h.next_seq = m.seen_seq
        RETURNING 1
    ), appended AS (
        INSERT INTO log (partition, seq, tenant_id, events, payload, events_total, checksum_total)
        SELECT b.partition, b.seq, b.tenant_id, b.events, b.payload, b.events_total, b.checksum_total
        FROM unnest($8::smallint[], $9::bigint[], $10::uuid[], $11::int[], $12::bytea[], $13::bigint[], $14::bigint[])
             AS b(partition, seq, tenant_id, events, payload, events_total, checksum_total)
        WHERE (SELECT count(*) FROM moved) = cardinality($3::smallint[])
        RETURNING 1
    )
    SELECT count(*) FROM appended
"""
_OLDEST = "SELECT extract(epoch FROM clock_timestamp() - min(posted_at))::float8 FROM outbox"


class FencedError(Exception):
    """Another relay moved the horizon or a head first; this one's transaction is undone."""


def stream_of(service: str, partition: int) -> str:
    """The name of the Redis stream of a partition."""
    return f"siyu:{service}:{partition}"


def redis_client(url: str, *, timeout_s: float) -> Redis:
    """A client of one user, that neither waits long nor tries twice: whoever uses it has another way."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
    )


class Relay:
    """One service's relay. Several may run: a lease lets one work, and the numbers fence the others."""

    def __init__(self, *, database: Database, redis_url: str, holder: str) -> None:
        """`database` is on the system role; `holder` names this process."""
        assert database.role == "system", "the relay reads every tenant's events"
        self._service = database.service
        self._database = database
        self._lease = Lease(database=database, name="relay", holder=holder, ttl_s=LEASE_S)
        self._pusher = _Pusher(self._service, redis_url)
        self._looked_at = 0.0
        self._log_id = ""
        self._was_busy = False

    async def run(self, stop: asyncio.Event) -> None:
        """Relays until told to stop."""
        lane = await self._database.lane(timeout_s=ROUND_TIMEOUT_S)
        pushing = asyncio.create_task(self._pusher.run(stop))
        try:
            while await self._lease.wait(stop):
                await self._while_leased(lane, stop)
            with contextlib.suppress(DomainError):
                await self._lease.give_back()
        finally:
            await pushing
            await lane.close()

    async def drain(self) -> int:
        """Numbers what can be numbered now, without Redis; how many events it was. For tests and tools."""
        lane = await self._database.lane()
        try:
            blocks = await self._round(lane)
        finally:
            await lane.close()
        return sum(block.events for block in blocks)

    async def _while_leased(self, lane: Lane, stop: asyncio.Event) -> None:
        renew_at = time.monotonic() + LEASE_S / 3
        rest_s = SHORTEST_PAUSE_S
        while not stop.is_set():
            now = time.monotonic()
            if now >= renew_at:
                if not await self._lease.take():
                    return
                renew_at = now + LEASE_S / 3
            was_busy = self._was_busy
            try:
                moved = await self._step(lane)
            except DomainError as away:
                # what comes back may be another timeline
                self._log_id = ""
                _log.warning("the relay waits for the database", service=self._service, reason=away.reason)
                await pause(stop, OUTAGE_PAUSE_S)
                continue
            except FencedError:
                _log.warning("another relay was first", service=self._service)
                return
            if moved:
                rest_s = GATHERING_PAUSE_S if was_busy else SHORTEST_PAUSE_S
            else:
                rest_s = min(rest_s * 2, LONGEST_PAUSE_S)
            await pause(stop, rest_s)

    async def _step(self, lane: Lane) -> bool:
        await self._look_for_stuck(lane)
        # a question is cheaper than a round that finds nothing; after one that found something, the next will
        if not self._was_busy and not await lane.fetchval(_IS_WAITING):
            return False
        blocks = await self._round(lane)
        self._pusher.offer(self._log_id, blocks)
        self._was_busy = bool(blocks)
        return self._was_busy

    async def _round(self, lane: Lane) -> tuple[Block, ...]:
        """One transaction: takes what lies between the horizons, numbers it, moves the horizon."""
        async with lane.transaction(EVERY_TENANT, timeout_s=ROUND_TIMEOUT_S) as connection:
            self._log_id = self._log_id or await log_id(connection)
            rows = await connection.fetch(_HORIZON)
            seen, following, newest = rows[0]["seen"], rows[0]["following"], rows[0]["newest"]
            entries = await self._take(connection, seen, following, newest)
            blocks: tuple[Block, ...] = ()
            if entries:
                heads = await _heads_of(connection, rows, entries)
                blocks = await _arranged(entries, heads)
                await _append(connection, (seen, following), heads, blocks)
            elif seen > newest:
                _fence(await connection.execute(_MOVE_HORIZON, str(seen), str(following)) == "UPDATE 1")
        EVENTS.labels(self._service).inc(len(entries))
        return blocks

    async def _take(self, connection: RawConnection, seen: int, following: int, newest: int) -> list[Entry]:
        if seen > newest:
            _log.error("the database was restored: relaying what it holds", service=self._service, horizon=seen)
            rows = await connection.fetch(_TAKE_ALL, str(following), str(newest))
        else:
            rows = await connection.fetch(_TAKE, str(seen), str(following))
        if len(rows) >= LARGE_ROUND:
            _log.info("a large round", service=self._service, events=len(rows))
            await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{LARGE_ROUND_IDLE_S}s'")
        return [Entry(**row) for row in rows]

    async def _look_for_stuck(self, lane: Lane) -> None:
        now = time.monotonic()
        if now < self._looked_at + LOOK_FOR_STUCK_S:
            return
        self._looked_at = now
        oldest_s: float = await lane.fetchval(_OLDEST) or 0.0
        OLDEST_S.labels(self._service).set(oldest_s)
        if oldest_s > STUCK_AFTER_S:
            _log.error("events wait behind a long transaction", service=self._service, oldest_s=round(oldest_s, 1))


async def _arranged(entries: Sequence[Entry], heads: Mapping[int, Head]) -> tuple[Block, ...]:
    """The entries as blocks; so many that it takes long go by a thread, beside which the process answers."""
    if len(entries) < LARGE_ROUND:
        return arrange(entries, heads)
    return await asyncio.to_thread(arrange, entries, heads)


async def _heads_of(
    connection: RawConnection, rows: Sequence[Mapping[str, int]], entries: Sequence[Entry]
) -> dict[int, Head]:
    heads = heads_in(row for row in rows if row["partition"] is not None)
    missing = sorted({entry.partition for entry in entries} - heads.keys())
    if missing:
        await connection.execute(_MAKE_HEADS, missing)
        heads |= {partition: Head(partition=partition) for partition in missing}
    return heads


async def _append(
    connection: RawConnection, horizon: tuple[int, int], heads: Mapping[int, Head], blocks: Sequence[Block]
) -> None:
    last = {block.partition: block for block in blocks}
    appended = await connection.fetchval(
        _APPEND,
        *(str(xid) for xid in horizon),
        list(last),
        [heads[partition].seq + 1 for partition in last],
        [block.seq + 1 for block in last.values()],
        [block.events_total for block in last.values()],
        [block.checksum_total for block in last.values()],
        [block.partition for block in blocks],
        [block.seq for block in blocks],
        [block.tenant_id for block in blocks],
        [block.events for block in blocks],
        [block.payload for block in blocks],
        [block.events_total for block in blocks],
        [block.checksum_total for block in blocks],
    )
    _fence(appended == len(blocks))


def _fence(moved: bool) -> None:  # noqa: FBT001 - the one thing it is about
    if not moved:
        raise FencedError


class _Pusher:
    """Pushes blocks to the streams, in order, as fast as Redis takes them; what it does not take is dropped.

    A consumer that misses a number reads it from the log, so nothing here may hold up the relay.
    """

    def __init__(self, service: str, redis_url: str) -> None:
        self._service = service
        self._redis = redis_client(redis_url, timeout_s=REDIS_TIMEOUT_S)
        self._queue: deque[tuple[str, Block]] = deque()
        self._offered = asyncio.Event()

    def offer(self, of_log: str, blocks: Sequence[Block]) -> None:
        """Queues blocks; the oldest fall out when too many wait."""
        self._queue.extend((of_log, block) for block in blocks)
        while len(self._queue) > PUSH_QUEUE_BLOCKS:
            self._queue.popleft()
            UNPUSHED.labels(self._service).inc()
        if self._queue:
            self._offered.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Pushes until told to stop and nothing waits."""
        try:
            while self._queue or not stop.is_set():
                self._offered.clear()
                if not self._queue:
                    await pause(self._offered, LOOK_FOR_STOP_S)
                    continue
                count = min(len(self._queue), PUSH_AT_ONCE)
                taken = await self._push([self._queue.popleft() for _ in range(count)])
                if not taken and stop.is_set():
                    return
        finally:
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()

    async def _push(self, blocks: Sequence[tuple[str, Block]]) -> bool:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for of_log, block in blocks:
                    _add(pipeline, self._service, of_log, block)
                results = await pipeline.execute(raise_on_error=False)
            refused = [pushed for pushed, result in zip(blocks, results, strict=True) if isinstance(result, Exception)]
            if refused:
                await self._push_past_strangers(refused)
        except (RedisError, OSError, TimeoutError) as error:
            UNPUSHED.labels(self._service).inc(len(blocks))
            _log.warning("Redis took no events", service=self._service, blocks=len(blocks), error=str(error))
            return False
        return True

    async def _push_past_strangers(self, refused: Sequence[tuple[str, Block]]) -> None:
        """A stream whose newest block is of another log is dropped; a number that is there already stays."""
        by_partition: dict[int, list[tuple[str, Block]]] = defaultdict(list)
        for of_log, block in refused:
            by_partition[block.partition].append((of_log, block))
        for partition, pushed in by_partition.items():
            stream = stream_of(self._service, partition)
            newest: Any = await self._redis.xrevrange(stream, count=1)
            if newest and newest[0][1].get(b"log") == pushed[0][0].encode():
                continue
            await self._redis.delete(stream)
            for of_log, block in pushed:
                with contextlib.suppress(ResponseError):
                    await _add(self._redis, self._service, of_log, block)


def _add(redis: Any, service: str, of_log: str, block: Block) -> Any:
    return redis.xadd(
        stream_of(service, block.partition),
        {"log": of_log, "tenant": block.tenant_id, "events": block.events, "payload": block.payload},
        id=f"{block.seq}-0",
        maxlen=STREAM_BLOCKS,
        approximate=True,
    )
