"""An event that cannot be handled stops its tenant in its partition and nobody else."""

import asyncio
from collections.abc import Callable, Sequence

import asyncpg
import pytest
from structlog.testing import capture_logs

from services.runtime import parking, unparking
from services.runtime.call import Call
from services.runtime.consumer import ATTEMPTS_BEFORE_PARKING, MovedError
from services.runtime.database import Connection, Database, raw
from services.runtime.errors import Conflict, DomainError, Exhausted, TimedOut, Unavailable
from services.runtime.events import Event
from services.runtime.ids import new_id
from services.runtime.reading import PartitionState
from siyu.common.v1 import feed_pb2
from tests.store.runtime.conftest import CONSUMER, PRODUCER
from tests.store.runtime.events import QUEUE, add_tenant, consumer_of, event, feed_of, running, until
from tests.store.runtime.parking.conftest import ELSEWHERE, ORDERS, POISON, Bug, Stage, in_order, is_true, postponed


async def test_a_poison_event_stops_its_tenant_in_its_partition_and_nobody_else(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(ORDERS[1], 1), event(POISON, 1), event(ORDERS[2], 1))
    await stage.told(stage.well, event(POISON, 1), event(ORDERS[1], 1))
    await stage.told(stage.ill, event(ORDERS[1], 2), event(ELSEWHERE, 1))
    consumer = stage.consumer(bug)
    async with running(consumer):
        await until(stage.all_taken)
        await until(lambda: postponed(stage))
        # the other brand has not so much as noticed, and the ill one goes on in its other partition
        assert await stage.order_of(stage.well) == [f"{POISON}/1", f"{ORDERS[1]}/1"]
        assert sorted(await stage.order_of(stage.ill)) == sorted([f"{ORDERS[1]}/1", f"{ELSEWHERE}/1"])
        assert set(consumer.states.values()) == {PartitionState.RUNNING}
        # what comes now waits behind
        await stage.told(stage.ill, event(ORDERS[3], 1))
        await stage.told(stage.well, event(ORDERS[3], 1))
        await until(stage.all_taken)
        assert (await stage.order_of(stage.well))[-1] == f"{ORDERS[3]}/1"
        waiting = await stage.parked()
        assert [name for name, _, _ in waiting] == [
            f"{POISON}/1",
            f"{ORDERS[2]}/1",
            f"{ORDERS[1]}/2",
            f"{ORDERS[3]}/1",
        ]
        assert [reason for _, reason, _ in waiting] == ["ValueError", "ValueError", parking.BEHIND, parking.BEHIND]
        await until(lambda: is_true(unparking.PARKED.labels(CONSUMER, QUEUE)._value.get() == 4))
        assert bug.attempts >= ATTEMPTS_BEFORE_PARKING + 1


async def test_what_cannot_be_parked_is_not_passed_over(stage: Stage) -> None:
    """The cursor moves with the parked rows or not at all."""
    bug = Bug(stage.ill)
    admin = await asyncpg.connect(stage.settings.admin_dsn())
    try:
        await admin.execute(f"ALTER TABLE {CONSUMER}.parked_events ADD CONSTRAINT full_up CHECK (false) NOT VALID")
        await stage.told(stage.ill, event(POISON, 1))
        consumer = stage.consumer(bug)
        async with running(consumer):
            await until(lambda: is_true(bug.attempts > ATTEMPTS_BEFORE_PARKING))
            assert consumer.states[0] is PartitionState.FAILING
            assert not await stage.all_taken()
            await admin.execute(f"ALTER TABLE {CONSUMER}.parked_events DROP CONSTRAINT full_up")
            await until(stage.all_taken)
            bug.mend()
            await until(stage.none_parked)
    finally:
        await admin.execute(f"ALTER TABLE {CONSUMER}.parked_events DROP CONSTRAINT IF EXISTS full_up")
        await admin.close()
    assert await stage.order_of(stage.ill) == [f"{POISON}/1"]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(lambda: Unavailable("identity is away"), id="unavailable"),
        pytest.param(lambda: Conflict("lost a race"), id="conflict"),
        pytest.param(lambda: Exhausted("a full queue"), id="exhausted"),
    ],
)
async def test_what_passes_by_itself_never_parks(stage: Stage, error: Callable[[], DomainError]) -> None:
    raised = 0

    async def handler(connection: Connection, events: Sequence[Event], call: Call) -> None:
        nonlocal raised
        await in_order(connection, events, call)
        if raised <= ATTEMPTS_BEFORE_PARKING:
            # whole attempts: the database itself tries a lost race again
            raised += 0.2 if isinstance(error(), Conflict) else 1
            raise error()

    await stage.told(stage.ill, event(POISON, 1))
    consumer = consumer_of(stage.settings, stage.consumer_app, feed_of(stage.system), handler=handler)
    with capture_logs() as logs:
        async with running(consumer):
            await until(stage.all_taken)
    assert raised > ATTEMPTS_BEFORE_PARKING
    assert await stage.order_of(stage.ill) == [f"{POISON}/1"]
    assert {entry["event"] for entry in logs if entry["log_level"] != "info"} <= {
        "events wait",
        "gave up on a transaction",
    }


async def test_an_event_that_takes_too_long_each_time_stops_its_tenant_and_nobody_else(stage: Stage) -> None:
    bug = Bug(stage.ill, error=lambda: TimedOut("too late"))
    await stage.told(stage.ill, event(POISON, 1), event(ORDERS[1], 1))
    await stage.told(stage.well, event(ORDERS[1], 1))
    consumer = stage.consumer(bug)
    async with running(consumer):
        await until(stage.all_taken)
        assert await stage.order_of(stage.well) == [f"{ORDERS[1]}/1"]
        # where it is parked it rests as others do, and is not tried all the time
        await until(lambda: postponed(stage))
        assert {reason for _, reason, _ in await stage.parked()} == {"DEADLINE_EXCEEDED"}
        assert set(consumer.states.values()) == {PartitionState.RUNNING}
        assert bug.attempts >= ATTEMPTS_BEFORE_PARKING + 1
        bug.mend()
        await until(stage.none_parked)
    assert await stage.order_of(stage.ill) == [f"{POISON}/1", f"{ORDERS[1]}/1"]


class Silent(Database):
    """A database that answers nobody in time."""

    async def ping(self) -> None:
        raise TimedOut("the deadline passed while the database worked")


async def test_time_that_runs_out_while_the_database_answers_nobody_parks_nothing(stage: Stage) -> None:
    app = stage.consumer_app
    silent = Silent(engine=app.engine, dsn=app.dsn, service=app.service, role=app.role)
    bug = Bug(stage.ill, error=lambda: TimedOut("too late"))
    await stage.told(stage.ill, event(POISON, 1))
    async with running(stage.consumer(bug, database=silent)):
        await until(lambda: is_true(bug.attempts > ATTEMPTS_BEFORE_PARKING + 1))
        assert not await stage.parked()
        assert not await stage.all_taken()
        bug.mend()
        await until(stage.all_taken)
    assert await stage.order_of(stage.ill) == [f"{POISON}/1"]


async def test_what_is_parked_does_not_answer_for_a_database_that_answers_nobody(stage: Stage) -> None:
    app = stage.consumer_app
    silent = Silent(engine=app.engine, dsn=app.dsn, service=app.service, role=app.role)
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
    before = await stage.parked()
    bug.error, bug.attempts = lambda: TimedOut("too late"), 0
    await stage.hasten()
    async with running(stage.consumer(bug, database=silent)):
        await until(lambda: is_true(bug.attempts >= 2))
        assert await stage.parked() == before


async def test_a_tenant_that_does_not_come_stops_nobody_else(stage: Stage) -> None:
    """Its event may be parked itself, in another queue; what it waits for is handled in order once it is there."""
    unborn = new_id()
    await stage.told(unborn, event(ORDERS[1], 1))
    await stage.told(unborn, event(ORDERS[1], 2))
    await stage.told(stage.well, event(ORDERS[1], 1))
    consumer = stage.consumer(Bug(stage.ill))
    async with running(consumer):
        await until(stage.all_taken)
        assert await stage.order_of(stage.well) == [f"{ORDERS[1]}/1"]
        assert [(name, reason) for name, reason, _ in await stage.parked()] == [
            (f"{ORDERS[1]}/1", "TENANT_NOT_READY"),
            (f"{ORDERS[1]}/2", parking.BEHIND),
        ]
        assert set(consumer.states.values()) == {PartitionState.RUNNING}
        await add_tenant(stage.consumer_app, unborn)
        await until(stage.none_parked)
    assert await stage.order_of(unborn) == [f"{ORDERS[1]}/1", f"{ORDERS[1]}/2"]


async def test_a_broken_constraint_and_a_number_too_large_are_bugs_and_not_outages(stage: Stage) -> None:
    statements = {
        ORDERS[0]: ("UPDATE effects SET times = $1", 1000, "CheckViolationError effects_bounded"),
        # the driver refuses it before the database sees it
        ORDERS[1]: ("UPDATE effects SET times = $1", 2**40, "DataError"),
    }

    async def handler(connection: Connection, events: Sequence[Event], call: Call) -> None:
        await in_order(connection, events, call)
        for one in events:
            statement, value, _ = statements[one.aggregate_id]
            await raw(connection).execute(statement, value)

    for tenant_id, name in ((stage.ill, ORDERS[0]), (stage.well, ORDERS[1])):
        await stage.told(tenant_id, event(name, 1))
    async with running(consumer_of(stage.settings, stage.consumer_app, feed_of(stage.system), handler=handler)):
        await until(stage.all_taken)
    assert [reason for _, reason, _ in await stage.parked()] == [reason for _, _, reason in statements.values()]


async def test_a_damaged_block_stops_its_partition_aloud_and_parks_nothing(stage: Stage) -> None:
    """Whose and how many events it holds is not known; its producer has to mend its log, and then all goes on."""
    bug = Bug("")
    await stage.told(stage.well, event(ORDERS[1], 1))
    await stage.told(stage.ill, event(ORDERS[2], 1))
    await stage.told(stage.well, event(ORDERS[3], 1))
    admin = await asyncpg.connect(stage.settings.admin_dsn())
    try:
        whole = await admin.fetchval(f"SELECT payload FROM {PRODUCER}.log WHERE partition = 0 AND seq = 2")
        await admin.execute(f"UPDATE {PRODUCER}.log SET payload = $1 WHERE partition = 0 AND seq = 2", whole[:-4])
        consumer = stage.consumer(bug)
        with capture_logs() as logs:
            async with running(consumer):
                await until(lambda: is_true(consumer.states[0] is PartitionState.UNREADABLE))
                await asyncio.sleep(1.0)
                assert await stage.order_of(stage.well) == [f"{ORDERS[1]}/1"]
                assert await stage.parked() == []
                await admin.execute(f"UPDATE {PRODUCER}.log SET payload = $1 WHERE partition = 0 AND seq = 2", whole)
                await until(stage.all_taken)
    finally:
        await admin.close()
    told = next(entry for entry in logs if entry["event"] == "this partition cannot go on")
    assert told["reason"] == "unreadable"
    assert "block 2" in told["detail"]
    assert await stage.order_of(stage.well) == [f"{ORDERS[1]}/1", f"{ORDERS[3]}/1"]
    assert await stage.order_of(stage.ill) == [f"{ORDERS[2]}/1"]


async def test_a_cursor_that_another_moved_parks_nothing(stage: Stage) -> None:
    """What the slower of two processes would park has been parked, or handled, by the other."""
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1))
    slow = stage.consumer(bug)
    cursor = await slow._load_cursor(0)
    async with running(stage.consumer(bug)):
        await until(stage.all_taken)
    request = feed_pb2.ReadLogRequest(partition=0)
    (block,) = (await feed_of(stage.system).read_log(request)).blocks
    from services.runtime.consumer import _batches
    from services.runtime.reading import Block

    (batch,) = _batches([Block(seq=block.seq, tenant_id=block.tenant_id, payload=block.payload)], one_by_one=True)
    with pytest.raises(MovedError):
        await slow._park(0, cursor, batch, ValueError())
    assert len(await stage.parked()) == 1
