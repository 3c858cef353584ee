"""Transactions of one tenant: isolation, retries, deadlines, cancelled tasks."""

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from services.runtime.database import EVERY_TENANT, Connection, Database, constraint_of, raw
from services.runtime.errors import Conflict, Exhausted, Invalid, TimedOut, Unavailable
from services.runtime.ids import new_id
from services.runtime.settings import Settings

INSERT = text("INSERT INTO effects (tenant_id, name) VALUES (CAST(:tenant AS uuid), :name)")


async def add(database: Database, tenant_id: str, name: str, *, owner: str | None = None) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(INSERT, {"tenant": owner or tenant_id, "name": name})

    await database.run(tenant_id, work)


async def names(database: Database, tenant_id: str) -> list[str]:
    async def work(connection: Connection) -> list[str]:
        # no predicate on purpose: row-level security is what is tested
        return list((await connection.execute(text("SELECT name FROM effects ORDER BY name"))).scalars())

    return await database.read(tenant_id, work)


async def test_a_forgotten_predicate_shows_only_the_callers_tenant(app: Database, system: Database) -> None:
    mine, theirs = new_id(), new_id()
    await add(app, mine, "mine")
    await add(app, theirs, "theirs")
    assert await names(app, mine) == ["mine"]
    assert await names(app, theirs) == ["theirs"]
    assert await names(system, EVERY_TENANT) == ["mine", "theirs"]


async def test_without_a_tenant_the_app_role_sees_nothing(app: Database, tenant_id: str) -> None:
    await add(app, tenant_id, "mine")
    assert await names(app, EVERY_TENANT) == []


async def test_a_row_of_another_tenant_cannot_be_written(app: Database, tenant_id: str) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"):
        await add(app, tenant_id, "foreign", owner=new_id())


async def test_an_update_without_a_predicate_touches_only_the_tenant(app: Database) -> None:
    mine, theirs = new_id(), new_id()
    await add(app, mine, "a")
    await add(app, theirs, "a")

    async def change_all(connection: Connection) -> int:
        return (await connection.execute(text("UPDATE effects SET times = times + 1"))).rowcount

    assert await app.run(mine, change_all) == 1


async def test_the_tenant_does_not_outlive_the_transaction(runtime_settings: Settings, tenant_id: str) -> None:
    database = Database.open(runtime_settings, service="commerce", pool_size=1)
    try:
        await add(database, tenant_id, "mine")
        async with database.engine.connect() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM effects"))).scalar_one() == 0
    finally:
        await database.close()


async def test_requests_of_other_tenants_are_hidden_behind_their_partitions_too(app: Database, tenant_id: str) -> None:
    async def look(connection: Connection) -> None:
        await connection.execute(text("SELECT * FROM requests_p0"))

    with pytest.raises(ProgrammingError, match="permission denied"):
        await app.run(tenant_id, look)


async def test_read_refuses_to_write(app: Database, tenant_id: str) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(INSERT, {"tenant": tenant_id, "name": "a"})

    # 25006 is also what a connection that outlived a failover gets
    with pytest.raises(Unavailable):
        await app.read(tenant_id, work)


async def test_a_read_sees_one_moment(app: Database, tenant_id: str) -> None:
    async def work(connection: Connection) -> list[int]:
        counted = []
        for name in ("a", "b"):
            counted.append((await connection.execute(text("SELECT count(*) FROM effects"))).scalar_one())
            await add(app, tenant_id, name)
        return counted

    assert await app.read(tenant_id, work) == [0, 0]
    assert await names(app, tenant_id) == ["a", "b"]


async def test_an_error_rolls_back(app: Database, tenant_id: str) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(INSERT, {"tenant": tenant_id, "name": "a"})
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await app.run(tenant_id, work)
    assert await names(app, tenant_id) == []


async def test_a_broken_constraint_is_told_by_name(app: Database, tenant_id: str) -> None:
    await add(app, tenant_id, "a")
    with pytest.raises(IntegrityError) as twice:
        await add(app, tenant_id, "a")
    assert constraint_of(twice.value) == "effects_key"

    async def raw_update(connection: Connection) -> None:
        await raw(connection).execute("UPDATE effects SET times = 1000")

    with pytest.raises(Exception, match="effects_bounded") as unbounded:
        await app.run(tenant_id, raw_update)
    assert constraint_of(unbounded.value) == "effects_bounded"
    assert constraint_of(ValueError("no constraint")) is None


async def test_a_text_that_cannot_be_stored_is_the_callers_fault(app: Database, tenant_id: str) -> None:
    with pytest.raises(Invalid) as refused:
        await add(app, tenant_id, "a\0b")
    assert refused.value.reason == "TEXT_NOT_STORABLE"
    await add(app, tenant_id, "ab")


async def test_an_error_that_was_swallowed_is_not_taken_for_a_commit(app: Database, tenant_id: str) -> None:
    await add(app, tenant_id, "a")

    async def work(connection: Connection) -> None:
        with contextlib.suppress(IntegrityError):
            await connection.execute(INSERT, {"tenant": tenant_id, "name": "a"})

    with pytest.raises(AssertionError, match="swallowed"):
        await app.run(tenant_id, work)
    assert await names(app, tenant_id) == ["a"]


async def test_a_conflict_that_the_work_reports_is_tried_again(app: Database, tenant_id: str) -> None:
    attempts = 0

    async def work(_connection: Connection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise Conflict("lost")
        return attempts

    assert await app.run(tenant_id, work) == 2


async def test_a_tenant_that_is_no_id_cannot_break_out_of_its_quotes(app: Database) -> None:
    async def tenant(connection: Connection) -> str:
        found: str = await raw(connection).fetchval("SELECT current_setting('siyu.tenant')")
        return found

    strange = "x', true); DROP TABLE effects; --"
    assert await app.run(strange, tenant) == strange


async def test_a_deadlock_is_tried_again_until_both_are_done(app: Database, tenant_id: str) -> None:
    await add(app, tenant_id, "a")
    await add(app, tenant_id, "b")
    attempts = 0

    async def both(connection: Connection, first: str, second: str) -> None:
        nonlocal attempts
        attempts += 1
        update = text("UPDATE effects SET times = times + 1 WHERE name = :name")
        await connection.execute(update, {"name": first})
        await asyncio.sleep(0.05)
        await connection.execute(update, {"name": second})

    await asyncio.gather(
        app.run(tenant_id, lambda connection: both(connection, "a", "b")),
        app.run(tenant_id, lambda connection: both(connection, "b", "a")),
    )

    async def times(connection: Connection) -> list[int]:
        return list((await connection.execute(text("SELECT times FROM effects"))).scalars())

    assert attempts > 2
    assert await app.read(tenant_id, times) == [3, 3]


async def test_a_race_that_stays_lost_is_a_conflict(app: Database, tenant_id: str) -> None:
    attempts = 0

    async def work(connection: Connection) -> None:
        nonlocal attempts
        attempts += 1
        await connection.execute(text("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(Conflict):
        await app.run(tenant_id, work)
    assert attempts == 5


async def test_the_deadline_stops_the_statement(app: Database, tenant_id: str) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(TimedOut):
        await app.run(tenant_id, work, timeout_s=0.1)
    with pytest.raises(TimedOut):
        await app.run(tenant_id, work, timeout_s=0.0)


async def test_a_cancelled_task_leaves_no_transaction_behind(runtime_settings: Settings, tenant_id: str) -> None:
    database = Database.open(runtime_settings, service="commerce", pool_size=1)
    try:
        assert await names(database, tenant_id) == []
        for delay_s in (0.0, 0.001, 0.002, 0.005, 0.02):

            async def work(connection: Connection) -> None:
                await connection.execute(INSERT, {"tenant": tenant_id, "name": "a"})
                await connection.execute(text("SELECT pg_sleep(1)"))

            task = asyncio.create_task(database.run(tenant_id, work))
            await asyncio.sleep(delay_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # a lock left behind by the cancelled one would make this wait until its time-out
            assert await names(database, tenant_id) == []
            await add(database, tenant_id, "b")

            async def clean(connection: Connection) -> None:
                await connection.execute(text("DELETE FROM effects"))

            await database.run(tenant_id, clean)
    finally:
        await database.close()


async def test_a_burst_of_cancelled_calls_costs_no_connections(runtime_settings: Settings, tenant_id: str) -> None:
    database = Database.open(runtime_settings, service="commerce", pool_size=2)

    async def backend(connection: Connection) -> int:
        pid: int = await raw(connection).fetchval("SELECT pg_backend_pid()")
        await asyncio.sleep(0.05)
        return pid

    async def slow(connection: Connection) -> None:
        await raw(connection).execute("SELECT pg_sleep(1)")

    before = set(await asyncio.gather(*(database.run(tenant_id, backend) for _ in range(2))))
    for _ in range(10):
        tasks = [asyncio.create_task(database.run(tenant_id, slow)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    after = set(await asyncio.gather(*(database.run(tenant_id, backend) for _ in range(2))))
    assert after == before
    await database.close()


async def test_a_full_pool_is_told_as_exhausted(runtime_settings: Settings, tenant_id: str) -> None:
    database = Database.open(runtime_settings, service="commerce", pool_size=1)
    database.engine.sync_engine.pool._timeout = 0.05
    release = asyncio.Event()
    entered = asyncio.Event()

    async def hold(_connection: Connection) -> None:
        entered.set()
        await release.wait()

    async def nothing(_connection: Connection) -> None:
        return None

    holding = asyncio.create_task(database.run(tenant_id, hold))
    await entered.wait()
    with pytest.raises(Exhausted):
        await database.run(tenant_id, nothing)
    release.set()
    await holding
    await database.close()


async def test_killed_connections_are_replaced_unseen(
    app: Database, runtime_settings: Settings, tenant_id: str
) -> None:
    await add(app, tenant_id, "a")
    lane = await app.lane()
    assert await lane.fetchval("SELECT 1") == 1
    await _kill_connections_of(runtime_settings, "siyu_commerce")
    assert await names(app, tenant_id) == ["a"]
    assert await lane.fetchval("SELECT 1") == 1
    async with lane.transaction(tenant_id) as connection:
        assert await connection.fetchval("SELECT count(*) FROM effects") == 1
    await lane.close()


async def test_a_lane_that_dies_under_its_statement_is_unavailable_once(
    app: Database, runtime_settings: Settings
) -> None:
    lane = await app.lane()
    sleeping = asyncio.create_task(lane.fetchval("SELECT pg_sleep(5)"))
    await asyncio.sleep(0.1)
    await _kill_connections_of(runtime_settings, "siyu_commerce")
    with pytest.raises(Unavailable):
        await sleeping
    assert await lane.fetchval("SELECT 1") == 1
    await lane.close()


async def test_an_absent_server_is_unavailable(runtime_settings: Settings, tenant_id: str) -> None:
    elsewhere = runtime_settings.model_copy(update={"database_url": "postgresql://localhost:1/siyu"})
    database = Database.open(elsewhere, service="commerce")
    with pytest.raises(Unavailable) as refused:
        await names(database, tenant_id)
    assert refused.value.retry_after_s > 0
    lane = await database.lane()
    with pytest.raises(Unavailable):
        await lane.fetchval("SELECT 1")
    with pytest.raises(Unavailable):
        await database.ping()
    await database.close()


async def _kill_connections_of(settings: Settings, role: str) -> None:
    admin = await asyncpg.connect(settings.admin_dsn())
    await admin.execute("SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = $1", role)
    await admin.close()
    await asyncio.sleep(0.05)
