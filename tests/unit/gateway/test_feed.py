"""The feed's page over logs that fail as services do: between one question and the next."""

import time
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from gateway.cursor import CursorSeal
from gateway.feed import Feed, Logs, Page
from services.runtime.call import Actor, ActorKind, Call
from services.runtime.errors import DomainError, Refused, TimedOut, Unavailable
from siyu.common.v1 import event_pb2, feed_pb2

TENANT = "0199a3c4-7d1e-7000-8000-00000000000a"
SERVICES = ("identity", "loyalty", "commerce")
PARTITIONS = 3
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def call() -> Call:
    actor = Actor(kind=ActorKind.PARTNER, id="partner")
    return Call(
        tenant_id=TENANT, client_id="partner", actor=actor, now=NOON, time_zone="UTC", deadline_at=time.monotonic() + 9
    )


@dataclass(slots=True)
class Services:
    """Each service's every partition has one block with one event, told by its name; `dies` fails what reads it."""

    dies: dict[str, DomainError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def heads(self, _service: str, _call: Call) -> feed_pb2.GetHeadsResponse:
        heads = [feed_pb2.LogHead(partition=each, seq=1, floor_seq=1) for each in range(PARTITIONS)]
        return feed_pb2.GetHeadsResponse(heads=heads)

    async def read(self, service: str, request: feed_pb2.ReadLogRequest, _call: Call) -> feed_pb2.ReadLogResponse:
        self.asked.append(service)
        if service in self.dies:
            raise self.dies[service]
        event = event_pb2.EventEnvelope(event_id=f"{service}/{request.partition}", type="none.Known")
        payload = zlib.compress(event_pb2.EventBlock(events=[event]).SerializeToString())
        reply = feed_pb2.ReadLogResponse(next_seq=1)
        if request.after_seq == 0:
            reply.blocks.add(seq=1, tenant_id=TENANT, payload=payload, events=1)
        return reply

    async def page(self, cursor: str = "", *, limit: int = 100) -> Page:
        seal = CursorSeal.of("secret", services=SERVICES)
        feed = Feed(services=SERVICES, logs=Logs(heads=self.heads, read=self.read), seal=seal)
        return await feed.page(call(), cursor=cursor, limit=limit, start="oldest")


def ids(page: Page) -> list[str]:
    return [event["eventId"] for event in page.events]


EVERYTHING = sorted(f"{service}/{partition}" for service in SERVICES for partition in range(PARTITIONS))


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    "error", [pytest.param(Unavailable("gone"), id="dead"), pytest.param(TimedOut("late"), id="hangs")]
)
async def test_a_service_that_dies_after_it_told_its_heads_is_named_and_caught_up(
    error: DomainError, limit: int
) -> None:
    services = Services(dies={"loyalty": error})
    page = await services.page(limit=limit)
    found, away, cursor = ids(page), set(page.away), page.next_cursor
    while page.has_more:
        page = await services.page(cursor, limit=limit)
        found, away, cursor = [*found, *ids(page)], away | set(page.away), page.next_cursor
    assert sorted(found) == [each for each in EVERYTHING if not each.startswith("loyalty")]
    assert away == {"loyalty"}
    services.dies.clear()
    while len(found) < len(EVERYTHING):
        page = await services.page(cursor, limit=limit)
        assert page.events, "it is back, and its events are where they were"
        found, cursor = [*found, *ids(page)], page.next_cursor
    assert sorted(found) == EVERYTHING
    assert (page.away, page.has_more) == ((), False)


async def test_a_service_that_is_away_is_not_waited_for_at_each_partition() -> None:
    services = Services(dies={"commerce": Unavailable("gone"), "identity": Unavailable("gone")})
    page = await services.page()
    assert page.away == ("identity", "commerce")
    # four at once: all of commerce and the first of identity, which is then known to be away
    assert (services.asked.count("commerce"), services.asked.count("identity")) == (3, 1)
    assert sorted(ids(page)) == ["loyalty/0", "loyalty/1", "loyalty/2"]


async def test_another_refusal_refuses_the_page() -> None:
    with pytest.raises(Refused, match="truncated"):
        await Services(dies={"loyalty": Refused("truncated", reason="EVENTS_TRUNCATED")}).page()
