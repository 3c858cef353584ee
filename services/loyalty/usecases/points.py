"""Granting, holding, spending and reading points: concurrent calls share transactions, each gets its own verdict."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from services.loyalty.domain.accrual import Earned, earn
from services.loyalty.domain.grants import Granted, Grants, GrantsAsked, GrantTerms
from services.loyalty.domain.points import Accrued, Balance, Entry, Hold
from services.loyalty.domain.programme import check_moment
from services.loyalty.domain.requests import BalanceAsked, HoldAsked, QuoteAsked, ResolveAsked
from services.loyalty.domain.tiers import lowest, tier_of
from services.loyalty.store import entries, grants, ledger, members, tiers
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The batchers of the hot calls."""

    accruals: Batcher[Lane, Grants, Granted]
    bundles: Batcher[Lane, Grants, Granted]
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

    granting = grants.GrantLedger(partitions)
    return Lanes(
        accruals=Batcher(writing, granting.post, name="accrue"),
        bundles=Batcher(bundling, granting.post, name="accrue-bundles", max_batch=BUNDLES, max_queue=256),
        holds=Batcher(holding[::2], ledger.hold, name="hold"),
        resolutions=Batcher(holding[1::2], resolve, name="resolve"),
        balances=Batcher(reading, ledger.balances, name="balance"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsDesk:
    """What can be done with a member's points."""

    database: Database
    book: ProgrammeBook
    lanes: Lanes
    partitions: int
    event_parts: Callable[[GrantsAsked, Sequence[str]], list[bytes]]

    async def accrue(self, call: Call, asked: GrantsAsked) -> Accrued:
        """Grants points, once. Raises ProgrammeNotFound, Missing (EXPIRY_CLASS_NOT_FOUND), RequestIdReused, Invalid.

        BalanceTooLarge is such an Invalid, told when the points are posted."""
        verdict = (await self._accrue(call, asked, self._post)).verdict(0)
        if isinstance(verdict, DomainError):
            raise verdict
        return verdict

    async def accrue_many(self, call: Call, asked: GrantsAsked) -> Granted:
        """Grants many; one verdict each, in order: what is refused does not fail its neighbours."""
        return await self._accrue(call, asked, self._post_bundle)

    async def hold(self, call: Call, asked: HoldAsked) -> Hold:
        """Draws points for a hold.

        Raises ProgrammeNotFound, InsufficientPoints, HoldExists, HoldVoided, HoldTooOld, RequestIdReused."""
        await self.book.require(call, asked.point_currency)
        return await self.lanes.holds.submit(call.tenant_id, asked, deadline_at=call.deadline_at)

    async def resolve(self, call: Call, asked: ResolveAsked) -> Hold:
        """Captures or voids. Raises Missing (HOLD_NOT_FOUND), HoldCaptured, HoldVoided, HoldExpired, HoldTooSmall."""
        return await self.lanes.resolutions.submit(call.tenant_id, asked, deadline_at=call.deadline_at)

    async def balance(self, call: Call, *, member_id: str, point_currency: str) -> Balance:
        """The member's balance, from the books; zeros for who never had points. Raises ProgrammeNotFound."""
        await self.book.require(call, point_currency)
        asked = BalanceAsked(member_id=member_id, point_currency=point_currency, now=call.now)
        return await self.lanes.balances.submit(call.tenant_id, asked, deadline_at=call.deadline_at)

    async def quote(self, call: Call, asked: QuoteAsked) -> tuple[tuple[Earned, ...], int]:
        """What the order would earn, by rule, and the version that was asked. Raises ProgrammeNotFound, Invalid."""
        occurred_at = asked.occurred_at or call.now
        check_moment(occurred_at)
        version = await self.book.in_force(call, asked.point_currency, occurred_at)

        async def work(connection: Connection) -> Decimal:
            survivor = await members.survivor(connection, call.tenant_id, asked.member_id)
            account = tiers.Account(survivor, asked.point_currency)
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
        """A page of entries, newest first, and where the next one starts; None after the last.

        A merged member's are its survivor's. Raises ProgrammeNotFound."""
        await self.book.require(call, point_currency)
        limit = page_size(size)

        async def work(connection: Connection) -> list[Entry]:
            return await entries.page(
                connection,
                call.tenant_id,
                member_id=await members.survivor(connection, call.tenant_id, member_id),
                point_currency=point_currency,
                after=after and entries.Place(*after),
                limit=limit + 1,
            )

        found = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        if len(found) <= limit:
            return found, None
        return found[:limit], (found[limit - 1].version, found[limit - 1].entry_id)

    async def _accrue(
        self, call: Call, asked: GrantsAsked, post: Callable[[Call, Grants], Awaitable[Granted]]
    ) -> Granted:
        terms: dict[int, GrantTerms] = {}
        refused: dict[int, DomainError] = {}
        for number, kind in enumerate(asked.kinds):
            try:
                terms[number] = await self.book.terms(call, kind)
            except DomainError as refusal:
                refused[number] = refusal
        if not refused:
            return await post(call, self._ready(call, asked, terms))
        passed = [place for place, kind in enumerate(asked.which) if kind in terms]
        others = [place for place, kind in enumerate(asked.which) if kind in refused]
        posted = [(passed, await post(call, self._ready(call, asked.pick(passed), terms)))] if passed else []
        return Granted.placed([*posted, (others, await self._refused(call, asked.pick(others), refused))])

    async def _refused(self, call: Call, asked: GrantsAsked, why: Mapping[int, DomainError]) -> Granted:
        """The first reply of those that were answered before the programme changed; the refusal of the others.

        A business refusal is stored, so that a delayed duplicate can't succeed when the programme has changed again.
        """
        refusals = [why[kind] for kind in asked.which]
        kept = [place for place, refusal in enumerate(refusals) if refusal.storable]

        async def work(connection: Connection) -> dict[int, Accrued | DomainError]:
            if kept:
                reasons = [refusals[place].reason for place in kept]
                await grants.refuse(connection, call.tenant_id, call.client_id, asked.pick(kept), reasons)
            return await grants.told(connection, call.tenant_id, call.client_id, asked)

        known = await self.database.run(call.tenant_id, work, timeout_s=call.remaining_s())
        return Granted.of([known.get(place, refusal) for place, refusal in enumerate(refusals)])

    async def _post(self, call: Call, ready: Grants) -> Granted:
        return await self.lanes.accruals.submit(call.tenant_id, ready, deadline_at=call.deadline_at)

    async def _post_bundle(self, call: Call, ready: Grants) -> Granted:
        try:
            return await self.lanes.bundles.submit(call.tenant_id, ready, deadline_at=call.deadline_at)
        except DomainError:
            raise
        except Exception:  # noqa: BLE001 - one of the items is a bug of ours: found alone, it fails nobody else
            verdicts: list[Accrued | DomainError] = []
            for place in range(len(ready)):
                try:
                    verdicts += (await self._post(call, ready.pick([place]))).verdicts()
                except DomainError as refusal:
                    verdicts.append(refusal)
            return Granted.of(verdicts)

    def _ready(self, call: Call, asked: GrantsAsked, terms: Mapping[int, GrantTerms]) -> Grants:
        entry_ids = [new_id() for _ in asked.which]
        return Grants(
            asked=asked,
            terms=terms,
            entry_ids=entry_ids,
            partitions=[partition_of(member_id, self.partitions) for member_id in asked.member_ids],
            event_parts=self.event_parts(asked, entry_ids),
            now=call.now,
            trace=call.trace,
        )
