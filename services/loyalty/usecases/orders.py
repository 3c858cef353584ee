"""Posting what commerce tells: orders earn and count for tiers, refunds are their exact inverse.

A batch of events is one transaction. Events are taken in waves of payments and refunds, so that each wave is a handful
of statements whatever its size, and a member's own events keep their order.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal

import structlog

from services.loyalty.domain import programme as programmes
from services.loyalty.domain import tiers as tier_rules
from services.loyalty.domain.accrual import MAX_COLLECTED_POINTS, USUAL_POINTS, Earned, earn, within
from services.loyalty.domain.events import LoyaltyEvent, PointsPosted, TierChanged
from services.loyalty.domain.orders import AccruedOrder, Inverse, PaidOrder, Refund, invert
from services.loyalty.domain.programme import Programme, Version
from services.loyalty.domain.tiers import Change, Counters, Standing
from services.loyalty.store import members, orders, tiers
from services.loyalty.store import programmes as programme_store
from services.loyalty.store.tiers import Account, Day
from services.loyalty.usecases.programmes import class_of
from services.runtime.call import Call
from services.runtime.clock import local_day
from services.runtime.database import Connection
from services.runtime.ids import derive_id
from services.runtime.outbox import MAX_EVENTS, Outbox

Fact = PaidOrder | Refund

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Book:
    """What a batch needs to know of programmes, read once in its transaction.

    `now` is no earlier than any of its facts, though this process may still be to learn that a test clock moved."""

    connection: Connection
    call: Call
    now: datetime
    versions: dict[str, tuple[Version, ...]] = field(default_factory=dict)
    classes: dict[tuple[str, str, str, str], int] = field(default_factory=dict)

    async def version(self, point_currency: str, at: datetime) -> Version | None:
        """The version that judges what happened at `at`; None if none has begun."""
        return programmes.judging(await self._known(point_currency), at, now=self.now)

    async def version_of_burnt(self, point_currency: str, at: datetime) -> Version | None:
        """The same, but one that is to come judges what a till burnt before: a fact has to be booked as something."""
        return programmes.judging(await self._known(point_currency), at, now=programmes.NEVER)

    async def _known(self, point_currency: str) -> tuple[Version, ...]:
        if point_currency not in self.versions:
            self.versions[point_currency] = await programme_store.versions(
                self.connection, self.call.tenant_id, point_currency
            )
        return self.versions[point_currency]

    async def class_no(self, programme: Programme, *, funder: str, expiry: programmes.ExpiryClass) -> int:
        """The number of a class of points."""
        key = (programme.point_currency, funder, expiry.class_id, expiry.rule)
        if key not in self.classes:
            self.classes[key] = await class_of(
                self.connection, self.call.tenant_id, programme, funder=funder, expiry=expiry
            )
        return self.classes[key]


@dataclass(slots=True)
class _Ranks:
    """Tiers of the members of a wave, moved in memory and stored once."""

    standings: dict[Account, Standing]
    counters: dict[Account, Counters]
    days: dict[Day, Counters] = field(default_factory=lambda: defaultdict(Counters))
    moved: dict[Account, Standing] = field(default_factory=dict)
    changes: list[tuple[Account, int, Change]] = field(default_factory=list)

    def multiplier(self, programme: Programme, account: Account) -> Decimal:
        """What the member's tier multiplies by, before the order at hand."""
        tier = tier_rules.tier_of(programme, self.standings.get(account) or tier_rules.lowest(programme))
        return tier.multiplier if tier else Decimal(1)

    def count(self, programme: Programme, day: Day, paid: Counters, *, call: Call) -> None:
        """Counts an order in its day's bucket, and upgrades at once."""
        account = day.account
        self.days[day] = self.days[day].plus(paid)
        if not programme.tiers:
            return
        if tier_rules.window_at(programme, call.now, call.time_zone).contains(day.day):
            self.counters[account] = self.counters.get(account, Counters()).plus(paid)
        before = self.standings.get(account) or tier_rules.lowest(programme)
        after, change = tier_rules.after_activity(
            programme, before, self.counters.get(account, Counters()), now=call.now, time_zone=call.time_zone
        )
        if after != before:
            self.standings[account] = self.moved[account] = after
        if change is not None:
            self.changes.append((account, after.version, change))


@dataclass(slots=True)
class _Rooms:
    """What members can still collect. Only an order that earns absurdly much has it looked up."""

    connection: Connection
    tenant_id: str
    points: dict[Account, int] = field(default_factory=dict)

    async def within(self, account: Account, earned: tuple[Earned, ...]) -> tuple[Earned, ...]:
        """What of it the member can still collect: a sale is a fact, so the rest is cut and nothing is refused."""
        if all(each.points <= USUAL_POINTS for each in earned):
            return earned
        if account not in self.points:
            collected = await orders.collected(self.connection, self.tenant_id, **account._asdict())
            self.points[account] = max(0, MAX_COLLECTED_POINTS - collected)
        kept = within(earned, self.points[account])
        self.points[account] -= sum(each.points for each in kept)
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPosting:
    """Posts payments and refunds."""

    outbox: Outbox[LoyaltyEvent]

    async def post(self, connection: Connection, call: Call, facts: Sequence[Fact]) -> None:
        """Posts the facts in the given transaction. One that was posted before changes nothing."""
        ours = [fact for fact in facts if fact.member_id and fact.point_currency]
        if not ours:
            return
        survivors = await members.survivors(connection, call.tenant_id, [fact.member_id for fact in ours])
        moved = [replace(fact, member_id=survivors.get(fact.member_id, fact.member_id)) for fact in ours]
        book = _Book(connection, call, max(call.now, *(fact.occurred_at for fact in ours)))
        in_waves = [wave for wave in waves(moved) if wave]
        if len(in_waves) > 1:
            # all in one order: a later wave would lock accounts behind those that an earlier one has
            entered, _ = await orders.enter(connection, call.tenant_id, call.now, [_account(fact) for fact in moved])
            moved = [replace(fact, member_id=entered[_account(fact)]) for fact in moved]
            in_waves = [wave for wave in waves(moved) if wave]
        for wave in in_waves:
            payments = [fact for fact in wave if isinstance(fact, PaidOrder)]
            refunds = [fact for fact in wave if isinstance(fact, Refund)]
            if payments:
                await self._pay(connection, call, book, payments)
            if refunds:
                await self._refund(connection, call, book, refunds)

    async def _pay(self, connection: Connection, call: Call, book: _Book, told: Sequence[PaidOrder]) -> None:
        entered, owing = await orders.enter(connection, call.tenant_id, call.now, [_account(order) for order in told])
        told = [replace(order, member_id=entered[_account(order)]) for order in told]
        accounts = [_account(order) for order in told]
        known = await orders.known(connection, call.tenant_id, [order.order_id for order in told])
        paid = list({order.order_id: order for order in told if order.order_id not in known}.values())
        ranks = await self._ranks(connection, call, book, accounts)
        accrued: list[AccruedOrder] = []
        earnings: list[orders.Earning] = []
        burns: list[orders.OfflineBurn] = []
        rooms = _Rooms(connection, call.tenant_id)
        for order in paid:
            kept, earned = await self._accrue(call, book, ranks, rooms, order)
            accrued.append(kept)
            earnings += earned
            if order.offline_burnt_points:
                burns.append(await self._burn(book, order))
        # the sale was paid with points before it earned any
        undrawn = await orders.burn_offline(connection, call.tenant_id, call.now, burns)
        accrued = [_short(kept, undrawn.get(kept.order_id, 0)) for kept in accrued]
        await orders.insert(connection, call.tenant_id, accrued)
        await orders.post(connection, call.tenant_id, call.now, earnings, owing=owing or bool(burns))
        await tiers.raise_days(connection, call.tenant_id, ranks.days)
        await tiers.store(connection, call.tenant_id, ranks.moved, ranks.changes)
        points = {kept.order_id: sum(map(sum, kept.line_points)) for kept in accrued}
        posted = [
            _posted(kept, kept.occurred_at, earned=points[kept.order_id], shortfall=kept.undrawn_points)
            for kept in accrued
        ]
        await self._tell(connection, call, [*posted, *_tier_events(ranks)])

    async def _ranks(self, connection: Connection, call: Call, book: _Book, accounts: Sequence[Account]) -> _Ranks:
        windows = {}
        for account in sorted(set(accounts)):
            version = await book.version(account.point_currency, call.now)
            if version is not None and version.programme.tiers:
                windows[account] = tier_rules.window_at(version.programme, call.now, call.time_zone)
        if not windows:
            return _Ranks({}, {})
        return _Ranks(
            await tiers.standings(connection, call.tenant_id, list(windows), lock=True),
            await tiers.counters(connection, call.tenant_id, windows),
        )

    async def _accrue(
        self, call: Call, book: _Book, ranks: _Ranks, rooms: _Rooms, order: PaidOrder
    ) -> tuple[AccruedOrder, list[orders.Earning]]:
        """What the order earns by the programme that judges its sale; without one that has begun, nothing."""
        account = Account(order.member_id, order.point_currency)
        sold_on = local_day(order.occurred_at, call.time_zone)
        version = await book.version(order.point_currency, order.occurred_at)
        earned: tuple[Earned, ...] = ()
        if version is not None:
            earned = earn(
                version.programme,
                order.lines,
                multiplier=ranks.multiplier(version.programme, account),
                occurred_at=order.occurred_at,
                time_zone=call.time_zone,
            )
            earned = await rooms.within(account, earned)
            paid = Counters(amount_minor=sum(line.base_minor for line in order.lines), orders=1)
            # points are of the sale's day, and so is the counter; the tier is of today, as its end is
            today = await book.version(order.point_currency, call.now)
            assert today is not None, "a programme that was in force has no end"
            ranks.count(today.programme, Day(account, sold_on), paid, call=call)
        # the ids derive from the order: a second posting would name the same entries
        ids = tuple(derive_id(order.order_id, each.rule_id) for each in earned)
        kept = AccruedOrder(
            order_id=order.order_id,
            member_id=order.member_id,
            point_currency=order.point_currency,
            store_id=order.store_id,
            occurred_at=order.occurred_at,
            sold_on=sold_on,
            programme_version=version.number if version else 0,
            line_ids=tuple(line.line_id for line in order.lines),
            quantities=tuple(line.quantity for line in order.lines),
            refunded_quantities=(0,) * len(order.lines),
            line_bases=tuple(line.base_minor for line in order.lines),
            earning_ids=ids,
            line_points=tuple(each.line_points for each in earned),
            burnt_points=order.burnt_points + order.offline_burnt_points,
            hold_id=orders.OFFLINE_HOLD + order.order_id if order.offline_burnt_points else order.hold_id,
        )
        if version is None:
            return kept, []
        programme = version.programme
        return kept, [
            await _earning(call, book, programme, order=order, earning_id=earning_id, earned=each)
            for earning_id, each in zip(ids, earned, strict=True)
        ]

    async def _burn(self, book: _Book, order: PaidOrder) -> orders.OfflineBurn:
        version = await book.version_of_burnt(order.point_currency, order.occurred_at)
        assert version is not None, "points were burnt in a currency without a programme"
        base = version.programme.expiry_classes[0]
        return orders.OfflineBurn(
            order_id=order.order_id,
            member_id=order.member_id,
            point_currency=order.point_currency,
            points=order.offline_burnt_points,
            debt_class_no=await book.class_no(version.programme, funder=programmes.BRAND, expiry=base),
            # A fact is never refused, and a programme that forbids debt never makes any: what the member did not have
            # is the brand's loss, told as the order's shortfall.
            debt_forbidden=version.programme.debt_forbidden,
            occurred_at=order.occurred_at,
            store_id=order.store_id,
            channel=order.channel,
        )

    async def _refund(self, connection: Connection, call: Call, book: _Book, told: Sequence[Refund]) -> None:
        known = await orders.known(connection, call.tenant_id, [refund.order_id for refund in told])
        accounts = [_account(refund) for refund in told if refund.order_id in known]
        entered, _ = await orders.enter(connection, call.tenant_id, call.now, accounts)
        held = await orders.lock(connection, call.tenant_id, known)
        told = [replace(refund, member_id=entered.get(_account(refund), refund.member_id)) for refund in told]
        inverses: list[tuple[Inverse, Refund]] = []
        days: dict[Day, Counters] = defaultdict(Counters)
        debt_allowed: list[bool] = []
        for refund in told:
            order = held.get(refund.order_id)
            if order is None:
                # sold before the member or the programme was known here: nothing was earned
                _log.warning("a refund of an order that was not accrued", order_id=refund.order_id)
                continue
            inverse = invert(replace(order, member_id=refund.member_id), refund.lines, whole_order=refund.whole_order)
            held[refund.order_id] = inverse.order
            inverses.append((inverse, refund))
            account = Account(refund.member_id, order.point_currency)
            if order.programme_version:
                day = Day(account, order.sold_on)
                lowered = Counters(amount_minor=-inverse.base_minor, orders=-1 if inverse.leaves_count else 0)
                days[day] = days[day].plus(lowered)
            version = await book.version(order.point_currency, order.occurred_at)
            debt_allowed.append(version is None or not version.programme.debt_forbidden)
        if not inverses:
            return
        shortfalls = await orders.refund(
            connection,
            call.tenant_id,
            call.now,
            [(inverse, refund.occurred_at, f"refund {refund.refund_id}") for inverse, refund in inverses],
            debt_allowed=debt_allowed,
        )
        for (inverse, _), shortfall in zip(inverses, shortfalls, strict=True):
            order_id = inverse.order.order_id
            held[order_id] = replace(held[order_id], shortfall_points=held[order_id].shortfall_points + shortfall)
        await orders.update(connection, call.tenant_id, list(held.values()))
        await tiers.lower_days(connection, call.tenant_id, days)
        await self._tell(
            connection,
            call,
            [
                _posted(
                    inverse.order,
                    refund.occurred_at,
                    taken=inverse.taken_points,
                    given=inverse.given_points,
                    shortfall=shortfall,
                )
                for (inverse, refund), shortfall in zip(inverses, shortfalls, strict=True)
            ],
        )

    async def _tell(self, connection: Connection, call: Call, events: Sequence[LoyaltyEvent]) -> None:
        for start in range(0, len(events), MAX_EVENTS):
            await self.outbox.append(connection, call, *events[start : start + MAX_EVENTS])


def _account(fact: Fact) -> Account:
    return Account(fact.member_id, fact.point_currency)


def waves(facts: Sequence[Fact]) -> list[list[Fact]]:
    """Waves of payments (even) and refunds (odd); a member's facts keep their order over the waves."""
    found: list[list[Fact]] = []
    last: dict[str, int] = {}
    for fact in facts:
        parity = 0 if isinstance(fact, PaidOrder) else 1
        wave = last.get(fact.member_id, 0)
        wave += (wave + parity) % 2
        last[fact.member_id] = wave
        while len(found) <= wave:
            found.append([])
        found[wave].append(fact)
    return found


async def _earning(
    call: Call, book: _Book, programme: Programme, *, order: PaidOrder, earning_id: str, earned: Earned
) -> orders.Earning:
    expiry = programme.expiry_class(earned.expiry_class)
    assert expiry is not None, "a programme is checked before it is published"
    return orders.Earning(
        earning_id=earning_id,
        order_id=order.order_id,
        member_id=order.member_id,
        point_currency=order.point_currency,
        class_no=await book.class_no(programme, funder=earned.funder, expiry=expiry),
        points=earned.points,
        expires_at=programmes.expires_at(expiry, order.occurred_at, call.time_zone),
        matures_at=programmes.matures_at(programme.return_window_days, order.occurred_at, call.time_zone),
        occurred_at=order.occurred_at,
        why=earned.why,
        store_id=order.store_id,
        channel=order.channel,
    )


def _short(order: AccruedOrder, undrawn_points: int) -> AccruedOrder:
    return replace(order, shortfall_points=undrawn_points, undrawn_points=undrawn_points)


def _posted(
    order: AccruedOrder, at: datetime, *, earned: int = 0, taken: int = 0, given: int = 0, shortfall: int = 0
) -> PointsPosted:
    return PointsPosted(
        member_id=order.member_id,
        point_currency=order.point_currency,
        order_id=order.order_id,
        earned_points=earned,
        taken_back_points=taken,
        given_back_points=given,
        shortfall_points=shortfall,
        version=order.version,
        occurred_at=at,
    )


def _tier_events(ranks: _Ranks) -> list[LoyaltyEvent]:
    return [
        TierChanged(
            member_id=account.member_id,
            point_currency=account.point_currency,
            from_tier_id=change.from_tier_id,
            to_tier_id=change.to_tier_id,
            changed_at=change.changed_at,
            version=version,
        )
        for account, version, change in ranks.changes
    ]
