"""A lease lets one process at a time do a job. It only saves work: whatever must not happen twice is fenced besides."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import DomainError

DEFAULT_TTL_S = 15.0

# the database's clock decides: the holders' clocks may differ
_TAKE = """
    INSERT INTO leases (name, holder, expires_at)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (name) DO UPDATE
    SET holder = excluded.holder, expires_at = excluded.expires_at
    WHERE leases.holder = excluded.holder OR leases.expires_at <= clock_timestamp()
    RETURNING true
"""
_GIVE_BACK = "DELETE FROM leases WHERE name = $1 AND holder = $2"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A named job of one service. `holder` is unique per process."""

    database: Database
    name: str
    holder: str
    ttl_s: float = DEFAULT_TTL_S

    async def take(self) -> bool:
        """Takes or extends the lease; False while another holds it, or while the database is away."""

        async def take(connection: Connection) -> bool:
            return bool(await raw(connection).fetchval(_TAKE, self.name, self.holder, self.ttl_s))

        try:
            return await self.database.run(EVERY_TENANT, take)
        except DomainError:
            return False

    async def give_back(self) -> None:
        """Lets the next one take it at once; without this it waits until the lease runs out."""

        async def give_back(connection: Connection) -> None:
            await raw(connection).execute(_GIVE_BACK, self.name, self.holder)

        await self.database.run(EVERY_TENANT, give_back)

    async def wait(self, stop: asyncio.Event) -> bool:
        """Waits until the lease is ours; False when told to stop first."""
        while not stop.is_set():
            if await self.take():
                return True
            await pause(stop, self.ttl_s / 3)
        return False


def this_process() -> str:
    """This process's name as a holder: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


async def repeat_leased(
    database: Database,
    name: str,
    work: Callable[[], Awaitable[bool | None]],
    *,
    every_s: float,
    stop: asyncio.Event,
) -> None:
    """Runs `work` again and again while the named lease is ours; at once where it says that there is more."""
    lease = Lease(database=database, name=name, holder=this_process())
    while await lease.wait(stop):
        more = False
        try:
            more = bool(await work())
        except DomainError as error:
            # the database or a peer is away; the next round finds it again
            _log.warning("a round was cut short", service=database.service, lease=name, reason=error.reason)
        await pause(stop, 0.0 if more else every_s)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleeps, and wakes early when told to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
