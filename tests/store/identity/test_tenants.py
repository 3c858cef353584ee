"""Tenants, and the test clocks of those that have one."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from services.identity.domain import scopes
from services.identity.domain.refusals import ClockBackwards, NoTestClock, TenantExists, UnknownTenant
from services.runtime.auth import principal_of
from services.runtime.errors import AlreadyExists, Invalid
from services.runtime.ids import new_id
from siyu.identity.v1 import events_pb2, tenant_pb2
from tests.store.identity.conftest import NOON, Brand, Identity, at, token_of


async def test_a_tenant_is_made_with_an_admin_that_can_do_everything_in_it(identity: Identity) -> None:
    reply = await identity.found("brand", time_zone="Europe/Rome", currency_code="EUR", region_code="IT")
    claims = await token_of(identity, reply.admin_client_id, reply.admin_client_secret)
    assert principal_of(claims).tenant_id == reply.tenant.tenant_id
    assert claims == claims | {
        "sub": reply.admin_client_id,
        "tid": reply.tenant.tenant_id,
        "kind": "backend",
        "tz": "Europe/Rome",
        "cur": "EUR",
        "scp": " ".join(sorted(scopes.TENANT)),
    }
    assert not {"tc", "sto", "sup"} & claims.keys()
    (event,) = await identity.events()
    told = events_pb2.TenantChanged.FromString(event.payload)
    assert (told.tenant_id, told.time_zone, told.version) == (reply.tenant.tenant_id, "Europe/Rome", 1)
    assert not told.HasField("test_clock_at")


async def test_defaults_are_chinas(identity: Identity) -> None:
    tenant = (await identity.found()).tenant
    assert (tenant.time_zone, tenant.currency_code, tenant.region_code) == ("Asia/Shanghai", "CNY", "CN")


async def test_a_code_is_taken_once_and_a_repeated_request_is_the_same_tenant(identity: Identity) -> None:
    request = tenant_pb2.CreateTenantRequest(request_id="r1", code="brand", display_name="Brand")
    replies = await asyncio.gather(*(identity.tenants.create_tenant(request, identity.operator()) for _ in range(8)))
    assert all(reply == replies[0] for reply in replies)
    assert replies[0].admin_client_secret
    with pytest.raises(TenantExists):
        await identity.found("brand")
    with pytest.raises(AlreadyExists) as reused:
        await identity.tenants.create_tenant(
            tenant_pb2.CreateTenantRequest(request_id="r1", code="other", display_name="Brand"), identity.operator()
        )
    assert reused.value.reason == "REQUEST_ID_REUSED"
    assert len(await identity.events()) == 1


async def test_a_tenants_secret_is_told_for_a_day(identity: Identity) -> None:
    request = tenant_pb2.CreateTenantRequest(request_id="r1", code="brand", display_name="Brand")
    first = await identity.tenants.create_tenant(request, identity.operator())
    identity.clock.advance(timedelta(hours=24, seconds=1))
    later = await identity.tenants.create_tenant(request, identity.operator())
    assert later.admin_client_secret == ""
    assert (later.tenant, later.admin_client_id) == (first.tenant, first.admin_client_id)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("time_zone", "Mars/Olympus", id="a zone that is none"),
        pytest.param("time_zone", "../../etc/passwd", id="a path"),
        pytest.param("region_code", "ZZ", id="a region that is none"),
        pytest.param("currency_code", "ABC", id="a currency that is none"),
        pytest.param("currency_code", "BGN", id="a currency of the past"),
        pytest.param("currency_code", "XAU", id="gold"),
    ],
)
async def test_what_does_not_exist_is_refused_before_anything_is_written(
    identity: Identity, field: str, value: str
) -> None:
    for _ in range(2):
        with pytest.raises(Invalid) as refused:
            await identity.found("brand", **{field: value})
        assert [at for at, _ in refused.value.violations] == [field]
    assert (await identity.found("brand")).tenant.code == "brand"


async def test_the_test_clock_only_moves_forward(identity: Identity) -> None:
    brand = await identity.brand(test_clock_at=at(NOON))

    async def advance(to: datetime, request_id: str = "") -> tenant_pb2.Tenant:
        request = tenant_pb2.AdvanceTestClockRequest(request_id=request_id or new_id(), to=at(to))
        return (await identity.tenants.advance_test_clock(request, brand.call())).tenant

    known = identity.tenants.desk.known
    assert await known.business_now(brand.tenant_id) == NOON
    first = await advance(NOON + timedelta(days=1), "r1")
    assert first.test_clock_at.ToDatetime(tzinfo=UTC) == NOON + timedelta(days=1)
    assert await known.business_now(brand.tenant_id) == NOON + timedelta(days=1)
    await advance(NOON + timedelta(days=1))
    with pytest.raises(ClockBackwards):
        await advance(NOON)
    await advance(NOON + timedelta(days=2))
    assert await advance(NOON + timedelta(days=1), "r1") == first
    told = [events_pb2.TenantChanged.FromString(event.payload) for event in await identity.events()]
    assert [(each.version, each.test_clock_at.ToDatetime(tzinfo=UTC)) for each in told] == [
        (1, NOON),
        (2, NOON + timedelta(days=1)),
        (3, NOON + timedelta(days=2)),
    ]


async def test_clocks_that_race_never_go_back(identity: Identity) -> None:
    brand = await identity.brand(test_clock_at=at(NOON))
    requests = [
        tenant_pb2.AdvanceTestClockRequest(request_id=new_id(), to=at(NOON + timedelta(hours=hours)))
        for hours in (5, 1, 9, 3, 7)
    ]
    await asyncio.gather(
        *(identity.tenants.advance_test_clock(each, brand.call()) for each in requests), return_exceptions=True
    )
    tenant = (await identity.tenants.get_tenant(tenant_pb2.GetTenantRequest(), brand.call())).tenant
    assert tenant.test_clock_at.ToDatetime(tzinfo=UTC) == NOON + timedelta(hours=9)
    told = [
        events_pb2.TenantChanged.FromString(event.payload).test_clock_at.seconds for event in await identity.events()
    ]
    assert told == sorted(told)


async def test_machine_time_has_no_test_clock_and_no_tenant_is_none(identity: Identity, brand: Brand) -> None:
    request = tenant_pb2.AdvanceTestClockRequest(request_id=new_id(), to=at(NOON))
    with pytest.raises(NoTestClock):
        await identity.tenants.advance_test_clock(request, brand.call())
    with pytest.raises(UnknownTenant):
        await identity.tenants.get_tenant(tenant_pb2.GetTenantRequest(), identity.operator())
