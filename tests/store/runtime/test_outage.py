"""Postgres killed with -9 and restarted: callers are told to come back, and everything finds it again by itself."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from services.console.stack import ports
from services.console.stack.postgres import SHARED_BUFFERS_MB_TO_TEST, EmbeddedPostgres, ensure_database
from services.console.stack.supervisor import Supervisor
from services.runtime import schema
from services.runtime.batching import Batcher
from services.runtime.call import deadline_in
from services.runtime.database import EVERY_TENANT, Connection, Database, Lane, raw
from services.runtime.errors import DomainError, Unavailable
from services.runtime.ids import new_id
from services.runtime.settings import Settings, role_name
from tests.conftest import ROLE_PASSWORD

TELLABLE = {"Unavailable", "TimedOut", "Exhausted"}


async def prepared(server: EmbeddedPostgres) -> Settings:
    await ensure_database(server.url("postgres"), database="siyu")
    settings = Settings(database_url=server.url("siyu"), role_password=ROLE_PASSWORD)
    connection = await asyncpg.connect(settings.admin_dsn())
    for statement in schema.roles("commerce", password=ROLE_PASSWORD):
        await connection.execute(statement)
    await connection.execute(f"SET ROLE {role_name('commerce', 'owner')}")
    await connection.execute("CREATE TABLE commerce.done (id uuid PRIMARY KEY)")
    await connection.close()
    return settings


async def insert(lane: Lane, _tenant_id: str, items: Sequence[str]) -> list[str]:
    """Idempotent, as the batcher asks for: an id that is there already is done."""
    await lane.fetch("INSERT INTO done SELECT unnest($1::uuid[]) ON CONFLICT DO NOTHING", list(items))
    return list(items)


async def test_an_outage_is_told_in_our_words_and_passes(tmp_path: Path) -> None:
    (port,) = ports.pick(1)
    server = EmbeddedPostgres.prepare(
        tmp_path / "postgres",
        port=port,
        password=ROLE_PASSWORD,
        shared_buffers_mb=SHARED_BUFFERS_MB_TO_TEST,
        log=tmp_path / "postgres.log",
    )
    async with Supervisor() as supervisor:
        await supervisor.start(server.program())
        settings = await prepared(server)
        database = Database.open(settings, service="commerce", pool_size=4)
        lanes = [await database.lane() for _ in range(2)]
        batcher: Batcher[Lane, str, str] = Batcher(lanes, insert)
        told: Counter[str] = Counter()
        acknowledged: set[str] = set()
        stop = asyncio.Event()

        async def one_by_one() -> None:
            while not stop.is_set():
                one = new_id()

                async def work(connection: Connection, one: str = one) -> None:
                    await raw(connection).execute("INSERT INTO done VALUES ($1::uuid)", one)

                try:
                    await database.run(EVERY_TENANT, work, timeout_s=3)
                    acknowledged.add(one)
                except DomainError as refusal:
                    told[type(refusal).__name__] += 1
                await asyncio.sleep(0.01)

        async def in_batches() -> None:
            while not stop.is_set():
                try:
                    acknowledged.add(await batcher.submit("t", new_id(), deadline_at=deadline_in(3)))
                except DomainError as refusal:
                    told[type(refusal).__name__] += 1
                await asyncio.sleep(0.01)

        callers = [asyncio.create_task(caller()) for caller in (one_by_one, one_by_one, in_batches, in_batches)]
        await asyncio.sleep(0.5)
        os.kill(supervisor.pids["postgres"], signal.SIGKILL)
        await asyncio.sleep(0.5)
        async with asyncio.timeout(60):
            while True:
                try:
                    await database.ping()
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        after = len(acknowledged)
        await asyncio.sleep(1.0)
        stop.set()
        # a raw driver error would have ended a caller
        await asyncio.gather(*callers)
        assert len(acknowledged) > after
        assert told
        assert set(told) <= TELLABLE

        async def found(connection: Connection) -> set[str]:
            return {str(row["id"]) for row in await raw(connection).fetch("SELECT id FROM done")}

        assert acknowledged <= await database.read(EVERY_TENANT, found)
        await batcher.close()
        for lane in lanes:
            await lane.close()
        await database.close()
