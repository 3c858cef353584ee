"""ClientService."""

from dataclasses import dataclass

from services.identity import convert
from services.identity.usecases.clients import ClientDesk
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from siyu.identity.v1 import client_pb2

SERVICE = client_pb2.DESCRIPTOR.services_by_name["ClientService"]
_FAMILY = rule_of(SERVICE.methods_by_name["CreateClient"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientServicer:
    """Serves ClientService."""

    desk: ClientDesk

    async def create_client(
        self, request: client_pb2.CreateClientRequest, call: Call
    ) -> client_pb2.CreateClientResponse:
        """Makes a client; its secret is computed and stored nowhere."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.created_client_reply)
        stored = await self.desk.create(call, once, convert.new_client(request))
        reply = client_pb2.CreateClientResponse.FromString(stored)
        reply.client_secret = self.desk.secret_to_tell(call.tenant_id, convert.client(reply.client))
        return reply

    async def revoke_client(
        self, request: client_pb2.RevokeClientRequest, call: Call
    ) -> client_pb2.RevokeClientResponse:
        """Revokes a client."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.revoked_client_reply)
        stored = await self.desk.revoke(call, once, request.client_id.lower())
        return client_pb2.RevokeClientResponse.FromString(stored)

    async def list_clients(self, request: client_pb2.ListClientsRequest, call: Call) -> client_pb2.ListClientsResponse:
        """A page of clients."""
        found, following = await self.desk.list(call, page_size=request.page_size, page_token=request.page_token)
        return client_pb2.ListClientsResponse(
            clients=[convert.client_message(client) for client in found], next_page_token=following
        )
