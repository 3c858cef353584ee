"""How a till calls: what it repeats by itself, against a server that refuses as identity and the services do."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio

from services.console.demo.calls import Caller, Wire
from services.runtime.errors import Unauthenticated
from siyu.identity.v1 import client_pb2, tenant_pb2, tenant_pb2_grpc


@dataclass(slots=True)
class Installation:
    """Takes the token that it gave last; `revoke` makes it another, as new keys or a restart do."""

    issued: int = 0
    asked: int = 0
    good: str = ""
    takes_none: bool = False
    address: str = ""
    wires: list[Wire] = field(default_factory=list)

    async def issue_token(self, request: Any, context: Any) -> client_pb2.IssueTokenResponse:
        if request.client_secret != "secret":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who is that?")
        await asyncio.sleep(0.01)
        self.issued += 1
        self.good = f"token-{self.issued}"
        return client_pb2.IssueTokenResponse(access_token=self.good, expires_in_s=600)

    async def answer(self, _request: Any, context: Any) -> tenant_pb2.GetTenantResponse:
        self.asked += 1
        sent = dict(context.invocation_metadata()).get("authorization")
        if self.takes_none or sent != f"Bearer {self.good}":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this token is not valid")
        return tenant_pb2.GetTenantResponse()

    def revoke(self) -> None:
        self.good = "another's"

    async def get_tenant(self, caller: Caller) -> Any:
        stub = self.wires[0].stub(tenant_pb2_grpc.TenantServiceStub)
        return await self.wires[0].call(stub.GetTenant, tenant_pb2.GetTenantRequest(), caller=caller)


@pytest_asyncio.fixture(loop_scope="session")
async def installation() -> AsyncIterator[Installation]:
    it = Installation()
    server = grpc.aio.server()
    # of each service the one method that is called
    for module, service, method, work in (
        (client_pb2, "TokenService", "IssueToken", it.issue_token),
        (tenant_pb2, "TenantService", "GetTenant", it.answer),
    ):
        request, reply = getattr(module, f"{method}Request"), getattr(module, f"{method}Response")
        handler = grpc.unary_unary_rpc_method_handler(work, request.FromString, reply.SerializeToString)
        name = module.DESCRIPTOR.services_by_name[service].full_name
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    it.wires.append(Wire({"identity": f"127.0.0.1:{port}"}))
    yield it
    await it.wires[0].close()
    await server.stop(0)


def till(secret: str = "secret") -> Caller:
    return Caller(client_id="till", secret=secret)


async def test_a_token_that_is_refused_is_renewed_once_and_the_call_repeated(installation: Installation) -> None:
    caller = till()
    await installation.get_tenant(caller)
    installation.revoke()
    await installation.get_tenant(caller)
    assert (installation.issued, installation.asked) == (2, 3)
    assert installation.wires[0].watch.repeated["GetTenant"] == 1


async def test_tills_that_share_a_token_renew_it_once(installation: Installation) -> None:
    caller = till()
    await installation.get_tenant(caller)
    installation.revoke()
    await asyncio.gather(*(installation.get_tenant(caller) for _ in range(20)))
    assert installation.issued == 2


async def test_who_is_refused_with_a_new_token_as_well_is_refused(installation: Installation) -> None:
    installation.takes_none = True
    with pytest.raises(Unauthenticated):
        await installation.get_tenant(till())
    assert (installation.issued, installation.asked) == (2, 2)


async def test_a_wrong_secret_is_refused_at_once(installation: Installation) -> None:
    with pytest.raises(Unauthenticated):
        await installation.get_tenant(till("guess"))
    assert (installation.issued, installation.asked) == (0, 0)
