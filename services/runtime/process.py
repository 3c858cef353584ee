"""One process: some roles of one service, on one event loop, with health, drain and an orderly end.

A role is a process of its own in a cluster; on one machine several may share one. Every process serves gRPC health,
also the workers, so that the same probe asks all of them.
"""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import redis.asyncio
import stamina
import structlog
import uvloop

from services.runtime import logs, telemetry
from services.runtime.auth import TokenVerifier
from services.runtime.channels import Channels
from services.runtime.database import Database
from services.runtime.errors import Unavailable
from services.runtime.migrations import check_migrated
from services.runtime.server import GrpcServer
from services.runtime.settings import SERVICES, DatabaseRole, Settings
from services.runtime.tenants import Tenants

REDIS_TIMEOUT_S = 1.0
STOP_GRACE_S = 5.0
POSTGRES_WAIT_S = 60.0
# New objects between two looks for cycles, by generation. Python's 700 look at each few calls, and sooner or later at
# everything that the imports made: a sixth of a busy process's time.
GC_THRESHOLDS = (20_000, 20, 50)

_log = structlog.get_logger(__name__)


class Started(Protocol):
    """A role at work."""

    async def stop(self) -> None:
        """Finishes what is in flight and ends."""
        ...


@dataclass(slots=True)
class Context:
    """What the roles of a process share. Databases and channels are opened when first asked for."""

    settings: Settings
    service: str
    stop: asyncio.Event
    channels: Channels
    server: GrpcServer
    tenants: Tenants
    _databases: dict[DatabaseRole, Database]
    _closing: AsyncExitStack

    def database(self, role: DatabaseRole = "app") -> Database:
        """The pool of one of the service's database roles."""
        if role not in self._databases:
            self._databases[role] = _open(self.settings, self.service, role, self._closing)
        return self._databases[role]

    def redis(self, *, blocking_s: float = 0.0) -> redis.asyncio.Redis:
        """A client of its own for each caller. A blocking reader names its longest wait, so that it is no time-out."""
        client = redis.asyncio.Redis.from_url(
            self.settings.redis_url,
            socket_timeout=REDIS_TIMEOUT_S + blocking_s,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            health_check_interval=15,
        )
        self._closing.push_async_callback(client.aclose)
        return client


@dataclass(frozen=True, slots=True)
class Role:
    """A name ("api", "relay", "sweeper", "worker:<queue>") and what starts it."""

    name: str
    start: Callable[[Context], Awaitable[Started]]


@dataclass(frozen=True, slots=True)
class Task:
    """A role that is one coroutine: it runs until the process stops and is then cancelled."""

    task: asyncio.Task[None]

    async def stop(self) -> None:
        """Cancels the coroutine and waits for it."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Serving:
    """A role that lives in the process's gRPC server, which stops by itself."""

    async def stop(self) -> None:
        """Nothing to do."""


def running(context: Context, work: Awaitable[None], *, name: str) -> Task:
    """Starts a coroutine as a role; if it ends or fails by itself, the process stops and is restarted."""

    async def watched() -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, a role that is dead must not look alive
            _log.error("a role failed", role=name, exc_info=error)
        context.stop.set()

    return Task(asyncio.create_task(watched(), name=name))


def prefer_throughput() -> None:
    """Lets a thread of this process that wakes wait until the one that runs has nothing left to do (SCHED_BATCH).

    grpc's poller wakes five times a call, each time in the middle of the event loop's work, to find that the loop holds
    the interpreter: without that, a call took a sixth less of the processor. Threads to come inherit it; call it first.
    """
    # not Linux, or a sandbox that forbids it: it costs speed only
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main(module: ModuleType, role_names: Sequence[str], settings: Settings) -> int:
    """Runs roles of a service's main module until SIGTERM or SIGINT; returns the exit code."""
    prefer_throughput()
    logs.configure(service=module.SERVICE, level=settings.log_level)
    telemetry.configure(service=module.SERVICE, ratio=settings.trace_ratio, endpoint=settings.otlp_endpoint)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(module.SERVICE, chosen(module.ROLES, role_names), settings))
    return 0


def chosen(roles: Sequence[Role], names: Sequence[str]) -> tuple[Role, ...]:
    """The roles of these names; all where none is named. Raises ValueError for an unknown one."""
    by_name = {role.name: role for role in roles}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"no role {unknown[0]!r}; there are {', '.join(by_name)}")
    return tuple(by_name[name] for name in names) if names else tuple(roles)


async def serve(service: str, roles: Sequence[Role], settings: Settings) -> None:
    """Starts the roles, says so by gRPC health, and drains them when told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as closing:
        context = await _context(service, settings, stop, closing)
        if settings.metrics_port:
            telemetry.serve_metrics(settings.metrics_port)
        started = [await role.start(context) for role in roles]
        if service in SERVICES:  # the edge serves HTTP, health included
            await context.server.start()
            await context.server.ready()
        _spare_the_collector()
        _log.info("ready", roles=[role.name for role in roles], listen=settings.listen)
        await stop.wait()
        _log.info("draining", drain_s=settings.drain_s)
        if service in SERVICES:
            await context.server.drain(drain_s=settings.drain_s, grace_s=STOP_GRACE_S)
        for role in reversed(started):
            await role.stop()
        telemetry.flush()


def _spare_the_collector() -> None:
    """What is here when a process begins to serve stays until it ends: no use in looking at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _context(service: str, settings: Settings, stop: asyncio.Event, closing: AsyncExitStack) -> Context:
    channels = Channels(settings, service)
    closing.push_async_callback(channels.close)
    database = _open(settings, service, "app", closing)
    if service in SERVICES:
        await _migrated(database)
    tenants = Tenants(database)
    server = GrpcServer(settings.listen, TokenVerifier(channels.keys), tenants, process=settings.process)
    return Context(settings, service, stop, channels, server, tenants, {"app": database}, closing)


async def _migrated(database: Database) -> None:
    """Waits for Postgres: a role that starts while it restarts must not die of it. Raises if the schema is behind."""
    async for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=POSTGRES_WAIT_S, wait_max=2.0):
        with attempt:
            await check_migrated(database)


def _open(settings: Settings, service: str, role: DatabaseRole, closing: AsyncExitStack) -> Database:
    database = Database.open(settings, service=service, role=role, pool_size=settings.pool_size)
    telemetry.watch(database.engine)
    closing.push_async_callback(database.close)
    return database
