"""Granting, holding, spending and reading points: concurrent calls share transactions, each gets its own verdict."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from services.loyalty.domain.accrual import Earned, earn
from services.loyalty.domain.points import Accrued, Balance, Entry, Hold, reused
from services.loyalty.domain.programme import check_moment
from services.loyalty.domain.requests import (
    BalanceAsked,
    Grant,
    GrantAsked,
    GrantTerms,
    HoldAsked,
    QuoteAsked,
    ResolveAsked,
)
from services.loyalty.domain.tiers import lowest, tier_of
from services.loyalty.store import entries, ledger, orders, tiers
from services.loyalty.usecases.programmes import ProgrammeBook
from services.runtime.batching import Batcher
from services.runtime.call import Call
from services.runtime.clock import Clock
from services.runtime.database import Connection, Database, Lane
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from services.runtime.outbox import partition_of
from services.runtime.pages import page_size

# a bundle is up to 500 items of one caller already: four of 200 a transaction took a tenth less than two
BUNDLES = 4

Bundle = tuple[Grant, ...]
Verdicts = list[Accrued | DomainError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The batchers of the hot calls."""

    accruals: Batcher[Lane, Grant, Accrued]
    bundles: Batcher[Lane, Bundle, Verdicts]
    holds: Batcher[Lane, HoldAsked, Hold]
    resolutions: Batcher[Lane, ResolveAsked, Hold]
    balances: Batcher[Lane, BalanceAsked, Balance]

    async def close(self) -> None:
        """Answers what waits and ends."""
        for batcher in (self.accruals, self.bundles, self.holds, self.resolutions, self.balances):
            await batcher.close()


def batchers(
    *,
    writing: Sequence[Lane],
    bundling: Sequence[Lane],
    holding: Sequence[Lane],
    reading: Sequence[Lane],
    clock: Clock,
    partitions: int,
) -> Lanes:
    """One batcher a family, each with lanes of its own: a lane serves one statement at a time."""
    assert len(holding) > 1, "holds and their resolutions need a lane each"

    async def resolve(lane: Lane, tenant_id: str, asked: Sequence[ResolveAsked]) -> list[Hold | DomainError]:
        return await ledger.resolve(lane, tenant_id, asked, machine_now=clock.now())

    posting = partial(ledger.accrue, partitions=partitions, repeating=ledger.Repeating())
    return Lanes(
        accruals=Batcher(writing, posting, name="accrue"),
        bundles=Batcher(
            bundling,
            partial(_accrue_bundles, posting),
            name="accrue-bundles",
            max_batch=BUNDLES,
            max_queue=256,
        ),
        holds=Batcher(holding[::2], ledger.hold, name="hold"),
        resolutions=Batcher(holding[1::2], resolve, name="resolve"),
        balances=Batcher(reading, ledger.balances, name="balance"),
    )


async def _accrue_bundles(
    post: Callable[[Lane, str, Sequence[Grant]], Awaitable[Verdicts]],
    lane: Lane,
    tenant_id: str,
    bundles: Sequence[Bundle],
) -> list[Verdicts | DomainError]:
    grants = [grant for bundle in bundles for grant in bundle]
    verdicts = await post(lane, tenant_id, grants)
    replies: list[Verdicts | DomainError] = []
    start = 0
    for bundle in bundles:
        replies.append(verdicts[start : start + len(bundle)])
        start += len(bundle)
    return replies


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsDesk:
    """What can be done with a member's points."""

    database: Database
    book: ProgrammeBook
    lanes: Lanes
    partitions: int
    event_part: Callable[[GrantAsked, str], bytes]

    async def accrue(self, call: Call, asked: GrantAsked) -> Accrued:
        """Grants points. Raises ProgrammeNotFound, Missing (EXPIRY_CLASS_NOT_FOUND), RequestIdReused, Invalid.

        BalanceTooLarge is such an Invalid, told when the points are posted."""
        try:
            terms = await self.book.terms(call, asked)
        except DomainError as refusal:
            (verdict,) = await self._refused(call, [(asked, refusal)])
            if isinstance(verdict, DomainError):
                raise verdict from refusal
            return verdict
        grant = self._grant(call, asked, terms)
        return await self.lanes.accruals.submit(call.tenant_id, grant, deadline_at=call.deadline_at)

    async def accrue_many(self, call: Call, asked: Sequence[GrantAsked]) -> Verdicts:
        """Grants many; one verdict an item, in order: what is refused does not fail its neighbours."""
        verdicts: list[Accrued | DomainError | None] = [None] * len(asked)
        grants: list[Grant] = []
        places: list[int] = []
        refused: list[tuple[int, DomainError]] = []
        known: dict[tuple[object, ...], GrantTerms | DomainError] = {}
        for i, ask in enumerate(asked):
            key = ask.shared
            terms = known.get(key)
            if terms is None:
                try:
                    terms = await self.book.terms(call, ask)
                except DomainError as refusal:
                    terms = refusal
                known[key] = terms
            if isinstance(terms, DomainError):
                refused.append((i, terms))
            else:
                grants.append(self._grant(call, ask, terms))
                places.append(i)
        if grants:
            for i, verdict in zip(places, await self._post(call, tuple(grants)), strict=True):
                verdicts[i] = verdict
        if refused:
            told = await self._refused(call, [(asked[i], refusal) for i, refusal in refused])
            for (i, _), verdict in zip(refused, told, strict=True):
                verdicts[i] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    async def hold(self, call: Call, asked: HoldAsked) -> Hold:
        """Draws points for a hold. Raises InsufficientPoints, HoldExists, HoldVoided, HoldTooOld, RequestIdReused."""
        return await self.lanes.holds.submit(call.tenant_id, asked, deadline_at=call.deadline_at)

    async def resolve(self, call: Call, asked: ResolveAsked) -> Hold:
        """Captures or voids. Raises Missing (HOLD_NOT_FOUND), HoldCaptured, HoldVoided, HoldExpired, HoldTooSmall."""
        return await self.lanes.resolutions.submit(call.tenant_id, asked, deadline_at=call.deadline_at)

    async def balance(self, call: Call, *, member_id: str, point_currency: str) -> Balance:
        """The member's balance, from the books; zeros for who never had points."""
        asked = BalanceAsked(member_id=member_id, point_currency=point_currency, now=call.now)
        return await self.lanes.balances.submit(call.tenant_id, asked, deadline_at=call.deadline_at)

    async def quote(self, call: Call, asked: QuoteAsked) -> tuple[tuple[Earned, ...], int]:
        """What the order would earn, by rule, and the version that was asked. Raises ProgrammeNotFound, Invalid."""
        occurred_at = asked.occurred_at or call.now
        check_moment(occurred_at)
        version = await self.book.in_force(call, asked.point_currency, occurred_at)

        async def work(connection: Connection) -> Decimal:
            survivors = await orders.survivors(connection, call.tenant_id, [asked.member_id])
            account = tiers.Account(survivors.get(asked.member_id, asked.member_id), asked.point_currency)
            found = await tiers.standings(connection, call.tenant_id, [account])
            tier = tier_of(version.programme, found.get(account) or lowest(version.programme))
            return tier.multiplier if tier else Decimal(1)

        multiplier = Decimal(1)
        if any(rule.tier_multiplied for rule in version.programme.earn_rules):
            multiplier = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        earned = earn(
            version.programme, asked.lines, multiplier=multiplier, occurred_at=occurred_at, time_zone=call.time_zone
        )
        return earned, version.number

    async def entries(
        self, call: Call, *, member_id: str, point_currency: str, size: int, after: tuple[int, str] | None
    ) -> tuple[list[Entry], tuple[int, str] | None]:
        """A page of entries, newest first, and where the next one starts; None after the last."""
        limit = page_size(size)

        async def work(connection: Connection) -> list[Entry]:
            return await entries.page(
                connection,
                call.tenant_id,
                member_id=member_id,
                point_currency=point_currency,
                after=after and entries.Place(*after),
                limit=limit + 1,
            )

        found = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        if len(found) <= limit:
            return found, None
        return found[:limit], (found[limit - 1].version, found[limit - 1].entry_id)

    async def _refused(self, call: Call, refused: Sequence[tuple[GrantAsked, DomainError]]) -> Verdicts:
        """The first reply of those that were answered before the programme changed; the refusal of the others.

        A business refusal is stored, so that a delayed duplicate can't succeed when the programme has changed again.
        """
        kept = [(ask, refusal.reason) for ask, refusal in refused if refusal.storable]

        async def work(connection: Connection) -> dict[str, tuple[bytes, Accrued | DomainError]]:
            if kept:
                await ledger.refuse(connection, call.tenant_id, call.client_id, kept)
            return await ledger.told(connection, call.tenant_id, call.client_id, [ask for ask, _ in refused])

        known = await self.database.run(call.tenant_id, work, timeout_s=call.remaining_s())
        verdicts: Verdicts = []
        for ask, refusal in refused:
            fingerprint, first = known.get(ask.request_id, (ask.fingerprint, refusal))
            verdicts.append(first if fingerprint == ask.fingerprint else reused(ask.request_id))
        return verdicts

    async def _post(self, call: Call, grants: Bundle) -> Verdicts:
        try:
            return await self.lanes.bundles.submit(call.tenant_id, grants, deadline_at=call.deadline_at)
        except DomainError:
            raise
        except Exception:  # noqa: BLE001 - one of the items is a bug of ours: found alone, it fails nobody else
            verdicts: Verdicts = []
            for grant in grants:
                try:
                    verdicts.append(
                        await self.lanes.accruals.submit(call.tenant_id, grant, deadline_at=call.deadline_at)
                    )
                except DomainError as refusal:
                    verdicts.append(refusal)
            return verdicts

    def _grant(self, call: Call, asked: GrantAsked, terms: GrantTerms) -> Grant:
        entry_id = new_id()
        return Grant(
            asked,
            terms,
            entry_id,
            partition_of(asked.member_id, self.partitions),
            self.event_part(asked, entry_id),
            call.now,
            call.trace,
        )
