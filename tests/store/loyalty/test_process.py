"""loyalty as processes of its own, over gRPC, beside identity: from a token to a balance, a hold and an audit."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio

from services.console.stack import ports
from services.identity.domain.credentials import Keys
from services.loyalty.main import ROLES
from services.runtime.ids import new_id
from services.runtime.settings import Settings, without_user
from siyu.common.v1 import audit_pb2, audit_pb2_grpc
from siyu.identity.v1 import client_pb2, client_pb2_grpc, tenant_pb2, tenant_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc

ROOT_SECRET = "a-root-secret-for-tests-0123456789-abcdef"
KEYS = Keys.derive(ROOT_SECRET)
# commerce is not there: its worker would only wait
OURS = ",".join(role.name for role in ROLES if role.name != "worker:accrual")


@asynccontextmanager
async def running(service: str, roles: str, environment: dict[str, str]) -> AsyncIterator[None]:
    """A process, which must end in an orderly way."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.console", "run", service, "--roles", roles, env=os.environ | environment
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


@pytest_asyncio.fixture(loop_scope="session")
async def channels(settings: Settings) -> AsyncIterator[tuple[grpc.aio.Channel, grpc.aio.Channel]]:
    """Channels to identity and to loyalty."""
    first, second = ports.pick(2)
    addresses = {"identity": f"127.0.0.1:{first}", "loyalty": f"127.0.0.1:{second}"}
    async with AsyncExitStack() as stack:
        opened = []
        for service, roles in (("identity", "api,relay"), ("loyalty", OURS)):
            environment = {
                # as in a cluster: the roles log in as their own, and know no admin
                "DATABASE_URL": without_user(settings.database_url),
                "REDIS_URL": settings.redis_url,
                "SIYU_ROLE_PASSWORD": settings.role_password,
                "SIYU_ROOT_SECRET": ROOT_SECRET,
                "SIYU_SERVICE_SECRET": KEYS.installation_secret_of(f"service:{service}"),
                "SIYU_LISTEN": addresses[service],
                "SIYU_IDENTITY_ADDRESS": addresses["identity"],
                "SIYU_DRAIN_S": "0.1",
            }
            await stack.enter_async_context(running(service, roles, environment))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses[service]))
            await asyncio.wait_for(channel.channel_ready(), 30)
            opened.append(channel)
        yield opened[0], opened[1]


async def token(channel: grpc.aio.Channel, client_id: str, secret: str, tenant_id: str = "") -> Any:
    request = client_pb2.IssueTokenRequest(client_id=client_id, client_secret=secret, tenant_id=tenant_id)
    reply = await client_pb2_grpc.TokenServiceStub(channel).IssueToken(request, timeout=10)
    return (("authorization", f"Bearer {reply.access_token}"),)


async def eventually(work: Any) -> Any:
    """The result of the call, once the tenant has reached loyalty."""
    async with asyncio.timeout(15):
        while True:
            try:
                return await work()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)


async def test_from_a_token_to_the_books(channels: tuple[grpc.aio.Channel, grpc.aio.Channel]) -> None:
    identity, loyalty = channels
    operator = await token(identity, "platform:operator", KEYS.installation_secret_of("platform:operator"))
    founded = await tenant_pb2_grpc.TenantServiceStub(identity).CreateTenant(
        tenant_pb2.CreateTenantRequest(request_id=new_id(), code="brand", display_name="Brand"),
        metadata=operator,
        timeout=10,
    )
    admin = await token(identity, founded.admin_client_id, founded.admin_client_secret)
    programmes = programme_pb2_grpc.ProgrammeServiceStub(loyalty)
    programme = programme_pb2.Programme(
        point_currency="points",
        display_name="Points",
        expiry_classes=[programme_pb2.ExpiryClass(class_id="year", days=365)],
        earn_rules=[programme_pb2.EarnRule(rule_id="base", points="1", per_minor=100)],
        tiers=[programme_pb2.Tier(tier_id="base"), programme_pb2.Tier(tier_id="gold", orders=10, multiplier="2")],
    )
    publish = programme_pb2.PublishProgrammeRequest(request_id=new_id(), programme=programme)
    for _ in range(2):
        reply = await eventually(lambda: programmes.PublishProgramme(publish, metadata=admin, timeout=10))
        assert reply.version == 1

    points = points_pb2_grpc.PointsServiceStub(loyalty)
    member = new_id()

    def ask(request_id: str, amount: int = 10) -> points_pb2.AccrueRequest:
        return points_pb2.AccrueRequest(
            request_id=request_id, member_id=member, point_currency="points", points=amount, reason="goodwill"
        )

    replies = await asyncio.gather(
        *(points.Accrue(ask(f"r{number % 50}"), metadata=admin, timeout=10) for number in range(100))
    )
    assert len({reply.entry_id for reply in replies}) == 50
    batch = points_pb2.BatchAccrueRequest(items=[ask("r1"), ask("r1", 99), ask("b1"), ask("b2")])
    verdicts = (await points.BatchAccrue(batch, metadata=admin, timeout=10)).verdicts
    assert [verdict.refusal_reason for verdict in verdicts] == ["", "REQUEST_ID_REUSED", "", ""]

    async def stream() -> AsyncIterator[points_pb2.StreamAccrueRequest]:
        for number in range(3):
            yield points_pb2.StreamAccrueRequest(items=[ask(f"s{number}")])

    streamed = [reply async for reply in points.StreamAccrue(stream(), metadata=admin, timeout=10)]
    assert [reply.verdicts[0].accrued.available_points for reply in streamed] == [530, 540, 550]

    held = await points.HoldPoints(
        points_pb2.HoldPointsRequest(
            request_id=new_id(), hold_id="h1", member_id=member, point_currency="points", points=50
        ),
        metadata=admin,
        timeout=10,
    )
    assert held.available_points == 500
    captured = await points.CaptureHold(
        points_pb2.CaptureHoldRequest(request_id=new_id(), hold_id="h1", points=20), metadata=admin, timeout=10
    )
    assert captured.hold.captured_points == 20
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await points.VoidHold(points_pb2.VoidHoldRequest(request_id=new_id(), hold_id="h1"), metadata=admin, timeout=10)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    balance = await points.GetBalance(
        points_pb2.GetBalanceRequest(member_id=member, point_currency="points"), metadata=admin, timeout=10
    )
    assert (balance.available_points, balance.posted_points, balance.next_expiry_points) == (530, 530, 530)
    listed = await points.ListEntries(
        points_pb2.ListEntriesRequest(member_id=member, point_currency="points", page_size=40),
        metadata=admin,
        timeout=10,
    )
    rest = await points.ListEntries(
        points_pb2.ListEntriesRequest(
            member_id=member, point_currency="points", page_size=200, page_token=listed.next_page_token
        ),
        metadata=admin,
        timeout=10,
    )
    assert sum(entry.points for entry in (*listed.entries, *rest.entries)) == 530
    quoted = await points.QuotePoints(
        points_pb2.QuotePointsRequest(
            member_id=member,
            point_currency="points",
            lines=[points_pb2.PointsLine(line_id="1", sku="a", quantity=1, accrual_base_minor=1999)],
        ),
        metadata=admin,
        timeout=10,
    )
    assert (quoted.points, quoted.programme_version) == (19, 1)
    tier = await programme_pb2_grpc.TierServiceStub(loyalty).GetTier(
        programme_pb2.GetTierRequest(member_id=member, point_currency="points"), metadata=admin, timeout=10
    )
    assert (tier.tier_id, tier.next_tier_id, tier.next_orders) == ("base", "gold", 10)

    auditor = await token(
        identity, "service:loyalty", KEYS.installation_secret_of("service:loyalty"), founded.tenant.tenant_id
    )
    auditing = audit_pb2_grpc.AuditServiceStub(loyalty)
    async with asyncio.timeout(15):
        while True:
            audited = await auditing.Audit(audit_pb2.AuditRequest(), metadata=auditor, timeout=10)
            # a member's grants of one transaction are one event
            if 0 < sum(head.events_total for head in audited.log) <= 55:
                break
            await asyncio.sleep(0.05)
    assert all(finding.ok for finding in audited.findings), audited.findings
    assert audited.figures["points_available"] == 530
