"""Each service's own picture of the tenants, and leases."""

import asyncio
from datetime import timedelta

import pytest

from services.runtime import tenants
from services.runtime.clock import FixedClock
from services.runtime.database import EVERY_TENANT, Database
from services.runtime.errors import Unavailable
from services.runtime.ids import new_id
from services.runtime.leases import Lease, repeat_leased, this_process
from services.runtime.settings import Settings
from services.runtime.tenants import Tenant, TenantNotReady, Tenants
from tests.store.runtime.conftest import NOON
from tests.store.runtime.events import add_tenant

LATER = NOON + timedelta(days=1)


async def apply(app: Database, tenant: Tenant) -> None:
    await app.run(tenant.id, lambda connection: tenants.apply(connection, tenant))


async def test_a_tenant_with_a_test_clock_lives_in_its_time(app: Database, tenant_id: str) -> None:
    known = Tenants(database=app)
    await add_tenant(app, tenant_id)
    assert await known.business_now(tenant_id) == NOON
    await apply(app, Tenant(id=tenant_id, time_zone="UTC", currency_code="EUR", test_clock_at=LATER, version=2))
    # cached for at most 200 ms
    await asyncio.sleep(0.25)
    assert await known.business_now(tenant_id) == LATER
    call = await known.call(tenant_id, service="loyalty", worker="sweeper", timeout_s=5)
    assert (call.now, call.time_zone, call.client_id) == (LATER, "UTC", "loyalty.sweeper")


async def test_a_tenant_without_one_lives_in_the_machines_time(app: Database, tenant_id: str) -> None:
    clock = FixedClock(LATER)
    known = Tenants(database=app, clock=clock)
    await apply(app, Tenant(id=tenant_id, time_zone="UTC", currency_code="EUR"))
    assert await known.business_now(tenant_id) == LATER
    clock.advance(timedelta(seconds=1))
    assert await known.business_now(tenant_id) == LATER + timedelta(seconds=1)


async def test_an_older_version_never_moves_a_clock_back(app: Database, tenant_id: str) -> None:
    known = Tenants(database=app)
    await apply(app, Tenant(id=tenant_id, time_zone="UTC", currency_code="EUR", test_clock_at=LATER, version=7))
    await apply(app, Tenant(id=tenant_id, time_zone="UTC", currency_code="EUR", test_clock_at=NOON, version=6))
    assert await known.business_now(tenant_id) == LATER


async def test_a_tenant_that_is_still_on_its_way_is_not_guessed(app: Database, tenant_id: str) -> None:
    known = Tenants(database=app)
    outcomes = await asyncio.gather(*(known.get(tenant_id) for _ in range(5)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TenantNotReady}
    await add_tenant(app, tenant_id)
    assert (await known.get(tenant_id)).currency_code == "CNY"


async def test_a_change_of_ones_own_is_seen_at_once(app: Database, tenant_id: str) -> None:
    known = Tenants(database=app)
    await add_tenant(app, tenant_id)
    await known.get(tenant_id)
    await apply(app, Tenant(id=tenant_id, time_zone="UTC", currency_code="EUR", test_clock_at=LATER, version=2))
    known.forget(tenant_id)
    assert await known.business_now(tenant_id) == LATER


async def test_sweepers_find_every_tenant(app: Database, system: Database) -> None:
    ids = sorted(new_id() for _ in range(3))
    for one in ids:
        await add_tenant(app, one)
    assert await system.read(EVERY_TENANT, tenants.load_ids) == tuple(ids)
    assert await app.read(ids[0], tenants.load_ids) == (ids[0],)


async def test_one_at_a_time_holds_a_lease(system: Database, runtime_settings: Settings) -> None:
    first = Lease(database=system, name="sweeper", holder="a", ttl_s=0.3)
    second = Lease(database=system, name="sweeper", holder="b", ttl_s=0.3)
    other = Lease(database=system, name="relay", holder="b", ttl_s=0.3)
    assert await first.take()
    assert await first.take()
    assert not await second.take()
    assert await other.take()
    await asyncio.sleep(0.35)
    assert await second.take()
    assert not await first.take()
    await second.give_back()
    assert await first.take()
    nowhere = runtime_settings.model_copy(update={"database_url": "postgresql://localhost:1/siyu"})
    away = Database.open(nowhere, service="commerce", role="system")
    assert not await Lease(database=away, name="sweeper", holder="c").take()
    await away.close()


async def test_who_waits_for_a_lease_can_be_told_to_stop(system: Database) -> None:
    held = Lease(database=system, name="sweeper", holder="a")
    waiting = Lease(database=system, name="sweeper", holder="b", ttl_s=0.2)
    assert await held.take()
    stop = asyncio.Event()
    task = asyncio.create_task(waiting.wait(stop))
    await asyncio.sleep(0.1)
    stop.set()
    assert await task is False


async def test_what_is_repeated_goes_on_after_an_outage_and_at_once_where_there_is_more(system: Database) -> None:
    stop = asyncio.Event()
    rounds = 0

    async def work() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise Unavailable("a peer is away")
        if rounds == 20:
            stop.set()
        return rounds > 2

    async with asyncio.timeout(5):
        await repeat_leased(system, "sweeper", work, every_s=0.5, stop=stop)
    assert rounds == 20
    assert not await Lease(database=system, name="sweeper", holder="another").take()
    assert await Lease(database=system, name="sweeper", holder=this_process()).take()


@pytest.mark.parametrize("zone", ["Asia/Shanghai", "UTC"])
async def test_a_tenant_is_loaded_as_it_was_written(app: Database, tenant_id: str, zone: str) -> None:
    written = Tenant(id=tenant_id, time_zone=zone, currency_code="CNY", test_clock_at=NOON, version=3)
    await apply(app, written)
    assert await app.read(tenant_id, lambda connection: tenants.load(connection, tenant_id)) == written
