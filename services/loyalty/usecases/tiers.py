"""Reading tiers, and ending those whose time is over."""

from dataclasses import dataclass
from datetime import datetime

from services.loyalty.domain import tiers as tier_rules
from services.loyalty.domain.events import LoyaltyEvent, TierChanged
from services.loyalty.domain.programme import Version, in_force
from services.loyalty.domain.tiers import Change, Counters, Standing
from services.loyalty.store import members, programmes, tiers
from services.loyalty.store.tiers import Account
from services.loyalty.usecases.programmes import ProgrammeBook
from services.runtime.call import Call
from services.runtime.database import Connection, Database
from services.runtime.outbox import Outbox
from services.runtime.pages import page_size

JUDGED_AT_ONCE = 200
_NEWEST = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSeen:
    """A member's standing, what counts within the window, and what the next tier lacks (0 at the top)."""

    standing: Standing
    counters: Counters
    next_tier_id: str
    lacking: Counters


@dataclass(frozen=True, slots=True, kw_only=True)
class TierDesk:
    """What can be asked about tiers."""

    database: Database
    book: ProgrammeBook

    async def get(self, call: Call, *, member_id: str, point_currency: str) -> TierSeen:
        """The member's tier by the programme in force. Raises ProgrammeNotFound."""
        version = await self.book.in_force(call, point_currency, call.now)

        async def work(connection: Connection) -> TierSeen:
            account = await _account(connection, call, member_id, point_currency)
            window = tier_rules.window_at(version.programme, call.now, call.time_zone)
            found = await tiers.standings(connection, call.tenant_id, [account])
            counters = (await tiers.counters(connection, call.tenant_id, {account: window}))[account]
            return _seen(version, found.get(account), counters)

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())

    async def changes(
        self, call: Call, *, member_id: str, point_currency: str, size: int, before: int | None
    ) -> tuple[list[Change], int | None]:
        """A page of changes, newest first, and the version to go on before; None after the last."""
        limit = page_size(size)

        async def work(connection: Connection) -> list[tuple[int, Change]]:
            account = await _account(connection, call, member_id, point_currency)
            return await tiers.changes_of(
                connection, call.tenant_id, account, before=before or _NEWEST, limit=limit + 1
            )

        found = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        page = [change for _, change in found[:limit]]
        return page, found[limit - 1][0] if len(found) > limit else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierEnding:
    """Judges tiers whose time is over."""

    outbox: Outbox[LoyaltyEvent]

    async def judge(self, connection: Connection, call: Call) -> int:
        """Keeps or lowers a bounded number of the tenant's standings; how many were due."""
        due = await tiers.due(connection, call.tenant_id, call.now, limit=JUDGED_AT_ONCE)
        if not due:
            return 0
        versions: dict[str, Version | None] = {}
        for currency in {account.point_currency for account in due}:
            versions[currency] = in_force(await programmes.versions(connection, call.tenant_id, currency), call.now)
        judged = {account: version for account in due if (version := versions[account.point_currency]) is not None}
        windows = {
            account: tier_rules.judged_windows(version.programme, call.now, call.time_zone)
            for account, version in judged.items()
        }
        counters: dict[Account, list[Counters]] = {account: [] for account in judged}
        for place in range(max(map(len, windows.values()), default=0)):
            asked = {account: each[place] for account, each in windows.items() if place < len(each)}
            for account, counted in (await tiers.counters(connection, call.tenant_id, asked)).items():
                counters[account].append(counted)
        moved: dict[Account, Standing] = {}
        changes: list[tuple[Account, int, Change]] = []
        for account, version in judged.items():
            after, change = tier_rules.after_period(
                version.programme, due[account], counters[account], now=call.now, time_zone=call.time_zone
            )
            moved[account] = after
            if change is not None:
                changes.append((account, after.version, change))
        await tiers.store(connection, call.tenant_id, moved, changes)
        await self.outbox.append(connection, call, *(tier_changed(*each) for each in changes))
        return len(due)


def tier_changed(account: Account, version: int, change: Change) -> LoyaltyEvent:
    """What the others are told of a change."""
    at: datetime = change.changed_at
    return TierChanged(
        member_id=account.member_id,
        point_currency=account.point_currency,
        from_tier_id=change.from_tier_id,
        to_tier_id=change.to_tier_id,
        changed_at=at,
        version=version,
    )


async def _account(connection: Connection, call: Call, member_id: str, point_currency: str) -> Account:
    return Account(await members.survivor(connection, call.tenant_id, member_id), point_currency)


def _seen(version: Version, found: Standing | None, counters: Counters) -> TierSeen:
    programme = version.programme
    standing = found or tier_rules.lowest(programme)
    above = tier_rules.next_tier(programme, standing)
    lacking = Counters()
    if above is not None:
        lacking = Counters(
            amount_minor=max(0, above.amount_minor - counters.amount_minor),
            orders=max(0, above.orders - counters.orders),
            activity=max(0, above.activity - counters.activity),
        )
    return TierSeen(standing=standing, counters=counters, next_tier_id=above.tier_id if above else "", lacking=lacking)
