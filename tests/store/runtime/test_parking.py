"""An event that cannot be handled stops its tenant in its partition and nobody else; when it can be, all that waited
takes effect once and in order."""

import asyncio
import contextlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest
from structlog.testing import capture_logs

from services.runtime import audit, parking, unparking
from services.runtime.call import Call
from services.runtime.consumer import ATTEMPTS_BEFORE_PARKING, MovedError
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import Conflict, DomainError, Exhausted, Refused, TimedOut, Unavailable
from services.runtime.events import Event
from services.runtime.feed import Feed
from services.runtime.ids import new_id
from services.runtime.outbox import Recorded, partition_of
from services.runtime.reading import PartitionState
from services.runtime.settings import Settings
from siyu.common.v1 import feed_pb2
from tests.store.runtime.conftest import CONSUMER, NOON, PARTITIONS, PRODUCER, call_of, system_of
from tests.store.runtime.events import (
    QUEUE,
    add_tenant,
    consumer_of,
    effects,
    event,
    feed_of,
    publish,
    relay_of,
    running,
    totals,
    until,
)

ORDERS = [name for name in map("o-{}".format, range(100)) if partition_of(name, partitions=PARTITIONS) == 0]
"""Names of aggregates that share a partition."""
ELSEWHERE = next(name for name in map("o-{}".format, range(100)) if partition_of(name, partitions=PARTITIONS) == 1)
POISON = ORDERS[0]


async def in_order(connection: Connection, events: Sequence[Event], call: Call) -> None:
    """Leaves an effect of each event that tells which of the tenant's it was: 000:o-7/1."""
    done = await raw(connection).fetchval("SELECT count(*) FROM effects WHERE tenant_id = $1::uuid", call.tenant_id)
    await raw(connection).execute(
        "INSERT INTO effects (tenant_id, name) SELECT $1::uuid, e.name FROM unnest($2::text[]) AS e(name)",
        call.tenant_id,
        [f"{done + at:03}:{one.aggregate_id}/{one.version}" for at, one in enumerate(events)],
    )


@dataclass(slots=True)
class Bug:
    """A handler that fails at some aggregates of some tenants, after it has written, until it is mended."""

    tenant_id: str
    aggregates: set[str] = field(default_factory=lambda: {POISON})
    error: Callable[[], Exception] = lambda: ValueError("a bug")
    attempts: int = 0
    slow_s: float = 0.0

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        await in_order(connection, events, call)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if call.tenant_id == self.tenant_id and self.aggregates & {one.aggregate_id for one in events}:
            self.attempts += 1
            raise self.error()

    def mend(self) -> None:
        self.aggregates.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Two tenants whose orders share a partition, and what publishes and numbers their events."""

    app: Database
    system: Database
    consumer_app: Database
    settings: Settings
    ill: str
    well: str

    async def told(self, tenant_id: str, *events: Recorded) -> None:
        """Each call makes a block of its own."""
        await publish(self.app, tenant_id, *events)
        await relay_of(self.settings, self.system).drain()

    def consumer(self, bug: Bug):
        return consumer_of(self.settings, self.consumer_app, feed_of(self.system), handler=bug.handle)

    async def order_of(self, tenant_id: str) -> list[str]:
        """The tenant's effects as they came."""
        found = await effects(self.consumer_app, tenant_id)
        assert set(found.values()) <= {1}
        assert [name[:3] for name in sorted(found)] == [f"{at:03}" for at in range(len(found))]
        return [name[4:] for name in sorted(found)]

    async def parked(self) -> list[tuple[str, str, int]]:
        """What is parked in its order: aggregate and version, reason, attempts."""
        query = "SELECT aggregate_id || '/' || version, reason, attempts FROM parked_events ORDER BY seq, place"
        return await totals(system_of(self.consumer_app), query)  # type: ignore[return-value]

    async def hasten(self) -> None:
        """As a person may: the next attempt is due at once."""

        async def work(connection: Connection) -> None:
            await raw(connection).execute("UPDATE parked_events SET next_try_at = now()")

        await self.consumer_app.run(self.ill, work)

    async def all_taken(self) -> bool:
        """Whether the cursors stand where the heads do, with the same totals."""
        heads = await totals(
            self.system, "SELECT partition, next_seq - 1, events_total, checksum_total FROM log_heads ORDER BY 1"
        )
        cursors = await totals(
            self.consumer_app, "SELECT partition, seq, events_total, checksum_total FROM cursors ORDER BY 1"
        )
        return heads == [cursor for cursor in cursors if cursor[1]]

    async def none_parked(self) -> bool:
        return await self.all_taken() and not await self.parked()


@pytest.fixture
async def stage(app: Database, system: Database, consumer_app: Database, runtime_settings: Settings) -> Stage:
    found = Stage(
        app=app,
        system=system,
        consumer_app=consumer_app,
        # each test tells by itself what is read when; Redis is another's concern
        settings=runtime_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}),
        ill=new_id(),
        well=new_id(),
    )
    for tenant_id in (found.ill, found.well):
        await add_tenant(consumer_app, tenant_id)
    return found


async def _is(condition: bool) -> bool:
    return condition


async def postponed(stage: Stage) -> bool:
    """Whether the first parked event has failed by itself."""
    found = await stage.parked()
    return bool(found) and found[0][0].startswith(POISON) and found[0][2] > 0


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
        await until(lambda: _is(unparking.PARKED.labels(CONSUMER, QUEUE)._value.get() == 4))
        assert bug.attempts >= ATTEMPTS_BEFORE_PARKING + 1


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


async def test_what_cannot_be_parked_is_not_passed_over(stage: Stage) -> None:
    """The cursor moves with the parked rows or not at all."""
    bug = Bug(stage.ill)
    admin = await asyncpg.connect(stage.settings.admin_dsn())
    try:
        await admin.execute(f"ALTER TABLE {CONSUMER}.parked_events ADD CONSTRAINT full_up CHECK (false) NOT VALID")
        await stage.told(stage.ill, event(POISON, 1))
        consumer = stage.consumer(bug)
        async with running(consumer):
            await until(lambda: _is(bug.attempts > ATTEMPTS_BEFORE_PARKING))
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
        pytest.param(lambda: TimedOut("too late"), id="timed out"),
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
        await until(lambda: _is(bug.attempts >= 2))
        assert await stage.parked() == before
        bug.mend()
        await until(stage.none_parked)
    assert await stage.order_of(stage.ill) == [f"{POISON}/1", f"{ORDERS[1]}/1"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(lambda: Refused("an event is a fact", reason="NONSENSE"), "NONSENSE", id="a refusal"),
        pytest.param(lambda: KeyError("quoted"), "KeyError", id="a bug"),
        pytest.param(lambda: zlib.error("quoted"), "error", id="a payload that is not what it should be"),
    ],
)
async def test_what_is_told_names_the_event_and_quotes_nothing_of_it(stage: Stage, error, reason: str) -> None:
    bug = Bug(stage.ill, error=error)
    await stage.told(stage.ill, event(POISON, 7, payload=b"quoted"))
    with capture_logs() as logs:
        async with running(stage.consumer(bug)):
            await until(lambda: postponed(stage))
    assert [found[1] for found in await stage.parked()] == [reason]
    (told,) = [entry for entry in logs if entry["event"] == "events are parked"]
    assert (told["reason"], told["tenant_id"], told["partition"], told["events"]) == (reason, stage.ill, 0, 1)
    again = next(entry for entry in logs if entry["event"] == "a parked event can't be handled yet")
    assert (again["reason"], again["aggregate_id"], again["attempts"]) == (reason, POISON, 1)
    assert "test_parking.py" in again["stack"]
    assert "quoted" not in repr(logs)


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
                await until(lambda: _is(consumer.states[0] is PartitionState.UNREADABLE))
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


class NoBooks:
    """A service without checks of its own."""

    CHECKS: dict[str, str] = {}  # noqa: RUF012

    async def run(self, *_args, **_kwargs):
        return []

    async def figures(self, *_args):
        return {}


async def test_the_audit_is_red_while_an_event_is_parked_and_green_after(stage: Stage) -> None:
    desk = audit.AuditDesk(database=system_of(stage.consumer_app), books=NoBooks())

    async def parked(tenant_id: str) -> audit.Finding:
        audited = await desk.audit(call_of(tenant_id), prefix=f"{CONSUMER}.no_event")
        (finding,) = audited.findings
        return finding

    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1), event(ORDERS[1], 1))
    await stage.told(stage.well, event(ORDERS[1], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
        await until(stage.all_taken)
        finding = await parked(stage.ill)
        assert (finding.check, finding.ok, finding.examined) == (f"{CONSUMER}.no_event_is_parked", False, 2)
        for words in (
            "2 events have no effect here yet",
            "queue accrual can't handle commerce.OrderPaid",
            f"of order {POISON}",
            "ValueError",
            "1 wait behind it",
        ):
            assert words in finding.detail
        # another brand's books are whole
        assert (await parked(stage.well)).ok
        bug.mend()
        await until(stage.none_parked)
        finding = await parked(stage.ill)
        assert (finding.ok, finding.detail) == (True, "")


async def test_who_waits_for_an_event_is_not_told_that_a_parked_one_is_in_the_books(stage: Stage) -> None:
    feed = Feed(system_of(stage.consumer_app), PARTITIONS)

    async def position(tenant_id: str) -> int:
        request = feed_pb2.GetPositionsRequest(producer=PRODUCER, partition=0)
        (found,) = (await feed.get_positions(request, call_of(tenant_id))).positions
        return found.seq

    bug = Bug(stage.ill)
    await stage.told(stage.well, event(ORDERS[1], 1))
    await stage.told(stage.ill, event(POISON, 1))
    await stage.told(stage.well, event(ORDERS[2], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
        await until(stage.all_taken)
        assert (await position(stage.ill), await position(stage.well), await position(EVERY_TENANT)) == (1, 3, 3)
        bug.mend()
        await until(stage.none_parked)
        assert await position(stage.ill) == 3


async def test_parked_events_are_their_tenants_own(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))

    async def seen(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM parked_events")

    assert await stage.consumer_app.read(stage.ill, seen) == 1
    assert await stage.consumer_app.read(stage.well, seen) == 0

    async def removed(connection: Connection) -> None:
        await raw(connection).execute("DELETE FROM parked_events")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await system_of(stage.consumer_app).run(EVERY_TENANT, removed)


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
