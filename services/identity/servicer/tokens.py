"""TokenService."""

from dataclasses import dataclass

from services.identity import convert
from services.identity.usecases.signing import SigningKeys
from services.identity.usecases.tokens import TokenDesk
from services.runtime.call import Call
from siyu.identity.v1 import client_pb2

SERVICE = client_pb2.DESCRIPTOR.services_by_name["TokenService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenServicer:
    """Serves TokenService: the two RPCs that need no token."""

    desk: TokenDesk
    signing: SigningKeys

    async def issue_token(self, request: client_pb2.IssueTokenRequest, call: Call) -> client_pb2.IssueTokenResponse:
        """A token for a client's secret."""
        token = await self.desk.issue(
            call, client_id=request.client_id, secret=request.client_secret, tenant_id=request.tenant_id.lower()
        )
        return client_pb2.IssueTokenResponse(access_token=token.jws, expires_in_s=token.expires_in_s)

    async def get_jwks(self, _request: client_pb2.GetJwksRequest, _call: Call) -> client_pb2.GetJwksResponse:
        """The keys that verify tokens."""
        return client_pb2.GetJwksResponse(keys=[convert.jwk(key) for key in await self.signing.published()])
