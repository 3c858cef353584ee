"""Transactions of one tenant on pooled connections, and lanes: connections of their own for batches and relays.

A driver's error never leaves: a dead or restarting Postgres is Unavailable, a passed deadline TimedOut, a lost race
that stays lost Conflict. Integrity errors pass, since only the store knows what its constraints mean.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar, cast

import asyncpg
import structlog
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.runtime import telemetry
from services.runtime.errors import Conflict, DomainError, Exhausted, Invalid, TimedOut, Unavailable
from services.runtime.settings import DatabaseRole, Settings

T = TypeVar("T")
Connection = AsyncConnection

EVERY_TENANT = ""
"""The tenant of work that belongs to none; only the system role sees rows under it."""

DEFAULT_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
POOL_WAIT_S = 5.0
IDLE_IN_TRANSACTION_S = 15
MAX_ATTEMPTS = 5
BACKOFF_S = 0.01
RETRY_AFTER_S = 1.0
ROLLBACK_TIMEOUT_S = 1.0
STATEMENTS_CACHED = 512
# the statement's own time-out speaks first, so that the connection survives the deadline
DEADLINE_GRACE_S = 0.25

# one message to the server: the tenant is set before anything else can be, and a round trip is saved
_BEGIN = (
    "BEGIN; SELECT set_config('siyu.tenant', '{tenant}', true), set_config('statement_timeout', '{timeout_ms}', true)"
)
# one snapshot for all of its statements: what several of them tell of belongs together
_BEGIN_READ = _BEGIN.replace("BEGIN;", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;", 1)

# serialization_failure, deadlock_detected, lock_not_available
_RACES = frozenset({"40001", "40P01", "55P03"})
_TIMED_OUT = frozenset({"57014", "25P03", "25P04"})
# character_not_in_repertoire, untranslatable_character: a NUL that came in by another way than a request's field
_UNSTORABLE = frozenset({"22021", "22P05"})
# read_only_sql_transaction: a connection that outlived a failover; 53: out of resources; 57P: shutting down, starting
_GONE_STATES = frozenset({"25006", "57P01", "57P02", "57P03", "57P04", "57P05", "28000", "28P01", "3D000"})
_GONE_CLASSES = ("08", "53")

_log = structlog.get_logger(__name__)


class RawConnection(Protocol):
    """What we use of an asyncpg connection. Parameters are $1, $2; jsonb goes in as text and comes out decoded."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Runs a statement and returns its status, such as "UPDATE 1"."""
        ...

    async def executemany(
        self,
        command: str,
        args: Sequence[Sequence[Any]],
        *,
        timeout: float | None = None,
    ) -> None:
        """Runs a statement once for each row of parameters."""
        ...

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Returns all rows."""
        ...

    async def fetchrow(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        """Returns the first row or None."""
        ...

    async def fetchval(
        self,
        query: str,
        *args: Any,
        column: int = 0,
        timeout: float | None = None,
    ) -> Any:
        """Returns one value of the first row."""
        ...


def raw(connection: Connection) -> RawConnection:
    """The asyncpg connection inside, in the same transaction: for SQL where SQLAlchemy's 200 µs count."""
    sync = connection.sync_connection
    assert sync is not None, "the connection is closed"
    driver: Any = sync.connection.driver_connection
    assert driver.is_in_transaction(), "raw SQL would run outside of the tenant's transaction"
    return cast("RawConnection", driver)


def constraint_of(error: BaseException) -> str | None:
    """The name of the constraint that an integrity error broke, whoever raised it; None for any other error."""
    for candidate in _chain(error):
        name = getattr(candidate, "constraint_name", None)
        if isinstance(name, str):
            return name
    return None


def sqlstate_of(error: BaseException) -> str | None:
    """The five-character SQLSTATE of a database error, or None."""
    for candidate in _chain(error):
        state = getattr(candidate, "sqlstate", None)
        if isinstance(state, str):
            return state
    return None


def refusal_of(error: BaseException) -> DomainError | None:
    """What the caller is told of a database error, or None where it is not the database's state but our bug."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, PoolTimeoutError):
        return Exhausted("every database connection is busy", retry_after_s=RETRY_AFTER_S, reason="DATABASE_BUSY")
    state = sqlstate_of(error)
    if state in _RACES:
        return Conflict("another call changes the same rows; try again")
    if state in _TIMED_OUT:
        return TimedOut("the deadline passed while the database worked")
    if state in _UNSTORABLE:
        return Invalid("a text holds a character that can't be stored", reason="TEXT_NOT_STORABLE")
    if is_gone(error):
        return Unavailable("the database is not available", retry_after_s=RETRY_AFTER_S, reason="DATABASE_UNAVAILABLE")
    return None


def is_gone(error: BaseException) -> bool:
    """Whether the connection, or the server behind it, is lost."""
    state = sqlstate_of(error)
    if state is not None:
        return state in _GONE_STATES or state.startswith(_GONE_CLASSES)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    lost = (OSError, EOFError, TimeoutError, DisconnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    return any(isinstance(candidate, lost) for candidate in _chain(error))


def _chain(error: BaseException) -> list[BaseException]:
    """The error, the driver's error that SQLAlchemy wraps, and their causes."""
    found: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        candidate = queue.pop(0)
        if candidate is None or candidate in found:
            continue
        found.append(candidate)
        queue += [getattr(candidate, "orig", None), candidate.__cause__]
    return found


def _server_settings(service: str, role: DatabaseRole) -> dict[str, str]:
    return {
        "application_name": f"siyu-{service}-{role}",
        "search_path": service,
        "timezone": "UTC",
        "jit": "off",
        # statements are written for one plan; planning for each set of values took a quarter of a sale's statements
        "plan_cache_mode": "force_generic_plan",
        "statement_timeout": str(int(DEFAULT_TIMEOUT_S * 1000)),
        # a task that was cancelled between two statements must not hold its locks
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_S * 1000),
    }


def _refuse_unclean(dbapi_connection: Any, _record: Any, _proxy: Any) -> None:
    """Replaces a pooled connection that is dead, or still in somebody's transaction (sqlalchemy#13381)."""
    driver = dbapi_connection.driver_connection
    if driver.is_closed() or driver.is_in_transaction():
        raise DisconnectionError


def _watch(dbapi_connection: Any, _record: Any) -> None:
    telemetry.watch_statements(dbapi_connection.driver_connection)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One service's connections under one role."""

    engine: AsyncEngine
    dsn: str = field(repr=False)
    service: str
    role: DatabaseRole

    @classmethod
    def open(cls, settings: Settings, *, service: str, role: DatabaseRole = "app", pool_size: int = 0) -> Self:
        """A pool that connects when first used; `pool_size` 0 takes the setting."""
        dsn = settings.role_dsn(service, role)
        engine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            pool_size=pool_size or settings.pool_size,
            max_overflow=0,
            pool_timeout=POOL_WAIT_S,
            pool_use_lifo=True,
            # this module begins and commits: SQLAlchemy's own begin costs a round trip before the tenant is set
            isolation_level="AUTOCOMMIT",
            connect_args={
                "server_settings": _server_settings(service, role),
                "timeout": CONNECT_TIMEOUT_S,
                "prepared_statement_cache_size": STATEMENTS_CACHED,
                "statement_cache_size": STATEMENTS_CACHED,
            },
        )
        event.listen(engine.sync_engine.pool, "checkout", _refuse_unclean)
        event.listen(engine.sync_engine.pool, "connect", _watch)
        return cls(engine=engine, dsn=dsn, service=service, role=role)

    async def close(self) -> None:
        """Closes the pooled connections; running transactions keep theirs until they end."""
        await self.engine.dispose()

    async def run(
        self,
        tenant_id: str,
        work: Callable[[Connection], Awaitable[T]],
        *,
        timeout_s: float | None = None,
        lock_key: int | None = None,
    ) -> T:
        """Runs `work` in one transaction of the tenant and commits it.

        `work` runs again, from the start, after a deadlock or a serialization failure: it has no effect outside of
        the transaction. With a `lock_key` only one such transaction at a time is past its begin. Raises Unavailable,
        TimedOut, Exhausted or Conflict; whatever `work` raises rolls back.
        """
        # in the message of the begin: the lock costs no round trip, and the first query sees what its last holder wrote
        begin = _BEGIN if lock_key is None else f"{_BEGIN}; SELECT pg_advisory_xact_lock({lock_key:d})"
        return await self._bounded(tenant_id, work, begin, timeout_s)

    async def read(
        self, tenant_id: str, work: Callable[[Connection], Awaitable[T]], *, timeout_s: float | None = None
    ) -> T:
        """Like `run`, but all of it sees one moment, and Postgres refuses to write."""
        return await self._bounded(tenant_id, work, _BEGIN_READ, timeout_s)

    async def ping(self) -> None:
        """Raises Unavailable unless a statement comes back."""

        async def nothing(_connection: Connection) -> None:
            return None

        await self.read(EVERY_TENANT, nothing, timeout_s=CONNECT_TIMEOUT_S)

    async def lane(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> "Lane":
        """A connection of its own, made when first used and again when it breaks or brings no answer in `timeout_s`."""
        return Lane(dsn=self.dsn, server_settings=_server_settings(self.service, self.role), timeout_s=timeout_s)

    async def _bounded(
        self, tenant_id: str, work: Callable[[Connection], Awaitable[T]], begin: str, timeout_s: float | None
    ) -> T:
        limit_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        if limit_s <= 0:
            raise TimedOut("the deadline had passed before the database was asked")
        try:
            # raw SQL is unseen by SQLAlchemy's instrumentation, so the transaction is the span
            with telemetry.calling(f"{self.service} transaction"):
                async with asyncio.timeout(limit_s + DEADLINE_GRACE_S):
                    return await self._attempts(tenant_id, work, begin, limit_s)
        except TimeoutError as late:
            raise TimedOut("the deadline passed while the database worked") from late

    async def _attempts(
        self, tenant_id: str, work: Callable[[Connection], Awaitable[T]], begin: str, limit_s: float
    ) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_s
        attempt = 1
        while True:
            try:
                return await self._once(tenant_id, work, begin, deadline - loop.time())
            except _RetryableError as failed:
                if attempt == MAX_ATTEMPTS or loop.time() >= deadline:
                    _log.warning("gave up on a transaction", attempts=attempt, error=str(failed.error))
                    raise failed.refusal from failed.error
                await asyncio.sleep(_backoff_s(attempt))
                attempt += 1

    async def _once(
        self, tenant_id: str, work: Callable[[Connection], Awaitable[T]], begin: str, remaining_s: float
    ) -> T:
        begun = False
        try:
            async with self._connection() as (connection, driver):
                await driver.execute(_beginning(begin, tenant_id, remaining_s))
                begun = True
                result = await work(connection)
                _require_committed(await driver.execute("COMMIT"))
                return result
        except Conflict as lost:
            raise _RetryableError(lost, lost) from lost
        except DomainError:
            raise
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            # nothing had happened when the begin failed; later, only a lost race is known to have rolled back
            if isinstance(refusal, Conflict) or (not begun and isinstance(refusal, Unavailable)):
                raise _RetryableError(refusal, error) from error
            raise refusal from error

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[Connection, Any]]:
        connection = await self.engine.connect()
        sync = connection.sync_connection
        assert sync is not None, "just connected"
        driver = sync.connection.driver_connection
        try:
            yield connection, driver
        except BaseException:
            await asyncio.shield(_roll_back(connection, driver))
            raise
        finally:
            await asyncio.shield(connection.close())


def _beginning(begin: str, tenant_id: str, remaining_s: float) -> str:
    # a message of several statements takes no parameters; the id is ours, and quoted in case it ever is not
    return begin.format(tenant=tenant_id.replace("'", "''"), timeout_ms=max(1, int(remaining_s * 1000)))


def _require_committed(status: str) -> None:
    # Postgres answers a commit of a failed transaction with ROLLBACK and no error
    assert status == "COMMIT", "a database error was swallowed inside a transaction: nothing was written"


async def _roll_back(connection: Connection, driver: Any) -> None:
    """Ends whatever transaction there is; a connection that can't is not used again."""
    if driver.is_closed():
        return
    try:
        # Unconditionally: after a cancel nobody knows how far the begin came. The driver waits until Postgres has
        # taken note of the cancel before it sends this.
        await driver.execute("ROLLBACK", timeout=ROLLBACK_TIMEOUT_S)
        if driver.is_in_transaction():
            await _discard(connection)
    except Exception:  # noqa: BLE001 - whatever it is, the connection goes
        await _discard(connection)


async def _discard(connection: Connection) -> None:
    with contextlib.suppress(Exception):
        await connection.invalidate()


class _RetryableError(Exception):
    """Carries the refusal that the caller gets once the attempts are used up."""

    def __init__(self, refusal: DomainError, error: Exception) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.error = error


def _backoff_s(attempt: int) -> float:
    return BACKOFF_S * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, not a secret


class Lane:
    """One asyncpg connection for one user at a time. It reconnects by itself; what was lost is told as Unavailable."""

    def __init__(self, *, dsn: str, server_settings: dict[str, str], timeout_s: float) -> None:
        """Opens nothing yet. `timeout_s` is what a statement may take."""
        self._dsn = dsn
        self._server_settings = server_settings
        self._timeout_s = timeout_s
        self._connection: Any = None

    async def close(self) -> None:
        """Closes the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            with contextlib.suppress(Exception):
                await connection.close(timeout=2)

    async def fetch(self, query: str, *args: Any, timeout_s: float | None = None) -> list[Any]:
        """Runs one statement as its own transaction and returns its rows."""
        async with self._guarded() as connection:
            rows: list[Any] = await connection.fetch(query, *args, timeout=timeout_s)
            return rows

    async def fetchval(self, query: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Runs one statement as its own transaction and returns the first value of its first row."""
        async with self._guarded() as connection:
            return await connection.fetchval(query, *args, timeout=timeout_s)

    async def execute(self, query: str, *args: Any, timeout_s: float | None = None) -> str:
        """Runs one statement as its own transaction and returns its status, such as "UPDATE 1"."""
        async with self._guarded() as connection:
            status: str = await connection.execute(query, *args, timeout=timeout_s)
            return status

    @contextlib.asynccontextmanager
    async def transaction(
        self, tenant_id: str, *, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> AsyncIterator[RawConnection]:
        """One transaction of the tenant: commits at the end, rolls back on any error."""
        async with self._guarded() as connection:
            await connection.execute(_beginning(_BEGIN, tenant_id, timeout_s))
            try:
                yield connection
            except Exception:
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")
                raise
            _require_committed(await connection.execute("COMMIT"))

    @contextlib.asynccontextmanager
    async def _guarded(self) -> AsyncIterator[Any]:
        try:
            yield await self._connected()
        except asyncio.CancelledError:
            # the driver has asked Postgres to stop, and cannot know whether it did in time
            self._abandon()
            raise
        except Exception as error:
            refusal = refusal_of(error)
            if isinstance(refusal, Unavailable):
                self._abandon()
            if refusal is None or refusal is error:
                raise
            raise refusal from error

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed() or self._connection.is_in_transaction():
            self._abandon()
            connection = await asyncpg.connect(
                self._dsn,
                server_settings=self._server_settings,
                timeout=CONNECT_TIMEOUT_S,
                # a machine that is gone says nothing, and the kernel asks it for a quarter of an hour
                command_timeout=self._timeout_s + DEADLINE_GRACE_S,
                statement_cache_size=STATEMENTS_CACHED,
            )
            # jsonb as on the pooled connections: text in, decoded out
            await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)
            telemetry.watch_statements(connection)
            self._connection = connection
        return self._connection

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()
