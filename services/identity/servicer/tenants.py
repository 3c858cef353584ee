"""TenantService."""

from dataclasses import dataclass

from services.identity import convert
from services.identity.usecases.tenants import TenantDesk, within_new_tenant
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from siyu.identity.v1 import tenant_pb2

SERVICE = tenant_pb2.DESCRIPTOR.services_by_name["TenantService"]
_FAMILY_OF_CREATE = rule_of(SERVICE.methods_by_name["CreateTenant"]).family
_FAMILY_OF_CLOCK = rule_of(SERVICE.methods_by_name["AdvanceTestClock"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantServicer:
    """Serves TenantService."""

    desk: TenantDesk

    async def create_tenant(
        self, request: tenant_pb2.CreateTenantRequest, call: Call
    ) -> tenant_pb2.CreateTenantResponse:
        """Makes a tenant and its admin client, whose secret is computed and stored nowhere."""
        within = within_new_tenant(call, request.request_id)
        once = idempotency.once(within, family=_FAMILY_OF_CREATE, request=request, encode=convert.founded_reply)
        stored = await self.desk.found(within, once, convert.new_tenant(request))
        reply = tenant_pb2.CreateTenantResponse.FromString(stored)
        reply.admin_client_secret = self.desk.secret_to_tell(
            within.tenant_id, reply.admin_client_id, made_at=convert.instant(reply.tenant.created_at)
        )
        return reply

    async def get_tenant(self, _request: tenant_pb2.GetTenantRequest, call: Call) -> tenant_pb2.GetTenantResponse:
        """The caller's tenant."""
        return tenant_pb2.GetTenantResponse(tenant=convert.tenant_message(await self.desk.get(call)))

    async def advance_test_clock(
        self, request: tenant_pb2.AdvanceTestClockRequest, call: Call
    ) -> tenant_pb2.AdvanceTestClockResponse:
        """Moves the test clock forward."""
        once = idempotency.once(call, family=_FAMILY_OF_CLOCK, request=request, encode=convert.clock_reply)
        stored = await self.desk.advance(call, once, to=convert.instant(request.to))
        return tenant_pb2.AdvanceTestClockResponse.FromString(stored)
