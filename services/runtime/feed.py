"""Serves a service's log to the other services' consumers, and reads theirs."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from services.runtime import log
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.channels import Channels
from services.runtime.clock import DEFAULT_TIME_ZONE
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from siyu.common.v1 import feed_pb2, feed_pb2_grpc

READ_TIMEOUT_S = 5.0
BLOCKS_WHERE_NOT_TOLD = 16


class FeedChannel(Protocol):
    """A producer's feed as its consumers see it."""

    async def read_log(self, request: feed_pb2.ReadLogRequest) -> feed_pb2.ReadLogResponse:
        """Blocks after a number. Raises Refused (EVENTS_TRUNCATED) below the floor."""
        ...

    async def get_heads(self, request: feed_pb2.GetHeadsRequest) -> feed_pb2.GetHeadsResponse:
        """The end of every partition."""
        ...


@dataclass(frozen=True, slots=True)
class Feed:
    """The FeedService of one service. `database` is on the system role: a log is read over all tenants."""

    database: Database
    partitions: int

    async def read_log(self, request: feed_pb2.ReadLogRequest, call: Call) -> feed_pb2.ReadLogResponse:
        """Blocks after a number, up to 2 MB; an empty answer means that there are none yet."""

        async def work(connection: Connection) -> tuple[tuple[log.Block, ...], int]:
            return await log.read(
                connection,
                partition=request.partition,
                after_seq=request.after_seq,
                max_blocks=request.max_blocks or BLOCKS_WHERE_NOT_TOLD,
                only_tenant_id=request.only_tenant_id,
            )

        blocks, next_seq = await self.database.read(EVERY_TENANT, work, timeout_s=call.remaining_s())
        response = feed_pb2.ReadLogResponse(next_seq=next_seq)
        for block in blocks:
            response.blocks.add(seq=block.seq, tenant_id=block.tenant_id, payload=block.payload, events=block.events)
        return response

    async def get_heads(self, request: feed_pb2.GetHeadsRequest, call: Call) -> feed_pb2.GetHeadsResponse:
        """The head of every partition, the untouched ones included; notes where the reader stands."""

        async def work(connection: Connection) -> tuple[dict[int, log.Head], str]:
            positions = {position.partition: position.seq for position in request.positions}
            if request.reader and positions:
                await log.note_reader(connection, request.reader, positions)
            return await log.heads(connection), await log.log_id(raw(connection))

        heads, log_id = await self.database.run(EVERY_TENANT, work, timeout_s=call.remaining_s())
        response = feed_pb2.GetHeadsResponse(log_id=log_id)
        for partition in sorted({*heads, *range(self.partitions)}):
            head = heads.get(partition, log.Head(partition=partition))
            response.heads.add(
                partition=partition,
                seq=head.seq,
                events_total=head.events_total,
                checksum_total=head.checksum_total,
                floor_seq=head.floor_seq,
            )
        return response

    async def get_positions(self, request: feed_pb2.GetPositionsRequest, call: Call) -> feed_pb2.GetPositionsResponse:
        """How far this service's consumers of the producer's partition are with the caller's tenant."""

        async def work(connection: Connection) -> dict[str, int]:
            return await log.queues(
                connection, producer=request.producer, partition=request.partition, tenant_id=call.tenant_id
            )

        queues = await self.database.read(EVERY_TENANT, work, timeout_s=call.remaining_s())
        response = feed_pb2.GetPositionsResponse()
        for queue, seq in sorted(queues.items()):
            response.positions.add(queue=queue, seq=seq)
        return response


@dataclass(frozen=True, slots=True)
class OwnFeed:
    """A service's own feed, for its workers on its own events: the same answers without a call."""

    feed: Feed
    service: str

    async def read_log(self, request: feed_pb2.ReadLogRequest) -> feed_pb2.ReadLogResponse:
        """See FeedChannel."""
        return await self.feed.read_log(request, _call_of(self.service))

    async def get_heads(self, request: feed_pb2.GetHeadsRequest) -> feed_pb2.GetHeadsResponse:
        """See FeedChannel."""
        return await self.feed.get_heads(request, _call_of(self.service))


@dataclass(slots=True)
class PeerFeed:
    """Another service's feed, over its channel."""

    channels: Channels
    producer: str
    _stub: "feed_pb2_grpc.FeedServiceAsyncStub" = field(init=False)

    def __post_init__(self) -> None:
        """Makes the stub; the channel connects when first used."""
        self._stub = self.channels.stub(self.producer, feed_pb2_grpc.FeedServiceStub)

    async def read_log(self, request: feed_pb2.ReadLogRequest) -> feed_pb2.ReadLogResponse:
        """See FeedChannel."""
        response: feed_pb2.ReadLogResponse = await self.channels.invoke(
            self._stub.ReadLog, request, _call_of(self.channels.service)
        )
        return response

    async def get_heads(self, request: feed_pb2.GetHeadsRequest) -> feed_pb2.GetHeadsResponse:
        """See FeedChannel."""
        response: feed_pb2.GetHeadsResponse = await self.channels.invoke(
            self._stub.GetHeads, request, _call_of(self.channels.service)
        )
        return response


def _call_of(service: str) -> Call:
    """A consumer's call: it reads every tenant's events, so it is in none, and no business time applies."""
    return Call(
        tenant_id=EVERY_TENANT,
        client_id=service,
        actor=Actor(kind=ActorKind.SERVICE, id=service),
        now=datetime.fromtimestamp(0, UTC),
        time_zone=DEFAULT_TIME_ZONE,
        deadline_at=deadline_in(READ_TIMEOUT_S),
    )
