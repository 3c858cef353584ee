"""Reads a producer's blocks one after the other: from Redis while it has them, else from the producer's log.

Redis is the fast lane and never trusted to be whole: after a gap, a silence or an outage the log is asked.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.runtime import log
from services.runtime.errors import Refused
from services.runtime.feed import FeedChannel
from services.runtime.leases import pause
from siyu.common.v1 import feed_pb2

BLOCK_MS = 1000
# above BLOCK, or every idle wait would look like a dead server
REDIS_TIMEOUT_S = BLOCK_MS / 1000 + 2.0
READ_BLOCKS = 64
HEADS_CACHED_S = 0.5
FRESH_HEADS_S = 0.05
WITHOUT_REDIS_PAUSE_S = 0.2


class PartitionState(StrEnum):
    """RUNNING and FAILING, which ends in parking, go on by themselves; the others need a person, or a rebuild."""

    RUNNING = "running"
    FAILING = "failing"
    UNREADABLE = "unreadable"
    EVENTS_TRUNCATED = "events_truncated"
    AHEAD_OF_LOG = "ahead_of_log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One row of the log as it comes: one tenant's events, packed."""

    seq: int
    tenant_id: str
    payload: bytes


class StuckError(Exception):
    """The log does not go on from the cursor in a way that can be read, and no retry here will change it."""

    def __init__(self, state: PartitionState, message: str) -> None:
        """`state` is what the partition is in from now on."""
        super().__init__(message)
        self.state = state


@dataclass(slots=True)
class Heads:
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


@dataclass(slots=True)
class Reader:
    """The blocks of one partition after a number: from Redis while it has them, else from the producer's log."""

    stream: str
    partition: int
    redis: Redis
    feed: FeedChannel
    heads: Heads
    _behind: bool = True

    async def after(self, seq: int, stop: asyncio.Event) -> list[Block]:
        """The blocks that follow `seq` without a gap; none after an idle second.

        Raises StuckError when the log no longer has them, or never had what the cursor says."""
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
            raise StuckError(PartitionState.AHEAD_OF_LOG, f"the cursor is at {seq}, the log ends at {head}")
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

    def _following(self, seq: int, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Block]:
        """The entries that follow `seq` number by number, of the log that we know."""
        blocks: list[Block] = []
        for entry_id, fields in entries:
            number = int(entry_id.partition(b"-")[0])
            if number != seq + len(blocks) + 1 or fields[b"log"].decode() != self.heads.log_id:
                break
            blocks.append(Block(seq=number, tenant_id=fields[b"tenant"].decode(), payload=fields[b"payload"]))
        return blocks

    async def _from_feed(self, seq: int) -> list[Block]:
        request = feed_pb2.ReadLogRequest(partition=self.partition, after_seq=seq, max_blocks=READ_BLOCKS)
        try:
            response = await self.feed.read_log(request)
        except Refused as refused:
            if refused.reason == log.EVENTS_TRUNCATED:
                raise StuckError(PartitionState.EVENTS_TRUNCATED, refused.message) from refused
            raise
        blocks = [Block(seq=block.seq, tenant_id=block.tenant_id, payload=block.payload) for block in response.blocks]
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
