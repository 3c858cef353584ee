"""Two brands that share a partition, and a handler that fails at one of them until it is mended."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from services.runtime.call import Call
from services.runtime.database import Connection, Database, raw
from services.runtime.events import Event
from services.runtime.ids import new_id
from services.runtime.outbox import Recorded, partition_of
from services.runtime.settings import Settings
from tests.store.runtime.conftest import PARTITIONS, system_of
from tests.store.runtime.events import add_tenant, consumer_of, effects, feed_of, publish, relay_of, totals

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

    def consumer(self, bug: Bug, *, database: Database | None = None):
        return consumer_of(
            self.settings, self.consumer_app, feed_of(self.system), handler=bug.handle, database=database
        )

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


async def is_true(condition: bool) -> bool:
    """A condition of this process, for `until`."""
    return condition


async def postponed(stage: Stage) -> bool:
    """Whether the first parked event has failed by itself."""
    found = await stage.parked()
    return bool(found) and found[0][0].startswith(POISON) and found[0][2] > 0
