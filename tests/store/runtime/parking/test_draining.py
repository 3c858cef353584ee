"""When what was parked can be handled, all that waited takes effect once and in order."""

import asyncio
import contextlib
from collections.abc import Sequence

import asyncpg
from structlog.testing import capture_logs

from services.runtime import parking
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Unavailable
from services.runtime.events import Event
from tests.store.runtime.conftest import CONSUMER, NOON, PRODUCER
from tests.store.runtime.events import QUEUE, consumer_of, event, feed_of, running, until
from tests.store.runtime.parking.conftest import ORDERS, POISON, Bug, Stage, is_true, postponed


async def test_when_the_handler_is_mended_all_drains_once_and_in_order(stage: Stage) -> None:
    bug = Bug(stage.ill)
    names = ORDERS[1:41]
    await stage.told(stage.ill, event(POISON, 1))
    for name in names:
        await stage.told(stage.ill, event(name, 1), event(name, 2))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
        await until(stage.all_taken)
        assert await stage.order_of(stage.ill) == []
        bug.mend()
        # nobody tells it: its own time comes
        await until(stage.none_parked)
        await stage.told(stage.ill, event(POISON, 2))
        await until(stage.none_parked)
    expected = [f"{POISON}/1", *(f"{name}/{version}" for name in names for version in (1, 2)), f"{POISON}/2"]
    assert await stage.order_of(stage.ill) == expected


async def test_a_second_poison_event_behind_the_first_stops_the_drain_where_it_is(stage: Stage) -> None:
    bug = Bug(stage.ill, aggregates={POISON, ORDERS[9]})
    await stage.told(stage.ill, event(POISON, 1), *(event(name, 1) for name in ORDERS[1:20]))
    with capture_logs() as logs:
        await _drained_at_last(stage, bug)
    blamed = {entry["aggregate_id"] for entry in logs if entry["event"] == "a parked event can't be handled yet"}
    assert blamed == {POISON, ORDERS[9]}, "those that failed with one of them are tried alone, and not blamed"
    assert await stage.order_of(stage.ill) == [f"{name}/1" for name in ORDERS[:20]]


async def _drained_at_last(stage: Stage, bug: Bug) -> None:
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
        bug.aggregates.remove(POISON)
        await stage.hasten()

        async def at_the_second() -> bool:
            return [name for name, _, attempts in await stage.parked() if attempts] == [f"{ORDERS[9]}/1"]

        await until(at_the_second)
        assert await stage.order_of(stage.ill) == [f"{name}/1" for name in ORDERS[:9]]
        bug.mend()
        await stage.hasten()
        await until(stage.none_parked)


async def test_two_processes_race_for_what_is_parked_and_make_each_effect_once(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, *(event(name, 1) for name in ORDERS[:30]))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
    bug.mend()
    bug.slow_s = 0.02
    await stage.hasten()
    async with running(*(stage.consumer(bug) for _ in range(3))):
        for name in ORDERS[30:40]:
            await stage.told(stage.ill, event(name, 1))
        await until(stage.none_parked, timeout_s=20)
    assert await stage.order_of(stage.ill) == [f"{name}/1" for name in ORDERS[:40]]


async def test_the_second_at_a_shelf_waits_and_never_takes_what_is_behind_the_first(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1), event(ORDERS[1], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
    await stage.hasten()
    shelf = parking.Shelf(tenant_id=stage.ill, producer=PRODUCER, queue=QUEUE, partition=0)

    async def second() -> parking.First | None:
        return await stage.consumer_app.run(stage.ill, lambda connection: parking.hold_first(connection, shelf))

    async def first(connection: Connection) -> parking.First | None:
        held = await parking.hold_first(connection, shelf)
        assert await second() is None
        return held

    held = await stage.consumer_app.run(stage.ill, first)
    assert held is not None
    assert held.aggregate_id == POISON
    assert await second() == held


async def test_a_process_that_dies_while_it_drains_neither_loses_nor_doubles(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, *(event(name, 1) for name in ORDERS[:4]))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
    bug.mend()
    await stage.hasten()
    entered = asyncio.Event()

    async def dies(connection: Connection, events: Sequence[Event], call: Call) -> None:
        await bug.handle(connection, events, call)
        # the first alone goes through: it is inside the second transaction that the process dies
        if events[0].aggregate_id != POISON:
            entered.set()
            await asyncio.sleep(30)

    dying = consumer_of(stage.settings, stage.consumer_app, feed_of(stage.system), handler=dies)
    task = asyncio.create_task(dying.run(asyncio.Event()))
    await asyncio.wait_for(entered.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await stage.order_of(stage.ill) == [f"{POISON}/1"]
    assert [name for name, _, _ in await stage.parked()] == [f"{name}/1" for name in ORDERS[1:4]]
    async with running(stage.consumer(bug)):
        await until(stage.none_parked)
    assert await stage.order_of(stage.ill) == [f"{name}/1" for name in ORDERS[:4]]


async def test_an_effect_stands_only_if_its_event_has_left_the_shelf(stage: Stage) -> None:
    """A drain whose commit fails at the last moment, after the handler is done, has done nothing."""
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1), event(ORDERS[1], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
    bug.mend()
    await stage.hasten()
    admin = await asyncpg.connect(stage.settings.admin_dsn())
    try:
        await admin.execute(
            f"CREATE FUNCTION {CONSUMER}.stays() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'stays'; END $$"
        )
        await admin.execute(
            f"CREATE CONSTRAINT TRIGGER stays AFTER DELETE ON {CONSUMER}.parked_events"
            f" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {CONSUMER}.stays()"
        )
        async with running(stage.consumer(bug)):

            async def failed_again() -> bool:
                return (await stage.parked())[0][2] > 1

            await until(failed_again)
            assert await stage.order_of(stage.ill) == []
            await admin.execute(f"DROP FUNCTION {CONSUMER}.stays() CASCADE")
            await until(stage.none_parked)
    finally:
        await admin.execute(f"DROP FUNCTION IF EXISTS {CONSUMER}.stays() CASCADE")
        await admin.close()
    assert await stage.order_of(stage.ill) == [f"{POISON}/1", f"{ORDERS[1]}/1"]


async def test_what_passes_by_itself_does_not_count_against_what_is_parked(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1), event(ORDERS[1], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
    before = await stage.parked()
    bug.error = lambda: Unavailable("identity is away")
    bug.attempts = 0
    await stage.hasten()
    async with running(stage.consumer(bug)):
        await until(lambda: is_true(bug.attempts >= 2))
        assert await stage.parked() == before
        bug.mend()
        await until(stage.none_parked)
    assert await stage.order_of(stage.ill) == [f"{POISON}/1", f"{ORDERS[1]}/1"]


async def test_an_event_comes_back_as_it_was(stage: Stage) -> None:
    seen: list[Event] = []
    fails = True

    async def handler(_connection: Connection, events: Sequence[Event], _call: Call) -> None:
        seen.extend(events)
        if fails:
            raise ValueError

    await stage.told(stage.ill, event(POISON, 3, payload=b"\x00\xff paid"))
    async with running(consumer_of(stage.settings, stage.consumer_app, feed_of(stage.system), handler=handler)):
        await until(lambda: postponed(stage))
        fails = False
        await until(stage.none_parked)
    assert set(seen) == {seen[0]}
    assert (seen[0].version, seen[0].payload, seen[0].occurred_at) == (3, b"\x00\xff paid", NOON)
