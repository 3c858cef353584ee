"""Exchanging a client's secret for a short token."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from services.identity.domain import scopes
from services.identity.domain.credentials import Keys, installation_kind
from services.identity.domain.refusals import BadCredentials
from services.identity.domain.tenants import Tenant
from services.identity.domain.tokens import TOKEN_LIFE, Bearer, claims_of, signed
from services.identity.store import clients, tenants
from services.identity.store.attempts import Attempts
from services.identity.usecases.signing import SigningKeys
from services.runtime.batching import Batcher
from services.runtime.call import ActorKind, Call
from services.runtime.clock import Clock
from services.runtime.database import EVERY_TENANT, Connection, Database, Lane
from services.runtime.errors import DomainError
from services.runtime.ids import is_id, new_id

Known = tuple[Bearer, bytes]
ClientLookup = Batcher[Lane, str, Known]

_TENANTS_CACHED_MAX: Final = 10_000


def client_lookup(lanes: Sequence[Lane]) -> ClientLookup:
    """Finds clients by id before any tenant is known; all that wait go in one statement."""

    async def find(lane: Lane, _tenant_id: str, client_ids: Sequence[str]) -> list[Known | DomainError]:
        found = await clients.for_tokens(lane, sorted(set(client_ids)))
        return [found.get(client_id) or BadCredentials() for client_id in client_ids]

    return Batcher(lanes, find, name="clients")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A signed token, and how long it lives from now."""

    jws: str
    expires_in_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDesk:
    """Issues tokens: one indexed look-up (none for the installation's own clients), one HMAC, one signature."""

    database: Database
    keys: Keys
    signing: SigningKeys
    lookup: ClientLookup
    attempts: Attempts
    clock: Clock
    # what a token says of a tenant never changes, so that services cost no query at all
    _tenants: dict[str, Tenant] = field(default_factory=dict)

    async def issue(self, call: Call, *, client_id: str, secret: str, tenant_id: str) -> Token:
        """A token for whoever knows the client's secret.

        Raises BadCredentials, the same whatever is wrong, and TooManyAttempts.
        """
        self.attempts.check(client_id, call.peer)
        try:
            bearer = await self._bearer(call, client_id, secret, tenant_id)
        except BadCredentials:
            await self.attempts.failed(client_id, call.peer)
            raise
        claims = claims_of(bearer, now=self.clock.now(), token_id=new_id())
        return Token(jws=signed(claims, await self.signing.current()), expires_in_s=int(TOKEN_LIFE.total_seconds()))

    async def _bearer(self, call: Call, client_id: str, secret: str, tenant_id: str) -> Bearer:
        kind = installation_kind(client_id)
        if kind is not None:
            if not _same(secret.encode(), self.keys.installation_secret_of(client_id).encode()):
                raise BadCredentials
            return await self._installation_bearer(client_id, kind, tenant_id)
        if not is_id(client_id):
            raise BadCredentials
        verifier = self.keys.verifier_of(secret)
        bearer, stored = await self.lookup.submit(EVERY_TENANT, client_id, deadline_at=call.deadline_at)
        if not _same(verifier, stored) or tenant_id not in ("", bearer.tenant_id):
            raise BadCredentials
        return bearer

    async def _installation_bearer(self, client_id: str, kind: ActorKind, tenant_id: str) -> Bearer:
        granted = tuple(sorted(scopes.SERVICE if kind is ActorKind.SERVICE else scopes.PLATFORM))
        if not tenant_id:
            return Bearer(client_id=client_id, kind=kind, scopes=granted)
        tenant = await self._tenant(tenant_id)
        return Bearer(
            client_id=client_id,
            kind=kind,
            scopes=granted,
            tenant_id=tenant.tenant_id,
            time_zone=tenant.time_zone,
            currency_code=tenant.currency_code,
            has_test_clock=tenant.test_clock_at is not None,
        )

    async def _tenant(self, tenant_id: str) -> Tenant:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:

            async def work(connection: Connection) -> Tenant | None:
                return await tenants.get(connection, tenant_id)

            tenant = await self.database.read(tenant_id, work)
            if tenant is None:
                raise BadCredentials
            if len(self._tenants) >= _TENANTS_CACHED_MAX:
                self._tenants.clear()
            self._tenants[tenant_id] = tenant
        return tenant


def _same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
