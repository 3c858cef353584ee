"""A server that falls silent, as one whose machine or network is gone: nobody says that the connection has ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import TimedOut, Unavailable
from services.runtime.settings import Settings

TIMEOUT_S = 0.3


@dataclass(slots=True)
class Wire:
    """Passes bytes on between clients and Postgres; once it is cut, it takes them and says nothing."""

    host: str
    port: int
    is_cut: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    ends: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes a client."""
        upstream, down = await asyncio.open_connection(self.host, self.port)
        self.ends += [writer, down]
        for source, target in ((reader, down), (upstream, writer)):
            self.tasks.add(asyncio.create_task(self._pass(source, target)))

    async def close(self) -> None:
        """Lets all go."""
        for end in self.ends:
            end.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.gather(*(end.wait_closed() for end in self.ends), return_exceptions=True)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if not self.is_cut:
                target.write(data)
        if not self.is_cut:
            target.close()


@asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[tuple[Wire, Database]]:
    """A database behind a wire."""
    parts = urlsplit(settings.database_url)
    wire = Wire(parts.hostname or "localhost", parts.port or 5432)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    there = settings.database_url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{port}")
    database = Database.open(
        settings.model_copy(update={"database_url": there}), service="commerce", role="system", pool_size=1
    )
    try:
        async with asyncio.timeout(8):
            yield wire, database
    finally:
        await database.close()
        server.close()
        await wire.close()


async def one(connection: Connection) -> int:
    found: int = await raw(connection).fetchval("SELECT 1")
    return found


async def test_a_transaction_ends_in_time(runtime_settings: Settings) -> None:
    async with wired(runtime_settings) as (wire, database):
        assert await database.read(EVERY_TENANT, one) == 1
        wire.is_cut = True
        with pytest.raises(TimedOut):
            await database.read(EVERY_TENANT, one, timeout_s=TIMEOUT_S)
        wire.is_cut = False
        assert await database.read(EVERY_TENANT, one) == 1


async def test_a_lane_is_opened_anew(runtime_settings: Settings) -> None:
    """It serves all calls of its kind: nothing else may wait for what never comes."""
    async with wired(runtime_settings) as (wire, database):
        lane = await database.lane(timeout_s=TIMEOUT_S)
        assert await lane.fetchval("SELECT 1") == 1
        wire.is_cut = True
        with pytest.raises(Unavailable):
            await lane.fetchval("SELECT 1")
        wire.is_cut = False
        assert await lane.fetchval("SELECT 1") == 1
        await lane.close()


async def test_a_lanes_transaction_ends_too(runtime_settings: Settings) -> None:
    async with wired(runtime_settings) as (wire, database):
        lane = await database.lane(timeout_s=TIMEOUT_S)

        async def work() -> None:
            async with lane.transaction(EVERY_TENANT) as connection:
                wire.is_cut = True
                await connection.fetchval("SELECT 1")

        with pytest.raises(Unavailable):
            await work()
        wire.is_cut = False
        assert await lane.fetchval("SELECT 1") == 1
        await lane.close()
