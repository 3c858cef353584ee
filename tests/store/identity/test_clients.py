"""Clients: what each may be, who makes and revokes it, and which token it gets."""

import asyncio
from datetime import timedelta

import pytest

from services.identity.domain import scopes
from services.identity.domain.refusals import BadCredentials, LastAdmin, ScopeNotGrantable, UnknownClient, UnknownStore
from services.runtime.call import Actor, ActorKind
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.errors import Invalid, NotAllowed
from services.runtime.ids import new_id
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2
from tests.store.identity.conftest import Brand, Identity, new_client, token_of


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


async def test_without_a_tenant_the_app_role_can_only_ask_for_one_client(identity: Identity, brand: Brand) -> None:
    async def listed(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM clients")

    async def asked(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM client_for_token($1::uuid)", brand.admin_id)

    assert await identity.app.read(EVERY_TENANT, listed) == 0
    assert await identity.app.read(EVERY_TENANT, asked) == 1
