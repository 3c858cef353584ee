"""identity as a process of its own: its roles, over gRPC, from the first token to an orderly end."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from services.console.stack import ports
from services.identity.domain.credentials import Keys
from services.identity.main import ROLES, SERVICE, IdentitySettings
from services.runtime.ids import new_id
from services.runtime.settings import Settings, WrongSettingsError, from_environment, without_user
from siyu.common.v1 import audit_pb2, audit_pb2_grpc, feed_pb2, feed_pb2_grpc
from siyu.identity.v1 import client_pb2, client_pb2_grpc, member_pb2, member_pb2_grpc, tenant_pb2, tenant_pb2_grpc
from tests.store.identity.conftest import ROOT_SECRET, card, sign_up

KEYS = Keys.derive(ROOT_SECRET)
Metadata = tuple[tuple[str, str], ...]


@pytest_asyncio.fixture(loop_scope="session")
async def channel(identity_settings: Settings, valkey_url: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a process with all of identity's roles; its end must be an orderly one."""
    (port,) = ports.pick(1)
    address = f"127.0.0.1:{port}"
    environment = os.environ | {
        # as in a cluster: the roles log in as their own, and know no admin
        "DATABASE_URL": without_user(identity_settings.database_url),
        "REDIS_URL": valkey_url,
        "SIYU_ROLE_PASSWORD": identity_settings.role_password,
        "SIYU_ROOT_SECRET": ROOT_SECRET,
        "SIYU_SERVICE_SECRET": KEYS.installation_secret_of("service:identity"),
        "SIYU_LISTEN": address,
        "SIYU_IDENTITY_ADDRESS": address,
        "SIYU_LOG_PARTITIONS": str(identity_settings.log_partitions),
        "SIYU_DRAIN_S": "0.1",
    }
    roles = ",".join(role.name for role in ROLES)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.console", "run", SERVICE, "--roles", roles, env=environment
    )
    try:
        async with grpc.aio.insecure_channel(address) as opened:
            await asyncio.wait_for(opened.channel_ready(), 30)
            yield opened
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def token(channel: grpc.aio.Channel, client_id: str, secret: str, tenant_id: str = "") -> Metadata:
    request = client_pb2.IssueTokenRequest(client_id=client_id, client_secret=secret, tenant_id=tenant_id)
    reply = await client_pb2_grpc.TokenServiceStub(channel).IssueToken(request, timeout=10)
    return (("authorization", f"Bearer {reply.access_token}"),)


async def test_from_the_operators_secret_to_a_resolved_member(channel: grpc.aio.Channel) -> None:
    operator = await token(channel, "platform:operator", KEYS.installation_secret_of("platform:operator"))
    founded = await tenant_pb2_grpc.TenantServiceStub(channel).CreateTenant(
        tenant_pb2.CreateTenantRequest(request_id=new_id(), code="brand", display_name="Brand"),
        metadata=operator,
        timeout=10,
    )
    admin = await token(channel, founded.admin_client_id, founded.admin_client_secret)
    members = member_pb2_grpc.MemberServiceStub(channel)
    registered = await members.RegisterMember(sign_up(card("c1")), metadata=admin, timeout=10)
    resolve = member_pb2.ResolveMemberRequest(identifier=card("c1"))
    replies = await asyncio.gather(*(members.ResolveMember(resolve, metadata=admin, timeout=10) for _ in range(50)))
    assert {reply.member_id for reply in replies} == {registered.member.member_id}

    # the operator makes tenants and does nothing inside of them
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await members.ResolveMember(resolve, metadata=operator, timeout=10)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await token(channel, founded.admin_client_id, "wrong")
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

    service = KEYS.installation_secret_of("service:loyalty")
    reader = await token(channel, "service:loyalty", service)
    feed = feed_pb2_grpc.FeedServiceStub(channel)
    async with asyncio.timeout(10):
        while True:
            heads = await feed.GetHeads(feed_pb2.GetHeadsRequest(), metadata=reader, timeout=5)
            if sum(head.events_total for head in heads.heads) == 2:
                break
            await asyncio.sleep(0.05)
    auditor = await token(channel, "service:loyalty", service, founded.tenant.tenant_id)
    audited = await audit_pb2_grpc.AuditServiceStub(channel).Audit(
        audit_pb2.AuditRequest(), metadata=auditor, timeout=10
    )
    assert all(finding.ok for finding in audited.findings)
    assert sum(head.events_total for head in audited.log) == 2


def test_a_root_secret_that_is_none_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIYU_ROOT_SECRET", "short")
    with pytest.raises(WrongSettingsError, match=r"^SIYU_ROOT_SECRET: [^\n]*at least 32 characters$"):
        from_environment(IdentitySettings)
