"""Programmes in force, and the numbers of their classes of points."""

import time
from dataclasses import dataclass, field
from datetime import datetime

from services.loyalty.domain.points import ProgrammeNotFound
from services.loyalty.domain.programme import ExpiryClass, Programme, Version, check, in_force
from services.loyalty.store import ledger, programmes
from services.runtime.call import Call
from services.runtime.database import Connection, Database
from services.runtime.errors import Invalid
from services.runtime.idempotency import Once

CACHED_S = 1.0
MAX_CACHED = 10_000

_ClassKey = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class _Cached:
    versions: tuple[Version, ...]
    until: float


@dataclass(slots=True)
class ProgrammeBook:
    """Programmes and class numbers as read by calls. A new version is seen within a second; classes never change."""

    database: Database
    _versions: dict[tuple[str, str], _Cached] = field(default_factory=dict)
    _classes: dict[_ClassKey, int] = field(default_factory=dict)

    async def in_force(self, call: Call, point_currency: str, at: datetime) -> Version:
        """The version in force at `at`. Raises ProgrammeNotFound."""
        key = (call.tenant_id, point_currency)
        cached = self._versions.get(key)
        if cached is None or cached.until < time.monotonic():
            cached = _Cached(await self._load(call, point_currency), time.monotonic() + CACHED_S)
            if not cached.versions:
                raise ProgrammeNotFound(point_currency)
            if len(self._versions) >= MAX_CACHED:
                self._versions.clear()
            self._versions[key] = cached
        # what happened before the first version is judged by it
        version = in_force(cached.versions, at) or in_force(cached.versions[:1], call.now)
        if version is None:
            raise ProgrammeNotFound(point_currency)
        return version

    async def class_no(self, call: Call, programme: Programme, *, funder: str, expiry: ExpiryClass) -> int:
        """The number of the programme's class of points of one funder."""
        key = (call.tenant_id, programme.point_currency, funder, expiry.class_id, expiry.rule)
        number = self._classes.get(key)
        if number is None:

            async def work(connection: Connection) -> int:
                return await class_of(connection, call.tenant_id, programme, funder=funder, expiry=expiry)

            number = await self.database.run(call.tenant_id, work, timeout_s=call.remaining_s())
            if len(self._classes) >= MAX_CACHED:
                self._classes.clear()
            self._classes[key] = number
        return number

    def forget(self, tenant_id: str, point_currency: str) -> None:
        """Drops what is cached of a programme, after this process published a version."""
        self._versions.pop((tenant_id, point_currency), None)

    async def _load(self, call: Call, point_currency: str) -> tuple[Version, ...]:
        async def work(connection: Connection) -> tuple[Version, ...]:
            return await programmes.versions(connection, call.tenant_id, point_currency)

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())


async def class_of(
    connection: Connection, tenant_id: str, programme: Programme, *, funder: str, expiry: ExpiryClass
) -> int:
    """The number of a class, in the caller's transaction."""
    return await ledger.class_no(
        connection,
        tenant_id,
        point_currency=programme.point_currency,
        funder=funder,
        expiry_class=expiry.class_id,
        expiry_rule=expiry.rule,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgrammeDesk:
    """Publishes and reads programmes."""

    database: Database
    book: ProgrammeBook

    async def publish(
        self, call: Call, once: Once[int], programme: Programme, *, effective_at: datetime | None
    ) -> bytes:
        """Stores the next version, in force from `effective_at` (None: now); the encoded number.

        Raises Invalid for a programme that does not hang together, or a version that would begin in the past."""
        check(programme)
        if effective_at is not None and effective_at < call.now:
            raise Invalid("a version begins now or later: what was accrued stays", field="effective_at")

        async def work(connection: Connection) -> int:
            return await programmes.publish(
                connection, call.tenant_id, programme, effective_at=effective_at or call.now
            )

        reply = await once.run(self.database, work)
        self.book.forget(call.tenant_id, programme.point_currency)
        return reply

    async def get(self, call: Call, point_currency: str) -> Version:
        """The version in force. Raises ProgrammeNotFound."""
        return await self.book.in_force(call, point_currency, call.now)
