"""What relay and consumer tests share: writing events, and a consumer that counts its effects."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import text

from services.runtime import outbox, tenants
from services.runtime.call import Call
from services.runtime.consumer import Consumer
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.events import Event
from services.runtime.feed import Feed, FeedChannel, OwnFeed
from services.runtime.relay import Relay
from services.runtime.settings import Settings
from services.runtime.tenants import Tenant, Tenants
from tests.store.runtime.conftest import CONSUMER, NOON, PARTITIONS, PRODUCER, call_of, system_of

QUEUE = "accrual"


def event(aggregate_id: str, version: int, *, payload: bytes = b"paid") -> outbox.Recorded:
    return outbox.Recorded(
        type="commerce.OrderPaid",
        aggregate_type="order",
        aggregate_id=aggregate_id,
        version=version,
        partition_key=aggregate_id,
        payload=payload,
        occurred_at=NOON,
    )


async def write(connection: Connection, tenant_id: str, *events: outbox.Recorded) -> None:
    await outbox.record(connection, call_of(tenant_id), events, partitions=PARTITIONS)


async def publish(app: Database, tenant_id: str, *events: outbox.Recorded) -> None:
    await app.run(tenant_id, lambda connection: write(connection, tenant_id, *events))


async def add_tenant(database: Database, tenant_id: str) -> None:
    tenant = Tenant(id=tenant_id, time_zone="Asia/Shanghai", currency_code="CNY", test_clock_at=NOON)
    await database.run(tenant_id, lambda connection: tenants.apply(connection, tenant))


def relay_of(settings: Settings, system: Database, *, holder: str = "relay-1") -> Relay:
    return Relay(database=system, redis_url=settings.redis_url, holder=holder)


async def count_effects(connection: Connection, events: Sequence[Event], call: Call) -> None:
    """Counts each event; an event that comes twice is counted twice."""
    assert {one.tenant_id for one in events} == {call.tenant_id}
    await raw(connection).execute(
        "INSERT INTO effects (tenant_id, name) SELECT $1::uuid, e.name FROM unnest($2::text[]) AS e(name)"
        " ON CONFLICT ON CONSTRAINT effects_key DO UPDATE SET times = effects.times + 1",
        call.tenant_id,
        [f"{one.aggregate_id}/{one.version}" for one in events],
    )


def consumer_of(
    settings: Settings,
    consumer_app: Database,
    feed: FeedChannel,
    *,
    handler=count_effects,
    producer: str = PRODUCER,
    database: Database | None = None,
) -> Consumer:
    return Consumer(
        service=CONSUMER,
        producer=producer,
        queue=QUEUE,
        database=database or consumer_app,
        system=system_of(consumer_app),
        redis_url=settings.redis_url,
        feed_channel=feed,
        handler=handler,
        tenants=Tenants(database=consumer_app),
        partitions=PARTITIONS,
    )


def feed_of(system: Database) -> OwnFeed:
    return OwnFeed(Feed(system, PARTITIONS), PRODUCER)


async def effects(consumer_app: Database, tenant_id: str) -> dict[str, int]:
    async def work(connection: Connection) -> dict[str, int]:
        return {row.name: row.times for row in await connection.execute(text("SELECT name, times FROM effects"))}

    return await consumer_app.read(tenant_id, work)


async def totals(database: Database, query: str) -> list[tuple[int, ...]]:
    async def work(connection: Connection) -> list[tuple[int, ...]]:
        return [tuple(row) for row in await connection.execute(text(query))]

    return await database.read(EVERY_TENANT, work)


@contextlib.asynccontextmanager
async def running(*jobs: Relay | Consumer) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(job.run(stop)) for job in jobs]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def until(condition, *, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)
