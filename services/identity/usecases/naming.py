"""From what a caller says of an identifier to the key by which it is found."""

from dataclasses import dataclass, field
from typing import Final

from services.identity.domain.credentials import Keys
from services.identity.domain.identifiers import lookup_of, normalise
from services.identity.domain.refusals import UnknownTenant
from services.identity.domain.registration import Found
from services.identity.store import tenants
from services.runtime.database import Database

_CACHED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An identifier as the caller wrote it."""

    type: int
    issuer: str
    value: str
    verified: bool


@dataclass(frozen=True, slots=True)
class _Ways:
    """How a tenant's identifiers are read and hashed; neither ever changes."""

    region: str
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Normal form and lookup key of identifiers, by tenant."""

    database: Database
    keys: Keys
    _ways: dict[str, _Ways] = field(default_factory=dict)

    async def find(self, tenant_id: str, said: Said) -> Found:
        """The identifier with its key. Raises IdentifierRefused, or UnknownTenant."""
        return self._found(await self._ways_of(tenant_id), said)

    async def prepare(self, tenant_id: str) -> None:
        """Loads what `find_now` needs. Raises UnknownTenant."""
        await self._ways_of(tenant_id)

    def find_now(self, tenant_id: str, said: Said) -> Found:
        """Like `find`, for a prepared tenant."""
        return self._found(self._ways[tenant_id], said)

    async def _ways_of(self, tenant_id: str) -> _Ways:
        ways = self._ways.get(tenant_id)
        if ways is None:
            region = await self.database.read(tenant_id, lambda connection: tenants.region_of(connection, tenant_id))
            if region is None:
                raise UnknownTenant(tenant_id)
            if len(self._ways) >= _CACHED_MAX:
                self._ways.clear()
            ways = self._ways[tenant_id] = _Ways(region, self.keys.lookup_key_of(tenant_id))
        return ways

    def _found(self, ways: _Ways, said: Said) -> Found:
        named = normalise(
            type=said.type, issuer=said.issuer, value=said.value, verified=said.verified, region=ways.region
        )
        return Found(named=named, lookup=lookup_of(ways.key, named))
