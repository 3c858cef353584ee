"""The whole of Siyu on this machine, for people (`siyu stack`) and for tests (`async with LocalStack(…) as stack`)."""

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from services.console.stack import ports
from services.console.stack.envoy import Envoy
from services.console.stack.lock import held_lock
from services.console.stack.postgres import EmbeddedPostgres, accepts_connections, ensure_database
from services.console.stack.probes import grpc_serves, http_answers
from services.console.stack.program import Probe, Program
from services.console.stack.refusals import DidNotStart
from services.console.stack.roles import ROLES, Share, share_with, shares
from services.console.stack.secrets import installation_secret, secret_of
from services.console.stack.settings import StackSettings
from services.console.stack.supervisor import Say, Supervisor
from services.console.stack.valkey import EmbeddedValkey
from services.runtime.migrations import PartitionsChangedError, migrate
from services.runtime.settings import SERVICES, Settings, without_user

# What a run that was killed leaves behind stops by itself within this time.
LEFTOVERS_PATIENCE_S = 10.0
READY_WITHIN_S = 90.0
STATE_FILE = "stack.json"
ROOT_SECRET = "root_secret"  # noqa: S105 - its name in the file of secrets


class LocalStack:
    """Servers, roles and edge as supervised processes. Entering starts them, leaving stops them; the data stay."""

    def __init__(
        self,
        settings: StackSettings,
        *,
        services: tuple[str, ...] = tuple(ROLES),
        environment: dict[str, str] | None = None,
        say: Say = lambda _line: None,
    ) -> None:
        """`services` leaves some out, and with the gateway the edge; `environment` is added to every role's."""
        self.settings = settings
        self.directory = settings.state_directory.resolve()
        self.database_url = ""
        self.redis_url = ""
        self._services = services
        self._extra_environment = environment or {}
        self._say = say
        self._supervisor = Supervisor(say=say)
        self._closing = AsyncExitStack()
        self._shares = tuple(
            share for share in shares(settings.split, api_processes=settings.api_processes) if share.service in services
        )
        # Nobody calls a worker or a relay, but everybody may ask how it is: each process listens somewhere.
        others = tuple(share for share in self._shares if not share.is_called)
        self._other_ports = dict(zip((share.name for share in others), ports.pick(len(others)), strict=True))

    # --- what a client needs ---

    @property
    def addresses(self) -> dict[str, str]:
        """host:port of each service's gRPC api, of the gateway's application, and of the edge that the world calls."""
        here = {name: f"{ports.LOOPBACK}:{getattr(self.settings, f'{name}_port')}" for name in ROLES}
        return here | {"edge": f"{ports.LOOPBACK}:{self.settings.edge_port}"}

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each process of the stack, by its name."""
        return self._supervisor.pids

    @property
    def programs(self) -> dict[str, Program]:
        """What runs, in the order of its start."""
        return self._supervisor.programs

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to be part of this stack, or to call it."""
        return {
            # the admin migrates, which is done here; the roles log in as their own
            "DATABASE_URL": without_user(self.database_url),
            "REDIS_URL": self.redis_url,
            "SIYU_ROLE_PASSWORD": self.role_password,
            "SIYU_LOG_PARTITIONS": str(self.settings.log_partitions),
            "SIYU_DRAIN_S": str(self.settings.drain_s),
            **{f"SIYU_{name.upper()}_ADDRESS": self.addresses[name] for name in ROLES},
        }

    @property
    def role_password(self) -> str:
        """The password of the services' database roles: as it was given, or one of this installation's own."""
        return self.settings.role_password or self.secret("role_password")

    def secret(self, name: str) -> str:
        """A secret of this installation; a new name makes a new secret."""
        return secret_of(self.directory, name)

    def client_secret(self, client_id: str) -> str:
        """The secret of one of the installation's own clients: `service:<name>` or `platform:<name>`."""
        return installation_secret(self.secret(ROOT_SECRET), client_id)

    # --- faults, for tests ---

    def kill(self, name: str, *, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """Kills a process as an accident would, and returns its process id; the supervisor starts another.

        `name` is a role ("loyalty/worker:accrual"), a service, for its api ("loyalty"), or a server ("postgres")."""
        return self._supervisor.kill(self.process_of(name), with_signal=with_signal)

    async def stop(self, name: str) -> None:
        """Stops a process and leaves it stopped."""
        await self._supervisor.stop(self.process_of(name))

    async def start(self, name: str) -> None:
        """Starts a process that was stopped."""
        process = self.process_of(name)
        await self._supervisor.start(self._supervisor.programs[process])

    async def until_ready(self, name: str, *, timeout_s: float = READY_WITHIN_S) -> None:
        """Returns when the process serves (again)."""
        await self._supervisor.until_ready(self.process_of(name), timeout_s=timeout_s)

    async def until_all_ready(self, *, timeout_s: float = READY_WITHIN_S) -> None:
        """Returns when everything serves that is meant to run."""
        await asyncio.gather(*(self._supervisor.until_ready(name, timeout_s=timeout_s) for name in self.pids))

    def process_of(self, name: str) -> str:
        """The name of the process that carries a role, an api or a server."""
        if name in self._supervisor.programs:
            return name
        share = share_with(self._shares, name)
        assert share is not None, f"this stack runs no {name!r}"
        return share.name

    # --- life ---

    async def __aenter__(self) -> Self:
        """Starts everything. Raises StackRefused, after stopping what had started, with a line that says what to do."""
        try:
            await self._up()
        except BaseException:
            await self._down()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything in reverse order."""
        await self._down()

    async def _up(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        stale = self._closing.enter_context(held_lock(self.directory, say=self._say))
        # Not before the lock is ours: a stack that is refused must not wipe the word of the one that runs.
        self._closing.callback((self.directory / STATE_FILE).unlink, missing_ok=True)
        await asyncio.to_thread(
            ports.require_free, self.settings.ports(), patience_s=LEFTOVERS_PATIENCE_S if stale else 0.0
        )
        await self._start_servers()
        await self._migrate()
        self._say(f"starting {', '.join(self._services)}")
        await self._supervisor.start_all(self._program_of(share) for share in self._shares)
        if "gateway" in self._services:
            await self._supervisor.start(await self._envoy())
        self._write_state()

    async def _migrate(self) -> None:
        self._say("migrating the schemas")
        settings = Settings(
            database_url=self.database_url,
            role_password=self.role_password,
            log_partitions=self.settings.log_partitions,
        )
        for service in SERVICES:
            if service in self._services:
                try:
                    await migrate(settings, service)
                except PartitionsChangedError as changed:
                    raise DidNotStart(str(changed)) from changed

    async def _down(self) -> None:
        if self._supervisor.pids:
            self._say("stopping")
        await self._supervisor.stop_all()
        await self._closing.aclose()

    async def _start_servers(self) -> None:
        servers: list[Program] = []
        if self.settings.database_url is None:
            postgres = EmbeddedPostgres.prepare(
                self.directory / "postgres",
                port=self.settings.postgres_port,
                password=self.secret("postgres_password"),
                shared_buffers_mb=self.settings.shared_buffers_mb,
                log=self._log("postgres"),
            )
            self.database_url = postgres.url()
            servers.append(postgres.program())
        if self.settings.redis_url is None:
            valkey = EmbeddedValkey.prepare(
                self.directory / "valkey",
                port=self.settings.valkey_port,
                password=self.secret("valkey_password"),
                log=self._log("valkey"),
            )
            self.redis_url = valkey.url()
            servers.append(valkey.program())
        if servers:
            self._say(f"starting {' and '.join(server.name for server in servers)}")
            await self._supervisor.start_all(servers)
        if self.settings.database_url is None:
            await ensure_database(postgres.url("postgres"), database="siyu")
        else:
            self.database_url = self.settings.database_url
            await _require(accepts_connections(self.database_url), what="DATABASE_URL", url=self.database_url)
        self.redis_url = self.settings.redis_url or self.redis_url

    def _program_of(self, share: Share) -> Program:
        address = (
            self.addresses[share.service] if share.is_called else f"{ports.LOOPBACK}:{self._other_ports[share.name]}"
        )
        return Program(
            name=share.name,
            command=(
                *(sys.executable, "-P", "-m", "services.console", "run", share.service),
                *("--roles", ",".join(share.roles)),
            ),
            environment={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                **self.environment,
                **self._extra_environment,
                "SIYU_LISTEN": address,
                "SIYU_PROCESS": share.name,
                # One port can't serve the metrics of several processes; in a cluster each has its own address.
                "SIYU_METRICS_PORT": "0",
                "SIYU_SERVICE_SECRET": self.client_secret(f"service:{share.service}"),
                # Whoever has it can act as anybody: identity alone.
                **({"SIYU_ROOT_SECRET": self.secret(ROOT_SECRET)} if share.service == "identity" else {}),
            },
            log=self._log(share.name),
            is_ready=(
                http_answers(address, "/healthz")
                if share.service == "gateway"
                else grpc_serves(address, process=share.name)
            ),
            address=address,
            ready_within_s=READY_WITHIN_S,
            # Its drain, then its grace for calls in flight.
            stop_by=((signal.SIGTERM, self.settings.drain_s + 15.0),),
        )

    async def _envoy(self) -> Program:
        envoy = Envoy(
            configuration=self.directory / "envoy.json",
            edge_port=self.settings.edge_port,
            admin_port=self.settings.envoy_admin_port,
            log=self._log("envoy"),
        )
        await envoy.render({**os.environ, **self.environment, **self._extra_environment})
        return envoy.program()

    def _log(self, name: str) -> Path:
        return self.directory / "log" / f"{name.replace('/', '-').replace(':', '-')}.log"

    def _write_state(self) -> None:
        """Leaves word for `siyu audit` and others in a second terminal."""
        file = self.directory / STATE_FILE
        file.touch(mode=0o600)
        file.write_text(
            json.dumps({"environment": self.environment, "edge": self.addresses["edge"], "pids": self.pids})
        )


def running_stack(directory: Path) -> dict[str, str] | None:
    """The environment of the stack that runs over the directory, or None if none does."""
    file = directory / STATE_FILE
    if not file.exists():
        return None
    found = json.loads(file.read_text())["environment"]
    return {str(name): str(value) for name, value in found.items()}


def running_edge(directory: Path) -> str:
    """host:port of the edge of the stack that runs over the directory."""
    return str(json.loads((directory / STATE_FILE).read_text())["edge"])


async def _require(probe: Probe, *, what: str, url: str) -> None:
    if not await probe():
        server = urlsplit(url)
        raise DidNotStart(
            f"nothing answers at {what} ({server.hostname}:{server.port}): start it, or unset {what} "
            "and Siyu starts one of its own"
        )
