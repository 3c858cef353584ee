"""Tokens: who gets one, how guessing is slowed down, and the keys that sign them."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from cryptography.exceptions import InvalidTag

from services.identity.domain import scopes
from services.identity.domain.refusals import BadCredentials, TooManyAttempts
from services.identity.store.attempts import FAILURES_MAX
from services.runtime.auth import TokenVerifier
from services.runtime.clock import SystemClock
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.ids import new_id
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2
from tests.store.identity.conftest import NOON, Brand, Identity, at, new_client, token_of


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
        identity.operator()._replace(peer="ipv4:10.0.0.1"),
        identity.operator()._replace(peer="ipv4:10.0.0.2"),
    )
    wrong = client_pb2.IssueTokenRequest(client_id=brand.admin_id, client_secret="wrong")
    right = client_pb2.IssueTokenRequest(client_id=brand.admin_id, client_secret=secret)
    for _ in range(FAILURES_MAX):
        with pytest.raises(BadCredentials):
            await identity.tokens.issue_token(wrong, guesser)
    with pytest.raises(TooManyAttempts):
        await identity.tokens.issue_token(right, guesser)
    assert (await identity.tokens.issue_token(right, owner)).access_token


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


async def test_a_clock_behind_that_of_who_made_the_first_key_signs_with_it(identity: Identity, brand: Brand) -> None:
    await identity.signing.rotate()
    identity.clock.at -= timedelta(seconds=2)
    secret = identity.keys.secret_of(brand.tenant_id, brand.admin_id)
    assert (await token_of(identity, brand.admin_id, secret))["sub"] == brand.admin_id
    assert len(await identity.signing.published()) == 1


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
