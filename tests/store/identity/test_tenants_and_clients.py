"""Tenants, test clocks, stores, clients and tokens."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import jwt
import pytest
from cryptography.exceptions import InvalidTag
from google.protobuf.timestamp_pb2 import Timestamp

from services.identity.domain import scopes
from services.identity.domain.refusals import (
    BadCredentials,
    ClockBackwards,
    LastAdmin,
    NoTestClock,
    ScopeNotGrantable,
    TenantExists,
    TooManyAttempts,
    UnknownClient,
    UnknownStore,
    UnknownTenant,
)
from services.identity.store.attempts import FAILURES_MAX
from services.runtime.auth import TokenVerifier, principal_of
from services.runtime.call import Actor, ActorKind
from services.runtime.clock import SystemClock
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.errors import AlreadyExists, Invalid, NotAllowed
from services.runtime.ids import new_id
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2, events_pb2, store_pb2, tenant_pb2
from tests.store.identity.conftest import NOON, Brand, Identity


def at(moment: datetime) -> Timestamp:
    told = Timestamp()
    told.FromDatetime(moment)
    return told


def new_client(
    kind: rule_pb2.ActorKind.ValueType, request_id: str = "", **given: object
) -> client_pb2.CreateClientRequest:
    return client_pb2.CreateClientRequest(
        request_id=request_id or new_id(), display_name="a client", kind=kind, **given
    )


async def token_of(identity: Identity, client_id: str, secret: str, tenant_id: str = "") -> dict[str, object]:
    """The claims of a token, verified as the other services verify it."""
    request = client_pb2.IssueTokenRequest(client_id=client_id, client_secret=secret, tenant_id=tenant_id)
    reply = await identity.tokens.issue_token(request, identity.operator())
    assert reply.expires_in_s == 600
    keys = (await identity.tokens.get_jwks(client_pb2.GetJwksRequest(), identity.operator())).keys
    key_id = jwt.get_unverified_header(reply.access_token)["kid"]
    (found,) = [{f.name: value for f, value in key.ListFields()} for key in keys if key.kid == key_id]
    # the tests' clock stands still in 2026
    return jwt.decode(
        reply.access_token,
        jwt.PyJWK(found, algorithm="ES256"),
        algorithms=["ES256"],
        audience="siyu",
        issuer="siyu",
        options={"verify_exp": False, "verify_iat": False},
    )


# --- tenants ---------------------------------------------------------------------------------------------------------


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
    "given", [{"time_zone": "Mars/Olympus"}, {"time_zone": "../../etc/passwd"}, {"region_code": "ZZ"}], ids=str
)
async def test_a_zone_or_region_that_is_none_is_refused(identity: Identity, given: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        await identity.found(**given)


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


# --- stores ----------------------------------------------------------------------------------------------------------


async def test_stores_are_made_changed_and_listed_page_by_page(identity: Identity, brand: Brand) -> None:
    async def upsert(stores: list[store_pb2.Store], request_id: str = "") -> tuple[int, int]:
        request = store_pb2.BatchUpsertStoresRequest(request_id=request_id or new_id(), stores=stores)
        reply = await identity.stores.batch_upsert_stores(request, brand.call())
        return reply.created, reply.updated

    five = [store_pb2.Store(store_id=f"S{number}", display_name="shop", active=True) for number in range(5)]
    assert await upsert(five, "r1") == (5, 0)
    assert await upsert(five) == (0, 0)
    five[2].display_name = "corner shop"
    assert await upsert([*five[:3], store_pb2.Store(store_id="T1", display_name="new", active=True)]) == (1, 1)
    listed, token = [], ""
    while True:
        page = await identity.stores.list_stores(
            store_pb2.ListStoresRequest(page_size=2, page_token=token), brand.call()
        )
        listed += [store.store_id for store in page.stores]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["S0", "S1", "S2", "S3", "S4", "T1"]
    with pytest.raises(Invalid):
        await identity.stores.list_stores(store_pb2.ListStoresRequest(page_token="mine"), brand.call())


async def test_who_follows_hears_of_each_store_that_changed(identity: Identity, brand: Brand) -> None:
    def store(store_id: str, name: str = "shop", *, active: bool = True) -> store_pb2.Store:
        return store_pb2.Store(store_id=store_id, display_name=name, active=active, version=9)

    async def upsert(*stores: store_pb2.Store, request_id: str) -> None:
        request = store_pb2.BatchUpsertStoresRequest(request_id=request_id, stores=stores)
        await identity.stores.batch_upsert_stores(request, brand.call())

    await upsert(store("S1"), store("S2"), request_id="r1")
    await upsert(store("S1"), store("S2"), request_id="r1")
    await upsert(store("S1"), store("S2", active=False), request_id="r2")
    with pytest.raises(Invalid):
        await upsert(store("S1", "new"), store("S1"), request_id="r3")
    envelopes = [each for each in await identity.events() if each.type == "identity.StoreChanged"]
    told = [events_pb2.StoreChanged.FromString(each.payload) for each in envelopes]
    assert [(each.store_id, each.active, each.version) for each in told] == [
        ("S1", True, 1),
        ("S2", True, 1),
        ("S2", False, 2),
    ]
    assert [(each.tenant_id, each.aggregate_id, each.aggregate_version) for each in envelopes] == [
        (brand.tenant_id, each.store_id, each.version) for each in told
    ]
    found = await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S2"), brand.call())
    assert (found.store.active, found.store.version) == (False, 2)


async def test_a_till_reads_its_own_store(identity: Identity, brand: Brand) -> None:
    await brand.add_stores("S1", "S2")
    assert (await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S1"), brand.till())).store.active
    with pytest.raises(NotAllowed):
        await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S2"), brand.till())
    page = await identity.stores.list_stores(store_pb2.ListStoresRequest(), brand.till())
    assert [store.store_id for store in page.stores] == ["S1"]
    with pytest.raises(UnknownStore):
        await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S3"), brand.call())
    other = await identity.brand()
    with pytest.raises(UnknownStore):
        await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S1"), other.call())


async def test_a_batch_of_stores_with_a_bad_one_makes_none(identity: Identity, brand: Brand) -> None:
    good = store_pb2.Store(store_id="S1", display_name="shop", active=True)
    for bad in (good, store_pb2.Store(store_id="S2", display_name="shop", time_zone="Nowhere")):
        with pytest.raises(Invalid):
            await identity.stores.batch_upsert_stores(
                store_pb2.BatchUpsertStoresRequest(request_id=new_id(), stores=[good, bad]), brand.call()
            )
    page = await identity.stores.list_stores(store_pb2.ListStoresRequest(), brand.call())
    assert not page.stores


# --- clients and tokens ----------------------------------------------------------------------------------------------


async def test_a_tills_token_says_its_store(identity: Identity, brand: Brand) -> None:
    await brand.add_stores("S1")
    request = new_client(rule_pb2.ACTOR_KIND_POS, store_id="S1")
    made = await identity.clients.create_client(request, brand.call())
    assert len(made.client_secret) == 52
    claims = await token_of(identity, made.client.client_id, made.client_secret)
    assert (claims["sto"], claims["kind"], claims["tid"]) == ("S1", "pos", brand.tenant_id)
    assert set(str(claims["scp"]).split()) == scopes.USUAL[ActorKind.POS]
    assert await identity.clients.create_client(request, brand.call()) == made
    identity.clock.advance(timedelta(hours=24, seconds=1))
    assert (await identity.clients.create_client(request, brand.call())).client_secret == ""


async def test_no_secret_is_stored(identity: Identity, brand: Brand) -> None:
    made = await identity.clients.create_client(new_client(rule_pb2.ACTOR_KIND_BACKEND), brand.call())

    async def everything(connection: Connection) -> str:
        rows = await raw(connection).fetch(
            "SELECT c::text AS said FROM clients c UNION ALL SELECT encode(reply, 'escape') FROM requests"
        )
        return "".join(row["said"] for row in rows)

    assert made.client_secret not in await identity.system.read(EVERY_TENANT, everything)


async def test_nobody_makes_a_client_that_can_do_more_than_its_maker(identity: Identity, brand: Brand) -> None:
    await brand.add_stores("S1", "S2")
    manager = Actor(
        kind=ActorKind.STAFF,
        id="manager",
        scopes=frozenset({"identity.clients.write", "commerce.pos.sell", "identity.read"}),
        store_id="S1",
    )
    call = brand.call(actor=manager, client_id="manager")
    make = identity.clients.create_client
    own = new_client(rule_pb2.ACTOR_KIND_POS, store_id="S1", scopes=["commerce.pos.sell"])
    assert (await make(own, call)).client.store_id == "S1"
    with pytest.raises(ScopeNotGrantable):
        await make(new_client(rule_pb2.ACTOR_KIND_POS, store_id="S1", scopes=["commerce.refunds.write"]), call)
    with pytest.raises(ScopeNotGrantable):
        await make(new_client(rule_pb2.ACTOR_KIND_POS, store_id="S1"), call)
    with pytest.raises(NotAllowed):
        await make(new_client(rule_pb2.ACTOR_KIND_POS, store_id="S2", scopes=["commerce.pos.sell"]), call)
    with pytest.raises(NotAllowed):
        await make(new_client(rule_pb2.ACTOR_KIND_BACKEND, scopes=["identity.read"]), call)


async def test_nobody_revokes_or_sees_clients_beyond_its_own_reach(identity: Identity, brand: Brand) -> None:
    """A store's manager has to do with its store's clients only, and with none that can do more than it."""
    await brand.add_stores("S1", "S2")
    manager = Actor(
        kind=ActorKind.STAFF,
        id="manager",
        scopes=frozenset({"identity.clients.write", "commerce.pos.sell", "identity.read"}),
        store_id="S1",
    )
    call = brand.call(actor=manager, client_id="manager")

    async def made(store_id: str, *scopes: str) -> str:
        request = new_client(rule_pb2.ACTOR_KIND_STAFF, store_id=store_id, scopes=scopes)
        return (await identity.clients.create_client(request, brand.call())).client.client_id

    async def revoked(client_id: str) -> bool:
        request = client_pb2.RevokeClientRequest(request_id=new_id(), client_id=client_id)
        return (await identity.clients.revoke_client(request, call)).client.HasField("revoked_at")

    own, stronger = await made("S1", "commerce.pos.sell"), await made("S1", "commerce.refunds.write")
    for beyond in (
        await made("S2", "commerce.pos.sell"),
        await made("", "commerce.pos.sell"),
        brand.admin_id,
        stronger,
    ):
        with pytest.raises(NotAllowed) as refused:
            await revoked(beyond)
        assert refused.value.reason == "OUT_OF_SCOPE"
    assert await revoked(own)
    listed = await identity.clients.list_clients(client_pb2.ListClientsRequest(), call)
    assert [client.client_id for client in listed.clients] == [own, stronger]


async def test_the_last_admin_stays(identity: Identity, brand: Brand) -> None:
    """Somebody unbound must be left who can make clients, also when two admins revoke each other at once."""
    await brand.add_stores("S1")
    bound = new_client(rule_pb2.ACTOR_KIND_STAFF, store_id="S1", scopes=["identity.clients.write"])
    await identity.clients.create_client(bound, brand.call())

    async def revoked(client_id: str) -> bool:
        request = client_pb2.RevokeClientRequest(request_id=new_id(), client_id=client_id)
        try:
            return (await identity.clients.revoke_client(request, brand.call())).client.HasField("revoked_at")
        except LastAdmin:
            return False

    assert not await revoked(brand.admin_id)
    other = await identity.clients.create_client(new_client(rule_pb2.ACTOR_KIND_BACKEND), brand.call())
    admins = [brand.admin_id, other.client.client_id]
    done = await asyncio.gather(*(revoked(admin) for admin in admins))
    assert sorted(done) == [False, True]
    # a revoked one is revoked again without a word
    assert await revoked(admins[done.index(True)])


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        pytest.param(new_client(rule_pb2.ACTOR_KIND_POS), Invalid, id="a till without a store"),
        pytest.param(new_client(rule_pb2.ACTOR_KIND_POS, store_id="gone"), UnknownStore, id="a till in no store"),
        pytest.param(new_client(rule_pb2.ACTOR_KIND_SUPPLIER), Invalid, id="a supplier without its id"),
        pytest.param(new_client(rule_pb2.ACTOR_KIND_BACKEND, supplier_id="X"), Invalid, id="a backend of a supplier"),
        pytest.param(new_client(rule_pb2.ACTOR_KIND_BACKEND, scopes=["a.b"]), Invalid, id="a scope that is none"),
        pytest.param(
            new_client(rule_pb2.ACTOR_KIND_BACKEND, scopes=["platform.tenants.write"]),
            ScopeNotGrantable,
            id="the operator's scope",
        ),
        pytest.param(
            new_client(rule_pb2.ACTOR_KIND_SUPPLIER, supplier_id="X", scopes=["loyalty.points.write"]),
            ScopeNotGrantable,
            id="a scope beyond the kind",
        ),
    ],
)
async def test_a_client_that_can_not_be_is_refused(
    identity: Identity, brand: Brand, request_: client_pb2.CreateClientRequest, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        await identity.clients.create_client(request_, brand.call())


async def test_a_revoked_client_gets_no_token(identity: Identity, brand: Brand) -> None:
    made = await identity.clients.create_client(new_client(rule_pb2.ACTOR_KIND_BACKEND), brand.call())
    await token_of(identity, made.client.client_id, made.client_secret)
    revoke = client_pb2.RevokeClientRequest(request_id=new_id(), client_id=made.client.client_id)
    reply = await identity.clients.revoke_client(revoke, brand.call())
    assert reply.client.HasField("revoked_at")
    assert await identity.clients.revoke_client(revoke, brand.call()) == reply
    with pytest.raises(BadCredentials):
        await token_of(identity, made.client.client_id, made.client_secret)
    other = await identity.brand()
    with pytest.raises(UnknownClient):
        await identity.clients.revoke_client(
            client_pb2.RevokeClientRequest(request_id=new_id(), client_id=brand.admin_id), other.call()
        )
    listed = await identity.clients.list_clients(client_pb2.ListClientsRequest(page_size=1), brand.call())
    assert [client.client_id for client in listed.clients] == [brand.admin_id]
    rest = await identity.clients.list_clients(
        client_pb2.ListClientsRequest(page_token=listed.next_page_token), brand.call()
    )
    assert [client.client_id for client in rest.clients] == [made.client.client_id]


async def test_whatever_is_wrong_the_refusal_is_the_same(identity: Identity, brand: Brand) -> None:
    made = await identity.clients.create_client(new_client(rule_pb2.ACTOR_KIND_BACKEND), brand.call())
    other = await identity.brand()
    service = identity.keys.installation_secret_of("service:loyalty")
    tries = [
        (made.client.client_id, "wrong", ""),
        (new_id(), made.client_secret, ""),
        ("not a uuid", made.client_secret, ""),
        ("'; DROP TABLE clients", "x", ""),
        (made.client.client_id, made.client_secret, other.tenant_id),
        (other.admin_id, made.client_secret, ""),
        ("service:loyalty", made.client_secret, ""),
        ("service:campaign", service, ""),
        ("service:loyalty", service, new_id()),
        ("service:", identity.keys.installation_secret_of("service:"), ""),
        ("robot:loyalty", identity.keys.installation_secret_of("robot:loyalty"), ""),
    ]
    told = set()
    for client_id, secret, tenant_id in tries:
        with pytest.raises(BadCredentials) as refused:
            await token_of(identity, client_id, secret, tenant_id)
        told.add((refused.value.message, refused.value.reason, str(refused.value.metadata)))
    assert len(told) == 1


async def test_services_act_in_the_tenant_they_name_and_the_operator_makes_tenants(identity: Identity) -> None:
    brand = await identity.brand(test_clock_at=at(NOON), time_zone="Asia/Tokyo")
    secret = identity.keys.installation_secret_of("service:loyalty")
    claims = await token_of(identity, "service:loyalty", secret, brand.tenant_id)
    assert (claims["kind"], claims["tid"], claims["tz"], claims["tc"]) == (
        "service",
        brand.tenant_id,
        "Asia/Tokyo",
        True,
    )
    everywhere = await token_of(identity, "service:loyalty", secret)
    assert "tid" not in everywhere
    assert "identity.clients.write" not in str(everywhere["scp"]).split()
    operator = await token_of(identity, "platform:operator", identity.keys.installation_secret_of("platform:operator"))
    assert (operator["kind"], operator["scp"]) == ("platform", "platform.tenants.write")


async def test_a_guesser_is_slowed_down_and_others_are_not(identity: Identity, brand: Brand) -> None:
    secret = identity.keys.secret_of(brand.tenant_id, brand.admin_id)
    guesser, owner = (
        replace(identity.operator(), peer="ipv4:10.0.0.1"),
        replace(identity.operator(), peer="ipv4:10.0.0.2"),
    )
    wrong = client_pb2.IssueTokenRequest(client_id=brand.admin_id, client_secret="wrong")
    right = client_pb2.IssueTokenRequest(client_id=brand.admin_id, client_secret=secret)
    for _ in range(FAILURES_MAX):
        with pytest.raises(BadCredentials):
            await identity.tokens.issue_token(wrong, guesser)
    with pytest.raises(TooManyAttempts):
        await identity.tokens.issue_token(right, guesser)
    assert (await identity.tokens.issue_token(right, owner)).access_token


async def test_without_a_tenant_the_app_role_can_only_ask_for_one_client(identity: Identity, brand: Brand) -> None:
    async def listed(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM clients")

    async def asked(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM client_for_token($1::uuid)", brand.admin_id)

    assert await identity.app.read(EVERY_TENANT, listed) == 0
    assert await identity.app.read(EVERY_TENANT, asked) == 1


async def test_keys_rotate_without_a_moment_in_which_a_token_is_strange(identity: Identity, brand: Brand) -> None:
    secret = identity.keys.secret_of(brand.tenant_id, brand.admin_id)
    await asyncio.gather(*(token_of(identity, brand.admin_id, secret) for _ in range(4)))
    first = await identity.signing.published()
    assert len(first) == 1
    await identity.signing.rotate()
    assert await identity.signing.published() == first
    identity.clock.advance(timedelta(days=29, hours=23))
    await asyncio.gather(*(identity.signing.rotate() for _ in range(4)))
    both = await identity.signing.published()
    assert len(both) == 2
    assert (await identity.signing.current()).public == first[0]
    identity.clock.advance(timedelta(hours=1))
    assert (await identity.signing.current()).public == both[0]
    assert await identity.signing.published() == both
    await token_of(identity, brand.admin_id, secret)
    identity.clock.advance(timedelta(hours=1))
    assert await identity.signing.published() == both[:1]
    await replace(identity.signing, database=identity.system).drop_old()

    async def left(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM signing_keys")

    assert await identity.app.read(EVERY_TENANT, left) == 1


async def test_a_key_that_was_sealed_elsewhere_does_not_open(identity: Identity, brand: Brand) -> None:
    await identity.signing.current()

    identity.signing._opened.clear()
    identity.signing._read_at = float("-inf")
    # not even the system role may change a key: this is somebody with the database in hand
    connection = await asyncpg.connect(
        identity.system.dsn.replace("siyu_identity_system:roles-of-a-test-run", "postgres:roles-of-a-test-run")
    )
    try:
        await connection.execute("UPDATE identity.signing_keys SET kid = 'another'")
    finally:
        await connection.close()
    with pytest.raises(InvalidTag):
        await identity.signing.current()


async def test_the_runtimes_verifier_takes_our_tokens(identity: Identity, brand: Brand) -> None:
    identity.clock.at = SystemClock().now()
    await identity.signing.rotate()
    secret = identity.keys.secret_of(brand.tenant_id, brand.admin_id)
    request = client_pb2.IssueTokenRequest(client_id=brand.admin_id, client_secret=secret)
    token = (await identity.tokens.issue_token(request, identity.operator())).access_token

    async def fetch() -> list[dict[str, str]]:
        keys = (await identity.tokens.get_jwks(client_pb2.GetJwksRequest(), identity.operator())).keys
        return [{f.name: value for f, value in key.ListFields()} for key in keys]

    principal = await TokenVerifier(fetch).verify(token)
    assert (principal.tenant_id, principal.client_id) == (brand.tenant_id, brand.admin_id)
    assert principal.actor.scopes == scopes.TENANT


@pytest.mark.parametrize("seconds", [-(1 << 62), 1 << 62, 7258118400], ids=["long ago", "never", "the year 2200"])
async def test_a_time_that_no_business_has_is_refused(identity: Identity, brand: Brand, seconds: int) -> None:
    moment = Timestamp(seconds=seconds)
    with pytest.raises(Invalid):
        await identity.found(test_clock_at=moment)
    with pytest.raises(Invalid):
        await identity.tenants.advance_test_clock(
            tenant_pb2.AdvanceTestClockRequest(request_id=new_id(), to=moment), brand.call()
        )
