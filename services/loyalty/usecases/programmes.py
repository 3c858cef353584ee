"""Programmes in force, and the numbers of their classes of points."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from services.loyalty.domain.grants import GrantKind, GrantTerms
from services.loyalty.domain.points import ProgrammeNotFound
from services.loyalty.domain.programme import (
    BRAND,
    ExpiryClass,
    Programme,
    Version,
    check,
    check_moment,
    expires_at,
    judging,
    quarter_of,
)
from services.loyalty.store import ledger, programmes
from services.runtime.call import Call
from services.runtime.database import Connection, Database
from services.runtime.errors import Invalid, Missing
from services.runtime.idempotency import Once

CACHED_S = 1.0
LOAD_TIMEOUT_S = 5.0
MAX_CACHED = 10_000

_ClassKey = tuple[str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class _Cached:
    """What is stored of a programme, and the terms that were made of it: a new version outdates them together."""

    versions: tuple[Version, ...]
    until: float
    terms: dict[tuple[object, ...], GrantTerms] = field(default_factory=dict)


@dataclass(slots=True)
class ProgrammeBook:
    """Programmes and class numbers as read by calls. A new version is seen within a second; classes never change."""

    database: Database
    _versions: dict[tuple[str, str], _Cached] = field(default_factory=dict)
    _loading: dict[tuple[str, str], "asyncio.Task[_Cached]"] = field(default_factory=dict)
    _classes: dict[_ClassKey, int] = field(default_factory=dict)

    async def in_force(self, call: Call, point_currency: str, at: datetime) -> Version:
        """The version that judges what happened at `at`. Raises ProgrammeNotFound."""
        return _version_of(await self._cached(call, point_currency), call, point_currency, at)

    async def require(self, call: Call, point_currency: str) -> None:
        """Raises ProgrammeNotFound where no version, in force or to come, is of the currency."""
        if not (await self._cached(call, point_currency)).versions:
            raise ProgrammeNotFound(point_currency)

    async def terms(self, call: Call, kind: GrantKind) -> GrantTerms:
        """What the programme makes of a kind. Raises ProgrammeNotFound, Missing (EXPIRY_CLASS_NOT_FOUND), Invalid."""
        occurred_at = kind.occurred_at or call.now
        if occurred_at > call.now:
            raise Invalid("it has not happened yet", field="occurred_at")
        check_moment(occurred_at)
        cached = await self._cached(call, kind.point_currency)
        version = _version_of(cached, call, kind.point_currency, occurred_at)
        if kind.occurred_at is not None:
            return await self._terms(call, kind, version, occurred_at)
        # grants of one kind in one quarter of an hour have the same terms, and most grants of a moment are of one kind
        key = (version.number, call.client_id, call.time_zone, quarter_of(occurred_at), kind)
        terms = cached.terms.get(key)
        if terms is None:
            terms = await self._terms(call, kind, version, occurred_at)
            if len(cached.terms) < MAX_CACHED:
                cached.terms[key] = terms
        return terms

    async def _terms(self, call: Call, kind: GrantKind, version: Version, occurred_at: datetime) -> GrantTerms:
        programme = version.programme
        expiry = programme.expiry_class(kind.expiry_class)
        if expiry is None:
            raise Missing(kind="expiry class", name=kind.expiry_class)
        return GrantTerms(
            call.client_id,
            kind.point_currency,
            await self.class_no(call, programme, funder=kind.funder or BRAND, expiry=expiry),
            expires_at(expiry, occurred_at, call.time_zone),
            kind.reason,
            kind.store_id,
            kind.channel,
        )

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

    async def _cached(self, call: Call, point_currency: str) -> _Cached:
        cached = self._versions.get((call.tenant_id, point_currency))
        if cached is None or cached.until < time.monotonic():
            cached = await self._refreshed(call, point_currency)
        return cached

    async def _refreshed(self, call: Call, point_currency: str) -> _Cached:
        """What is stored now; one query, however many calls wait for it."""
        key = (call.tenant_id, point_currency)
        loading = self._loading.get(key)
        if loading is None:
            loading = asyncio.create_task(self._load(*key))
            self._loading[key] = loading
            loading.add_done_callback(lambda done: self._loaded(key, done))
        return await asyncio.shield(loading)

    async def _load(self, tenant_id: str, point_currency: str) -> _Cached:
        async def work(connection: Connection) -> tuple[Version, ...]:
            return await programmes.versions(connection, tenant_id, point_currency)

        found = await self.database.read(tenant_id, work, timeout_s=LOAD_TIMEOUT_S)
        cached = _Cached(found, time.monotonic() + CACHED_S)
        if found:
            # who asks for what is not there must not fill the cache, nor miss it when it comes
            if len(self._versions) >= MAX_CACHED:
                self._versions.clear()
            self._versions[tenant_id, point_currency] = cached
        return cached

    def _loaded(self, key: tuple[str, str], done: "asyncio.Task[_Cached]") -> None:
        self._loading.pop(key, None)
        if not done.cancelled():
            done.exception()  # told to those who wait; nobody may be left to wait


def _version_of(cached: _Cached, call: Call, point_currency: str, at: datetime) -> Version:
    version = judging(cached.versions, at, now=call.now)
    if version is None:
        raise ProgrammeNotFound(point_currency)
    return version


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
