"""A service's log of events: how outbox rows become numbered blocks, and how the blocks are read.

A block is one row: one tenant, up to hundreds of events, compressed. The number is consecutive within a partition, and
each block carries the partition's running totals, so that "every event exactly once" can be audited at any consumer.
"""

import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.runtime.database import EVERY_TENANT, Connection, RawConnection, raw
from services.runtime.errors import Refused
from siyu.common.v1 import event_pb2

MAX_EVENTS_PER_BLOCK = 256
MAX_BLOCK_BYTES = 256 * 1024
MAX_BLOCKS_PER_READ = 256
MAX_READ_BYTES = 2 * 1024 * 1024
KEPT_DAYS = 7
READER_FORGOTTEN_DAYS = 30
TRIM_BATCH = 1000
EVENTS_TRUNCATED = "EVENTS_TRUNCATED"
# level 1 takes half the time of the default for a tenth more bytes
_COMPRESSION = 1
_CHECKSUM_MASK = (1 << 63) - 1

_READ = """
    SELECT seq, tenant_id::text, events, payload
    FROM log
    WHERE partition = $1 AND seq > $2
    ORDER BY seq
    LIMIT $3
"""
_READ_TENANT = """
    SELECT seq, tenant_id::text, events, payload
    FROM log
    WHERE partition = $1 AND seq > $2 AND tenant_id = $4::uuid
    ORDER BY seq
    LIMIT $3
"""
_HEADS = """
    SELECT partition, next_seq, floor_seq, events_total, checksum_total
    FROM log_heads
    ORDER BY partition
"""
_POSITIONS = """
    SELECT producer, queue, partition, seq, events_total, checksum_total
    FROM cursors
    ORDER BY producer, queue, partition
"""
_QUEUES = "SELECT queue, seq FROM cursors WHERE producer = $1 AND partition = $2"
# asked at each poll: the first of each shelf is read, however many wait behind it
_PARKED_FROM = """
    SELECT q.queue, head.seq
    FROM unnest($4::text[]) AS q(queue)
    CROSS JOIN LATERAL (
        SELECT seq
        FROM parked_events
        WHERE tenant_id = $1::uuid AND producer = $2 AND queue = q.queue AND partition = $3
        ORDER BY seq, place
        LIMIT 1
    ) AS head
"""
# the stored id, the cluster, its timeline and the database's own number
_LOG_ID = """
    SELECT md5(concat_ws('/', h.log_id, c.system_identifier,
                         left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid))::uuid::text
    FROM relay_horizon h, pg_control_system() c, pg_database d
    WHERE d.datname = current_database()
"""
_NOTE_READER = """
    INSERT INTO log_readers (reader, partition, seq)
    SELECT $1, p.partition, p.seq
    FROM unnest($2::smallint[], $3::bigint[]) AS p(partition, seq)
    ON CONFLICT (reader, partition) DO UPDATE
    SET seq = greatest(log_readers.seq, excluded.seq), seen_at = now()
"""
# a partition holds every block from its floor to its head, and the totals run on over them up to the head's
_BROKEN = """
    SELECT h.partition, count(l.seq) AS blocks,
           count(l.seq) <> h.next_seq - h.floor_seq
           OR coalesce(bool_or(l.seq >= h.next_seq OR l.seq < h.floor_seq OR l.events_total - l.before <> l.events
                               OR (l.seq = h.next_seq - 1
                                   AND (l.events_total, l.checksum_total) <> (h.events_total, h.checksum_total))),
                       false) AS broken
    FROM log_heads h
    LEFT JOIN (
        SELECT partition, seq, events, events_total, checksum_total,
               lag(events_total) OVER (PARTITION BY partition ORDER BY seq) AS before
        FROM log
    ) l ON l.partition = h.partition
    GROUP BY h.partition, h.next_seq, h.floor_seq
    ORDER BY h.partition
"""
# the oldest blocks of a partition that are past their age and behind every reader seen within a month
_TRIM = """
    WITH passed AS (
        SELECT h.partition, coalesce(min(r.seq), h.next_seq - 1) AS seq
        FROM log_heads h
        LEFT JOIN log_readers r ON r.partition = h.partition AND r.seen_at > now() - make_interval(days => $2)
        GROUP BY h.partition, h.next_seq
    ), doomed AS (
        SELECT l.partition, l.seq
        FROM passed p
        CROSS JOIN LATERAL (
            SELECT partition, seq
            FROM log
            WHERE partition = p.partition AND seq <= p.seq AND created_at < now() - make_interval(days => $1)
            ORDER BY seq
            LIMIT $3
        ) l
    ), gone AS (
        DELETE FROM log USING doomed WHERE log.partition = doomed.partition AND log.seq = doomed.seq
        RETURNING log.partition, log.seq
    ), floors AS (
        UPDATE log_heads h SET floor_seq = g.seq + 1
        FROM (SELECT partition, max(seq) AS seq FROM gone GROUP BY partition) g
        WHERE h.partition = g.partition
    )
    SELECT count(*) FROM gone
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event that waits to be numbered."""

    tenant_id: str
    event_id: str
    type: str
    aggregate_type: str
    aggregate_id: str
    version: int
    partition: int
    payload: bytes
    occurred_at: datetime
    posted_at: datetime
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a partition: `seq` is the last number given, 0 for none; `floor_seq` the lowest still kept."""

    partition: int
    seq: int = 0
    floor_seq: int = 1
    events_total: int = 0
    checksum_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One row of the log. The totals include it; a reader that needs none gets them as 0."""

    partition: int
    seq: int
    tenant_id: str
    events: int
    payload: bytes
    events_total: int = 0
    checksum_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a consumer of this service stands in a producer's partition."""

    producer: str
    queue: str
    partition: int
    seq: int
    events_total: int
    checksum_total: int


def checksum(event_ids: Iterable[str], *, before: int = 0) -> int:
    """`before` plus the events' checksums, modulo 2^63: equal for equal sets in whatever order."""
    total = before
    for event_id in event_ids:
        total += int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big")
    return total & _CHECKSUM_MASK


def arrange(entries: Sequence[Entry], heads: Mapping[int, Head]) -> tuple[Block, ...]:
    """The blocks that follow the heads: per aggregate by version, otherwise as posted; every entry exactly once."""
    by_partition: dict[int, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in _in_order(entries):
        by_partition[entry.partition][entry.tenant_id].append(entry)
    blocks: list[Block] = []
    for partition in sorted(by_partition):
        head = heads.get(partition, Head(partition=partition))
        for tenant_id, of_tenant in by_partition[partition].items():
            for chunk in _chunks(of_tenant):
                head = Head(
                    partition=partition,
                    seq=head.seq + 1,
                    floor_seq=head.floor_seq,
                    events_total=head.events_total + len(chunk),
                    checksum_total=checksum((entry.event_id for entry in chunk), before=head.checksum_total),
                )
                blocks.append(
                    Block(
                        partition=partition,
                        seq=head.seq,
                        tenant_id=tenant_id,
                        events=len(chunk),
                        payload=pack(chunk),
                        events_total=head.events_total,
                        checksum_total=head.checksum_total,
                    )
                )
    return tuple(blocks)


def _in_order(entries: Sequence[Entry]) -> list[Entry]:
    """As posted; where that contradicts an aggregate's versions, its events swap places among themselves."""
    posted = sorted(entries, key=lambda entry: (entry.posted_at, entry.event_id))
    by_aggregate: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in posted:
        by_aggregate[entry.tenant_id, entry.aggregate_type, entry.aggregate_id].append(entry)
    in_turn = {key: iter(sorted(group, key=lambda entry: entry.version)) for key, group in by_aggregate.items()}
    return [next(in_turn[entry.tenant_id, entry.aggregate_type, entry.aggregate_id]) for entry in posted]


def _chunks(entries: Sequence[Entry]) -> Iterable[list[Entry]]:
    chunk: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        if chunk and (len(chunk) == MAX_EVENTS_PER_BLOCK or size_bytes + len(entry.payload) > MAX_BLOCK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(entry)
        size_bytes += len(entry.payload)
    if chunk:
        yield chunk


def pack(entries: Sequence[Entry]) -> bytes:
    """The compressed EventBlock of the entries."""
    block = event_pb2.EventBlock()
    for entry in entries:
        event = block.events.add(
            event_id=entry.event_id,
            tenant_id=entry.tenant_id,
            type=entry.type,
            aggregate_type=entry.aggregate_type,
            aggregate_id=entry.aggregate_id,
            aggregate_version=entry.version,
            traceparent=entry.trace,
            payload=entry.payload,
        )
        event.occurred_at.FromDatetime(entry.occurred_at)
        event.posted_at.FromDatetime(entry.posted_at)
    return zlib.compress(block.SerializeToString(), _COMPRESSION)


def unpack(payload: bytes) -> event_pb2.EventBlock:
    """The events of a block."""
    return event_pb2.EventBlock.FromString(zlib.decompress(payload))


async def load_heads(connection: RawConnection) -> dict[int, Head]:
    """The heads by partition; a partition that nothing was written to yet is absent."""
    return heads_in(await connection.fetch(_HEADS))


def heads_in(rows: Iterable[Mapping[str, int]]) -> dict[int, Head]:
    """The heads by partition that rows of `log_heads` tell."""
    return {
        row["partition"]: Head(
            partition=row["partition"],
            seq=row["next_seq"] - 1,
            floor_seq=row["floor_seq"],
            events_total=row["events_total"],
            checksum_total=row["checksum_total"],
        )
        for row in rows
    }


async def read(
    connection: Connection, *, partition: int, after_seq: int, max_blocks: int, only_tenant_id: str = ""
) -> tuple[tuple[Block, ...], int]:
    """Up to `max_blocks` blocks or 2 MB after a number, and the number to continue after.

    Raises Refused (EVENTS_TRUNCATED) when a block that follows `after_seq` is no longer kept.
    """
    driver = raw(connection)
    head = (await load_heads(driver)).get(partition, Head(partition=partition))
    if after_seq + 1 < head.floor_seq:
        raise Refused(
            f"events before {head.floor_seq} are no longer kept; rebuild from a snapshot",
            subject=f"partition/{partition}",
            reason=EVENTS_TRUNCATED,
            metadata={"floor_seq": str(head.floor_seq)},
        )
    limit = min(max_blocks, MAX_BLOCKS_PER_READ)
    if only_tenant_id:
        rows = await driver.fetch(_READ_TENANT, partition, after_seq, limit, only_tenant_id)
    else:
        rows = await driver.fetch(_READ, partition, after_seq, limit)
    blocks: list[Block] = []
    size_bytes = 0
    for row in rows:
        if blocks and size_bytes + len(row["payload"]) > MAX_READ_BYTES:
            break
        size_bytes += len(row["payload"])
        blocks.append(
            Block(
                partition=partition,
                seq=row["seq"],
                tenant_id=row["tenant_id"],
                events=row["events"],
                payload=row["payload"],
            )
        )
    if only_tenant_id and len(blocks) == len(rows) < limit:
        # nothing more of this tenant up to the head that was read before the rows
        return tuple(blocks), max(head.seq, blocks[-1].seq if blocks else 0, after_seq)
    return tuple(blocks), blocks[-1].seq if blocks else after_seq


async def heads(connection: Connection) -> dict[int, Head]:
    """The heads by partition, in the reader's own transaction."""
    return await load_heads(raw(connection))


async def log_id(connection: RawConnection) -> str:
    """The id that tells this log from a clone, a restored dump, and what it was before a fail-over lost its end.

    The same numbers can then be given again to other events, while Redis still holds the first.
    """
    found: str = await connection.fetchval(_LOG_ID)
    return found


async def note_reader(connection: Connection, reader: str, positions: Mapping[int, int]) -> None:
    """Notes how far a reader is, by partition: what it has not read is kept beyond its days."""
    await raw(connection).execute(_NOTE_READER, reader, list(positions), list(positions.values()))


async def trim(connection: Connection) -> int:
    """Deletes a bounded number of each partition's blocks that are older than 7 days and behind every reader; how many
    there were. Fewer than TRIM_BATCH: no partition has more."""
    count: int = await raw(connection).fetchval(_TRIM, KEPT_DAYS, READER_FORGOTTEN_DAYS, TRIM_BATCH)
    return count


async def broken(connection: Connection) -> tuple[int, tuple[int, ...]]:
    """How many blocks are kept, and the partitions that lack one or whose totals don't run on; for the audit."""
    rows = await raw(connection).fetch(_BROKEN)
    return sum(row["blocks"] for row in rows), tuple(row["partition"] for row in rows if row["broken"])


async def positions(connection: Connection) -> tuple[Position, ...]:
    """Where this service's consumers stand, for the audit."""
    return tuple(Position(**row) for row in await raw(connection).fetch(_POSITIONS))


async def queues(connection: Connection, *, producer: str, partition: int, tenant_id: str) -> dict[str, int]:
    """The last number of a producer's partition that each of this service's queues has made the effect of.

    What is parked of the tenant has had none; what is parked of others is not this tenant's to wait for.
    """
    driver = raw(connection)
    taken = {row["queue"]: row["seq"] for row in await driver.fetch(_QUEUES, producer, partition)}
    # a service that follows nobody has no such table
    if taken and tenant_id != EVERY_TENANT:
        for row in await driver.fetch(_PARKED_FROM, tenant_id, producer, partition, list(taken)):
            taken[row["queue"]] = row["seq"] - 1
    return taken
