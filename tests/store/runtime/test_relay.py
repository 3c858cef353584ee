"""The relay loses nothing, whatever order transactions commit in, and numbers nothing twice."""

import asyncio

import asyncpg
import pytest
import structlog

from services.runtime import log
from services.runtime.database import EVERY_TENANT, Connection, Database, Lane, raw
from services.runtime.errors import Refused
from services.runtime.ids import new_id
from services.runtime.outbox import partition_of
from services.runtime.relay import LARGE_ROUND, OLDEST_S, FencedError, Relay
from services.runtime.settings import Settings
from siyu.common.v1 import event_pb2
from tests.store.runtime.conftest import NOON, PARTITIONS
from tests.store.runtime.events import event, publish, relay_of, totals, write


async def logged(system: Database) -> dict[int, list[event_pb2.EventEnvelope]]:
    """The log's events by partition, in the order of their numbers."""

    async def work(connection: Connection) -> dict[int, list[event_pb2.EventEnvelope]]:
        rows = await raw(connection).fetch("SELECT partition, seq, payload FROM log ORDER BY partition, seq")
        found: dict[int, list[event_pb2.EventEnvelope]] = {}
        numbers: dict[int, list[int]] = {}
        for row in rows:
            found.setdefault(row["partition"], []).extend(log.unpack(row["payload"]).events)
            numbers.setdefault(row["partition"], []).append(row["seq"])
        assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in numbers.values())
        return found

    return await system.read(EVERY_TENANT, work)


async def names(system: Database) -> list[str]:
    by_partition = await logged(system)
    return [f"{one.aggregate_id}/{one.aggregate_version}" for events in by_partition.values() for one in events]


async def test_an_event_reaches_the_log_whole(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await publish(app, tenant_id, event("order-1", 1, payload=b"\x00payload"))
    assert await relay_of(runtime_settings, system).drain() == 1
    (events,) = (await logged(system)).values()
    (one,) = events
    assert (one.type, one.aggregate_type, one.aggregate_id, one.aggregate_version, one.payload) == (
        "commerce.OrderPaid",
        "order",
        "order-1",
        1,
        b"\x00payload",
    )
    assert one.tenant_id == tenant_id
    assert one.occurred_at.ToDatetime() == NOON.replace(tzinfo=None)
    assert await totals(system, "SELECT count(*) FROM outbox") == [(0,)]
    ((partition, events_total, checksum),) = await totals(
        system, "SELECT partition, events_total, checksum_total FROM log_heads"
    )
    assert partition == partition_of("order-1", PARTITIONS)
    assert (events_total, checksum) == (1, log.checksum([one.event_id]))


async def test_transactions_that_commit_out_of_order_lose_nothing(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    relay = relay_of(runtime_settings, system)
    written, go_on = asyncio.Event(), asyncio.Event()

    async def slow(connection: Connection) -> None:
        await write(connection, tenant_id, event("slow", 1))
        written.set()
        await go_on.wait()

    slow_one = asyncio.create_task(app.run(tenant_id, slow))
    await written.wait()
    # begins later, commits first: its row may not be numbered past the one that is still invisible
    await publish(app, tenant_id, event("fast", 1))
    assert await relay.drain() == 0
    go_on.set()
    await slow_one
    assert await relay.drain() == 2
    assert sorted(await names(system)) == ["fast/1", "slow/1"]


async def test_an_aggregates_events_are_ordered_by_version_whoever_began_first(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    began, first_done = asyncio.Event(), asyncio.Event()

    async def began_first_and_writes_second(connection: Connection) -> None:
        await raw(connection).fetchval("SELECT pg_current_xact_id()")
        began.set()
        await first_done.wait()
        await write(connection, tenant_id, event("order-1", 2))

    task = asyncio.create_task(app.run(tenant_id, began_first_and_writes_second))
    await began.wait()
    await publish(app, tenant_id, event("order-1", 1))
    first_done.set()
    await task
    assert await relay_of(runtime_settings, system).drain() == 2
    assert await names(system) == ["order-1/1", "order-1/2"]


async def test_a_transaction_that_rolls_back_leaves_no_event_and_no_gap(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    relay = relay_of(runtime_settings, system)

    async def work(connection: Connection) -> None:
        await write(connection, tenant_id, event("never", 1))
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await app.run(tenant_id, work)
    await publish(app, tenant_id, event("order-1", 1))
    assert await relay.drain() == 1
    assert await names(system) == ["order-1/1"]


async def test_many_writers_and_two_relays_number_each_event_once(
    app: Database, system: Database, runtime_settings: Settings
) -> None:
    tenants = [new_id() for _ in range(3)]
    second_system = Database.open(runtime_settings, service="commerce", role="system", pool_size=2)
    done = asyncio.Event()

    async def drain_on(relay: Relay) -> None:
        while not done.is_set():
            try:
                await relay.drain()
            except FencedError:
                continue

    async def writer(number: int) -> None:
        for version in range(1, 21):
            await publish(app, tenants[number % 3], event(f"order-{number}", version))

    relays = [
        asyncio.create_task(drain_on(relay_of(runtime_settings, database, holder=str(number))))
        for number, database in enumerate((system, second_system))
    ]
    await asyncio.gather(*(writer(number) for number in range(6)))
    done.set()
    await asyncio.gather(*relays)
    await relay_of(runtime_settings, system).drain()
    found = await names(system)
    assert sorted(found) == sorted(f"order-{number}/{version}" for number in range(6) for version in range(1, 21))
    for number in range(6):
        own = [name for name in found if name.startswith(f"order-{number}/")]
        assert own == [f"order-{number}/{version}" for version in range(1, 21)]
    heads = await totals(system, "SELECT sum(events_total)::int FROM log_heads")
    assert heads == [(120,)]
    await second_system.close()


async def test_a_relay_that_was_overtaken_changes_nothing(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    relay = relay_of(runtime_settings, system)
    await publish(app, tenant_id, event("order-1", 1))
    moved, go_on = asyncio.Event(), asyncio.Event()

    async def overtake(connection: Connection) -> None:
        await raw(connection).execute("UPDATE relay_horizon SET horizon = '1'")
        moved.set()
        await go_on.wait()

    overtaking = asyncio.create_task(system.run(EVERY_TENANT, overtake))
    await moved.wait()
    draining = asyncio.create_task(relay.drain())
    await asyncio.sleep(0.2)
    go_on.set()
    await overtaking
    with pytest.raises(FencedError):
        await draining
    assert await names(system) == []
    assert await relay.drain() == 1
    assert await names(system) == ["order-1/1"]


async def test_after_a_restore_the_transaction_ids_start_anew_and_nothing_is_stuck(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    relay = relay_of(runtime_settings, system)

    async def as_restored(connection: Connection) -> None:
        await raw(connection).execute("UPDATE relay_horizon SET horizon = '99000000'")
        await write(connection, tenant_id, event("before", 1))
        await raw(connection).execute("UPDATE outbox SET xid = '98000000'")

    await system.run(EVERY_TENANT, as_restored)
    await publish(app, tenant_id, event("after", 1))
    assert await relay.drain() == 2
    assert sorted(await names(system)) == ["after/1", "before/1"]
    await publish(app, tenant_id, event("later", 1))
    assert await relay.drain() == 1


async def test_events_that_wait_behind_a_long_transaction_raise_the_alarm(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    relay = relay_of(runtime_settings, system)
    lane = await system.lane()
    began, go_on = asyncio.Event(), asyncio.Event()

    async def long_one(connection: Connection) -> None:
        await raw(connection).fetchval("SELECT pg_current_xact_id()")
        began.set()
        await go_on.wait()

    task = asyncio.create_task(app.run(tenant_id, long_one))
    await began.wait()
    await publish(app, tenant_id, event("o-1", 1))
    assert await relay.drain() == 0

    async def age(connection: Connection) -> None:
        await raw(connection).execute("UPDATE outbox SET posted_at = posted_at - interval '20 seconds'")

    await system.run(EVERY_TENANT, age)
    with structlog.testing.capture_logs() as logs:
        await relay._look_for_stuck(lane)
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert OLDEST_S.labels("commerce")._value.get() > 20
    go_on.set()
    await task
    await lane.close()


async def test_a_round_that_takes_long_to_number_is_not_taken_for_an_idle_transaction(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    async def gathered(connection: Connection) -> None:
        await raw(connection).execute(
            """
            INSERT INTO outbox (tenant_id, event_id, type, aggregate_type, aggregate_id, version, partition, payload,
                                occurred_at)
            SELECT $1::uuid, gen_random_uuid(), 'commerce.OrderPaid', 'order', n::text, 1, 0, sha512(n::text::bytea),
                   now()
            FROM generate_series(1, $2::int) AS n
            """,
            tenant_id,
            4 * LARGE_ROUND,
        )

    await app.run(tenant_id, gathered)
    lane = Lane(
        dsn=system.dsn,
        server_settings={"search_path": "commerce", "idle_in_transaction_session_timeout": "500"},
        timeout_s=30,
    )
    blocks = await relay_of(runtime_settings, system)._round(lane)
    assert sum(block.events for block in blocks) == 4 * LARGE_ROUND
    await lane.close()


async def test_the_app_role_can_neither_read_nor_take_back_an_event(app: Database, tenant_id: str) -> None:
    for statement in ("SELECT 1 FROM outbox", "DELETE FROM outbox", "INSERT INTO log SELECT * FROM log"):

        async def work(connection: Connection, statement: str = statement) -> None:
            await raw(connection).execute(statement)

        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.run(tenant_id, work)


async def test_the_feed_reads_on_and_tells_what_is_gone(
    app: Database, system: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    relay = relay_of(runtime_settings, system)
    other = new_id()
    keys = [f"o-{number}" for number in range(40)]
    in_first = [key for key in keys if partition_of(key, PARTITIONS) == 0][:6]
    for number, key in enumerate(in_first):
        await publish(app, tenant_id if number % 2 == 0 else other, event(key, 1))
        await relay.drain()

    async def read(after_seq: int, *, max_blocks: int = 4, only: str = "") -> tuple[list[int], int]:
        blocks, following = await system.read(
            EVERY_TENANT,
            lambda connection: log.read(
                connection, partition=0, after_seq=after_seq, max_blocks=max_blocks, only_tenant_id=only
            ),
        )
        return [block.seq for block in blocks], following

    assert await read(0) == ([1, 2, 3, 4], 4)
    assert await read(4) == ([5, 6], 6)
    assert await read(6) == ([], 6)
    assert await read(0, only=tenant_id, max_blocks=2) == ([1, 3], 3)
    assert await read(3, only=tenant_id, max_blocks=2) == ([5], 6)

    async def note(connection: Connection) -> None:
        await log.note_reader(connection, "loyalty.accrual", {0: 3})

    await system.run(EVERY_TENANT, note)
    assert await system.run(EVERY_TENANT, log.trim) == 0
    admin = await asyncpg.connect(runtime_settings.admin_dsn())
    await admin.execute("UPDATE commerce.log SET created_at = created_at - interval '8 days'")
    await admin.close()
    # old enough, but the reader has only passed three of them
    assert await system.run(EVERY_TENANT, log.trim) == 3
    assert await read(3) == ([4, 5, 6], 6)
    with pytest.raises(Refused) as truncated:
        await read(2)
    assert truncated.value.reason == "EVENTS_TRUNCATED"
    assert truncated.value.metadata == {"floor_seq": "4"}
