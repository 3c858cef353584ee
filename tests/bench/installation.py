"""What the benches run on: identity and loyalty as they run anywhere, a brand with members, pgbench, and the echo."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc

from services.console.demo.calls import Caller, Wire
from services.console.stack import ports
from services.console.stack.local import LocalStack
from services.console.stack.settings import REPOSITORY, StackSettings
from services.runtime.ids import new_id
from siyu.identity.v1 import tenant_pb2, tenant_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc
from tests.bench.pgbench import Pgbench
from tests.bench.rounds import family

MEMBERS = 50_000
# of the api as of the echo
API_PROCESSES = 2
SEED_ITEMS = 500
SEED_CALLERS = 4
SEED_TIMEOUT_S = 60
CURRENCY = "points"
DRAIN_POLL_S = 0.005
DRAIN_TIMEOUT_S = 60.0


@dataclass(slots=True, kw_only=True)
class Installation:
    """A running installation with one brand."""

    stack: LocalStack
    pgbench: Pgbench
    wire: Wire
    brand: Caller
    loyalty: grpc.aio.Channel
    echo: str
    members: list[str]
    observer: asyncpg.Connection
    postgres_pid: int
    authorization: tuple[tuple[str, str], ...] = ()

    async def renew(self) -> None:
        """Takes a new token, which lasts longer than any of the benches."""
        token = await self.wire.token(Caller(client_id=self.brand.client_id, secret=self.brand.secret))
        self.authorization = (("authorization", f"Bearer {token}"),)

    async def drained(self) -> None:
        """Returns when loyalty's relay has given every event its number."""
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while await self.observer.fetchval("SELECT EXISTS (SELECT FROM loyalty.outbox)"):
                await asyncio.sleep(DRAIN_POLL_S)

    def processes(self) -> dict[str, Callable[[], list[int]]]:
        """What CPU is measured of."""
        return {
            "client": lambda: [os.getpid()],
            "servers": lambda: [pid for name, pid in self.stack.pids.items() if name.startswith("loyalty/api")],
            "relay": lambda: [self.stack.pids["loyalty/background"]],
            "Postgres": lambda: family(self.postgres_pid),
        }


@asynccontextmanager
async def installed() -> AsyncIterator[Installation]:
    """Starts it all on free ports, and stops it."""
    with tempfile.TemporaryDirectory(prefix="siyu-bench-") as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        # as in a cluster: the api is one role, and the relay another
        settings = StackSettings.for_tests(
            folder / "stack", split="api", api_processes=API_PROCESSES, shared_buffers_mb=512
        )
        async with LocalStack(settings, services=("identity", "loyalty")) as stack, _echo() as echo_address:
            wire = Wire(stack.addresses)
            brand = await _brand(wire, stack)
            pgbench = Pgbench(stack.database_url, folder)
            await pgbench.prepare()
            observer = await asyncpg.connect(stack.database_url)
            loyalty = grpc.aio.insecure_channel(stack.addresses["loyalty"])
            try:
                here = Installation(
                    stack=stack,
                    pgbench=pgbench,
                    wire=wire,
                    brand=brand,
                    loyalty=loyalty,
                    echo=echo_address,
                    members=[new_id() for _ in range(MEMBERS)],
                    observer=observer,
                    postgres_pid=stack.pids["postgres"],
                )
                await here.renew()
                await _open_accounts(here)
                yield here
            finally:
                await asyncio.gather(loyalty.close(), wire.close(), observer.close())


async def _brand(wire: Wire, stack: LocalStack) -> Caller:
    platform = Caller(client_id="platform:bench", secret=stack.client_secret("platform:bench"))
    made = await wire.call(
        wire.stub(tenant_pb2_grpc.TenantServiceStub).CreateTenant,
        tenant_pb2.CreateTenantRequest(request_id=new_id(), code="bench", display_name="Bench"),
        caller=platform,
    )
    brand = Caller(client_id=made.admin_client_id, secret=made.admin_client_secret)
    programme = programme_pb2.Programme(
        point_currency=CURRENCY,
        display_name="Points",
        tender_value_minor=100,
        points_per_value=100,
        expiry_classes=[programme_pb2.ExpiryClass(class_id="base", days=365)],
    )
    await wire.call(
        wire.stub(programme_pb2_grpc.ProgrammeServiceStub).PublishProgramme,
        programme_pb2.PublishProgrammeRequest(request_id=new_id(), programme=programme),
        caller=brand,
    )
    return brand


async def _open_accounts(here: Installation) -> None:
    """Gives every member a first point: as a chain's members have accounts, and as pgbench's peer has its rows."""
    accrue = points_pb2_grpc.PointsServiceStub(here.loyalty).BatchAccrue
    room = asyncio.Semaphore(SEED_CALLERS)

    async def seed(members: list[str]) -> None:
        items = [
            points_pb2.AccrueRequest(
                request_id=new_id(), member_id=member_id, point_currency=CURRENCY, points=1, reason="opening"
            )
            for member_id in members
        ]
        async with room:
            await accrue(
                points_pb2.BatchAccrueRequest(items=items), timeout=SEED_TIMEOUT_S, metadata=here.authorization
            )

    await asyncio.gather(*(seed(here.members[at : at + SEED_ITEMS]) for at in range(0, MEMBERS, SEED_ITEMS)))
    # statistics as autovacuum would have made them by the time that there are 50,000 members
    await here.observer.execute("ANALYZE")
    await here.drained()


@asynccontextmanager
async def _echo() -> AsyncIterator[str]:
    """As many processes as the api has, at one port as well."""
    (port,) = ports.pick(1)
    address = f"127.0.0.1:{port}"
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.echo",
            address,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(API_PROCESSES)
    ]
    try:
        async with asyncio.timeout(20):
            for process in processes:
                assert process.stdout is not None
                await process.stdout.readline()
        yield address
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
            await process.wait()
