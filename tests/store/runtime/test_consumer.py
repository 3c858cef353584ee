"""Every event takes effect exactly once and in order, whatever happens to Redis and to the processes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest_asyncio
from redis.asyncio import Redis

from services.runtime import log
from services.runtime.call import Call
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import Refused
from services.runtime.events import Event
from services.runtime.ids import new_id
from services.runtime.reading import PartitionState
from services.runtime.relay import stream_of
from services.runtime.settings import Settings
from siyu.common.v1 import feed_pb2
from tests.store.runtime.conftest import NOON, PARTITIONS, PRODUCER
from tests.store.runtime.events import (
    add_tenant,
    consumer_of,
    count_effects,
    effects,
    event,
    feed_of,
    publish,
    relay_of,
    running,
    totals,
    until,
)


@pytest_asyncio.fixture
async def redis(runtime_settings: Settings) -> AsyncIterator[Redis]:
    client = Redis.from_url(runtime_settings.redis_url)
    yield client
    await client.aclose()


async def audited(system: Database, consumer_app: Database) -> bool:
    """Whether the consumer's running totals equal the log's: each event exactly once."""
    # first of all: what leaves the outbox after a look at the heads would be in neither
    if await totals(system, "SELECT count(*) FROM outbox") != [(0,)]:
        return False
    heads = await totals(
        system,
        "SELECT partition, next_seq - 1, events_total, checksum_total FROM log_heads WHERE next_seq > 1 ORDER BY 1",
    )
    cursors = await totals(
        consumer_app, "SELECT partition, seq, events_total, checksum_total FROM cursors WHERE seq > 0 ORDER BY 1"
    )
    return heads == cursors


async def test_every_event_takes_effect_once(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings
) -> None:
    tenants = [new_id(), new_id()]
    for tenant_id in tenants:
        await add_tenant(consumer_app, tenant_id)
    async with running(
        relay_of(runtime_settings, system), consumer_of(runtime_settings, consumer_app, feed_of(system))
    ):
        for version in range(1, 11):
            for tenant_id in tenants:
                await publish(app, tenant_id, *(event(f"o-{number}", version) for number in range(5)))
        await until(lambda: audited(system, consumer_app))
    for tenant_id in tenants:
        found = await effects(consumer_app, tenant_id)
        assert found == {f"o-{number}/{version}": 1 for number in range(5) for version in range(1, 11)}


async def test_events_arrive_fast_through_redis(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    async with running(
        relay_of(runtime_settings, system), consumer_of(runtime_settings, consumer_app, feed_of(system))
    ):
        await publish(app, tenant_id, event("warm", 1), event("warm-too", 1))
        await until(lambda: audited(system, consumer_app))
        await asyncio.sleep(1.2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await publish(app, tenant_id, event("warm", 2), event("warm-too", 2))
        await until(lambda: audited(system, consumer_app))
        # far below the idle second after which a consumer would ask the feed
        assert loop.time() - began < 0.6


async def test_a_wiped_redis_loses_nothing(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, redis: Redis
) -> None:
    tenant_id = new_id()
    await add_tenant(consumer_app, tenant_id)
    async with running(
        relay_of(runtime_settings, system), consumer_of(runtime_settings, consumer_app, feed_of(system))
    ):
        for version in range(1, 31):
            await publish(app, tenant_id, *(event(f"o-{number}", version) for number in range(4)))
            if version % 5 == 0:
                await redis.delete(*(stream_of(PRODUCER, partition) for partition in range(PARTITIONS)))
        await until(lambda: audited(system, consumer_app))
    assert set((await effects(consumer_app, tenant_id)).values()) == {1}


async def test_without_redis_the_feed_is_enough(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    nowhere = runtime_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    async with running(relay_of(nowhere, system), consumer_of(nowhere, consumer_app, feed_of(system))):
        for version in range(1, 6):
            await publish(app, tenant_id, event("o-1", version), event("o-2", version))
        await until(lambda: audited(system, consumer_app))
    assert len(await effects(consumer_app, tenant_id)) == 10


async def test_a_relay_that_died_before_it_pushed_leaves_nothing_behind(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    relay = relay_of(runtime_settings, system)
    async with running(consumer_of(runtime_settings, consumer_app, feed_of(system))):
        await asyncio.sleep(0.3)
        await publish(app, tenant_id, event("o-1", 1))
        # drain numbers and never pushes: no gap shows in any stream
        assert await relay.drain() == 1
        await until(lambda: audited(system, consumer_app))


async def test_blocks_of_another_life_of_the_database_are_not_believed(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, redis: Redis
) -> None:
    tenant_id = new_id()
    await add_tenant(consumer_app, tenant_id)
    strange = log.pack([])
    for partition in range(PARTITIONS):
        stream = stream_of(PRODUCER, partition)
        await redis.delete(stream)
        for seq in (1, 2, 50):
            fields = {"log": new_id(), "tenant": tenant_id, "events": 1, "payload": strange}
            await redis.xadd(stream, fields, id=f"{seq}-0")
    async with running(
        relay_of(runtime_settings, system), consumer_of(runtime_settings, consumer_app, feed_of(system))
    ):
        await asyncio.sleep(0.3)
        assert await effects(consumer_app, tenant_id) == {}
        await publish(app, tenant_id, *(event(f"o-{number}", 1) for number in range(8)))
        await until(lambda: audited(system, consumer_app))
    for partition in range(PARTITIONS):
        newest = await redis.xrevrange(stream_of(PRODUCER, partition), count=1)
        assert newest[0][0] == b"1-0"


async def test_two_processes_on_one_queue_make_each_effect_once(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    feed = feed_of(system)
    async with running(
        relay_of(runtime_settings, system),
        consumer_of(runtime_settings, consumer_app, feed),
        consumer_of(runtime_settings, consumer_app, feed),
    ):
        for version in range(1, 21):
            await publish(app, tenant_id, *(event(f"o-{number}", version) for number in range(6)))
            await asyncio.sleep(0.01)
        await until(lambda: audited(system, consumer_app), timeout_s=20)
    assert set((await effects(consumer_app, tenant_id)).values()) == {1}


async def test_an_event_that_cannot_be_handled_is_tried_again_and_never_skipped(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    attempts = 0

    async def handler(connection: Connection, events: Sequence[Event], call: Call) -> None:
        nonlocal attempts
        await count_effects(connection, events, call)
        if any(one.aggregate_id == "poison" for one in events):
            attempts += 1
            if attempts == 1:
                raise ValueError("a bug")
            if attempts == 2:
                raise Refused("an event is a fact", reason="NONSENSE")

    # in the poison's partition, one before it and one behind it
    relay = relay_of(runtime_settings, system)
    for name in ("before", "poison", "behind"):
        await publish(app, tenant_id, event(name, 1))
        await relay.drain()
    consumer = consumer_of(runtime_settings, consumer_app, feed_of(system), handler=handler)
    async with running(consumer):
        await until(lambda: _is(attempts >= 2))
        assert PartitionState.FAILING in consumer.states.values()
        assert (await effects(consumer_app, tenant_id)).get("poison/1") is None
        await until(lambda: audited(system, consumer_app))
        await until(lambda: _is(set(consumer.states.values()) == {PartitionState.RUNNING}))
    assert await effects(consumer_app, tenant_id) == {"before/1": 1, "poison/1": 1, "behind/1": 1}


async def test_a_consumer_below_the_floor_says_so_and_waits(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    await publish(app, tenant_id, event("o-1", 1), event("o-2", 1), event("o-3", 1))
    await relay_of(runtime_settings, system).drain()

    async def truncate(connection: Connection) -> None:
        await raw(connection).execute("DELETE FROM log")
        await raw(connection).execute("UPDATE log_heads SET floor_seq = next_seq")

    await system.run(EVERY_TENANT, truncate)
    consumer = consumer_of(runtime_settings, consumer_app, feed_of(system))
    async with running(consumer):
        await until(lambda: _is(PartitionState.EVENTS_TRUNCATED in consumer.states.values()))
    assert await effects(consumer_app, tenant_id) == {}


async def test_a_cursor_beyond_the_log_is_told_and_not_hidden(
    system: Database, consumer_app: Database, runtime_settings: Settings
) -> None:
    async def ahead(connection: Connection) -> None:
        await raw(connection).execute(
            "INSERT INTO cursors (producer, queue, partition, seq) VALUES ('commerce', 'accrual', 0, 7)"
        )

    await consumer_app.run(EVERY_TENANT, ahead)
    consumer = consumer_of(runtime_settings, consumer_app, feed_of(system))
    async with running(consumer):
        await until(lambda: _is(consumer.states[0] is PartitionState.AHEAD_OF_LOG))
        assert consumer.states[1] is PartitionState.RUNNING


async def test_a_handler_acts_in_the_tenants_business_time_and_in_the_callers_trace(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    calls: list[Call] = []

    async def handler(_connection: Connection, _events: Sequence[Event], call: Call) -> None:
        calls.append(call)

    await publish(app, tenant_id, event("o-1", 1))
    await relay_of(runtime_settings, system).drain()
    async with running(consumer_of(runtime_settings, consumer_app, feed_of(system), handler=handler)):
        await until(lambda: _is(bool(calls)))
    (call,) = calls
    assert call.now == NOON
    assert (call.tenant_id, call.client_id, call.time_zone) == (tenant_id, "loyalty.accrual", "Asia/Shanghai")


async def test_events_of_a_tenant_that_is_not_known_yet_wait_for_it(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await publish(app, tenant_id, event("o-1", 1))
    await relay_of(runtime_settings, system).drain()
    async with running(consumer_of(runtime_settings, consumer_app, feed_of(system))):
        await asyncio.sleep(0.4)
        assert await effects(consumer_app, tenant_id) == {}
        await add_tenant(consumer_app, tenant_id)
        await until(lambda: audited(system, consumer_app))


async def test_the_producer_knows_how_far_its_readers_are(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    feed = feed_of(system)
    await publish(app, tenant_id, *(event(f"o-{number}", 1) for number in range(8)))
    async with running(relay_of(runtime_settings, system), consumer_of(runtime_settings, consumer_app, feed)):
        await until(lambda: audited(system, consumer_app))

        async def told() -> bool:
            return await totals(system, "SELECT reader, partition, seq FROM log_readers ORDER BY 2") == [
                ("loyalty.accrual", 0, 1),
                ("loyalty.accrual", 1, 1),
            ]

        await until(told)
    heads = await feed.get_heads(feed_pb2.GetHeadsRequest())
    assert [head.seq for head in heads.heads] == [1, 1]
    assert len(heads.log_id) == 36


async def test_a_handler_that_is_killed_in_the_middle_leaves_no_half_effect(
    app: Database, system: Database, consumer_app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add_tenant(consumer_app, tenant_id)
    entered = asyncio.Event()

    async def slow(connection: Connection, events: Sequence[Event], call: Call) -> None:
        await count_effects(connection, events, call)
        entered.set()
        await asyncio.sleep(30)

    await publish(app, tenant_id, event("o-1", 1))
    await relay_of(runtime_settings, system).drain()
    first = asyncio.create_task(
        consumer_of(runtime_settings, consumer_app, feed_of(system), handler=slow).run(asyncio.Event())
    )
    await entered.wait()
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    async with running(consumer_of(runtime_settings, consumer_app, feed_of(system))):
        await until(lambda: audited(system, consumer_app))
    assert await effects(consumer_app, tenant_id) == {"o-1/1": 1}


async def _is(condition: bool) -> bool:
    return condition
