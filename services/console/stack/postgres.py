"""An embedded Postgres: the programs of a wheel over a data directory of our own."""

import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg

from services.console.stack.ports import LOOPBACK
from services.console.stack.program import Probe, Program, plain_environment
from services.console.stack.refusals import DidNotStart, NotInstalled
from services.console.stack.unprivileged import SHARED_STATE, Identity, identity_for
from services.console.stack.wheels import postgres_programs

SUPERUSER = "postgres"
DATABASE = "siyu"
SHARED_BUFFERS_MB_TO_TEST = 128
INITDB_TIMEOUT_S = 120
CONNECT_TIMEOUT_S = 2.0

# fsync and synchronous_commit stay on: an acknowledged sale is on the disk, here as in production.
TUNING = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "300",
    "fsync": "on",
    "synchronous_commit": "on",
    # Full pages are written once after each checkpoint, so checkpoints are kept rare.
    "max_wal_size": "8GB",
    "min_wal_size": "512MB",
    "checkpoint_timeout": "30min",
    "checkpoint_completion_target": "0.9",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    # New segments aren't written with zeros first, and a commit finds room in memory: a tenth of a batch's time.
    "wal_init_zero": "off",
    "wal_buffers": "64MB",
    # A cancelled client can leave a transaction open; a long one stalls every relay.
    "idle_in_transaction_session_timeout": "30s",
    "jit": "off",
    "random_page_cost": "1.1",
    "log_min_duration_statement": "2s",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %u ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgres:
    """A database cluster in a directory, and the port and password it is reached by."""

    identity: Identity
    port: int
    password: str
    shared_buffers_mb: int
    log: Path
    is_disposable: bool = False

    @classmethod
    def prepare(
        cls,
        directory: Path,
        *,
        port: int,
        password: str,
        shared_buffers_mb: int,
        log: Path,
        shared_state: Path = SHARED_STATE,
        is_disposable: bool = False,
    ) -> "EmbeddedPostgres":
        """Makes the cluster below `directory` unless there is one already; the password counts from then on.

        A disposable one does not wait for the disk: nobody wants its data after a crash of the machine.
        Raises NotInstalled without programs, or if the cluster was made by another major version."""
        programs = postgres_programs()
        identity = identity_for(directory, programs=programs, shared_state=shared_state)
        postgres = cls(
            identity=identity,
            port=port,
            password=password,
            shared_buffers_mb=shared_buffers_mb,
            log=log,
            is_disposable=is_disposable,
        )
        if (identity.data / "PG_VERSION").exists():
            postgres._require_same_version()
        else:
            postgres._create()
        return postgres

    def url(self, database: str = DATABASE) -> str:
        """The superuser's URL of one database of the cluster."""
        return f"postgresql://{SUPERUSER}:{quote(self.password, safe='')}@{LOOPBACK}:{self.port}/{database}"

    def program(self) -> Program:
        """The server, as the supervisor runs it."""
        options = TUNING | {"shared_buffers": f"{self.shared_buffers_mb}MB", "port": str(self.port)}
        if self.is_disposable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        return Program(
            name="postgres",
            prefix=self.identity.prefix,
            command=(
                str(self.identity.programs / "postgres"),
                "-D",
                str(self.identity.data),
                *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
            ),
            environment=plain_environment(),
            log=self.log,
            is_ready=accepts_connections(self.url("postgres")),
            address=f"{LOOPBACK}:{self.port}",
            ready_within_s=120.0,
            # After kill -9 it refuses to start until its orphans have let go of the shared memory. postmaster.pid is
            # never deleted: two servers over one directory would destroy it.
            start_patience_s=30.0 if (self.identity.data / "postmaster.pid").exists() else 0.0,
            stop_by=((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0)),
            orphan_signal=signal.SIGINT,
        )

    def _create(self) -> None:
        # Made beside its place and moved when complete: an interrupted initdb must not look like a cluster.
        data = self.identity.data
        partial = data.with_name(f"{data.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.identity.claim(partial)
        password = self.identity.write(data.with_name(f"{data.name}.password"), self.password)
        arguments = (
            f"--pgdata={partial}",
            f"--username={SUPERUSER}",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-instructions",
        )
        done = subprocess.run(
            (*self.identity.prefix, str(self.identity.programs / "initdb"), *arguments),
            stdin=subprocess.DEVNULL,
            env=plain_environment(),
            cwd="/",
            capture_output=True,
            check=False,
            timeout=INITDB_TIMEOUT_S,
        )
        password.unlink()
        if done.returncode != 0:
            raise DidNotStart(f"initdb could not make {data}:\n{done.stderr.decode(errors='replace').strip()}")
        partial.rename(data)

    def _require_same_version(self) -> None:
        written_by = (self.identity.data / "PG_VERSION").read_text().strip()
        version = subprocess.run(
            (*self.identity.prefix, str(self.identity.programs / "postgres"), "--version"),
            env=plain_environment(),
            cwd="/",
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()[-1]
        if version.split(".")[0] != written_by:
            raise NotInstalled(
                f"{self.identity.data} was written by Postgres {written_by} and this is {version}: "
                "move the folder away to start afresh, or dump it with its own version"
            )


async def ensure_database(server_url: str, *, database: str) -> None:
    """Creates the database unless it exists."""
    connection = await asyncpg.connect(server_url)
    try:
        if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", database):
            return
        await connection.execute(f'CREATE DATABASE "{database}"')
    finally:
        await connection.close()


async def drop_database(server_url: str, *, database: str) -> None:
    """Drops the database, whoever is still connected to it."""
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
    finally:
        await connection.close()


def accepts_connections(url: str) -> Probe:
    """Ready when a connection answers a query; a server in recovery doesn't."""

    async def probe() -> bool:
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        try:
            return bool(await connection.fetchval("SELECT true", timeout=CONNECT_TIMEOUT_S))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        finally:
            connection.terminate()

    return probe
