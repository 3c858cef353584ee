"""identity, campaign and loyalty as commerce sees them, in memory: holds live by the one shape, and links may break."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.commerce.domain.freezing import PointsValue
from services.commerce.domain.orders import Discount, DiscountSource
from services.commerce.domain.saga import CouponUse, Step
from services.commerce.domain.stores import Store
from services.commerce.usecases.peers import EarningLine, Identifier, Peers, Programme, Quote, QuoteBasket
from services.runtime.call import Call
from services.runtime.errors import AlreadyExists, DomainError, Invalid, Missing, Refused, Unavailable
from services.runtime.holds import HoldEvent, HoldState, resolve
from services.runtime.idempotency import REQUEST_ID_REUSED
from services.runtime.ids import MemberId, StoreId


@dataclass(slots=True)
class Link:
    """What breaks on the next calls: `lose` before the peer heard it, `forget` after it did it; `bugs` are ours.

    `meanwhile` is what others do while a hold is under way, once. A call that asks of a hold takes `hang_s`, and
    `most_at_once` of them were under way.
    """

    lose: list[str] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    meanwhile: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    hang_s: float = 0.0
    at_once: int = 0
    most_at_once: int = 0

    async def under_way(self) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.hang_s)
        finally:
            self.at_once -= 1

    def before(self, call: str) -> None:
        self.calls.append(call)
        if call in self.lose:
            self.lose.remove(call)
            raise Unavailable("the peer does not answer")
        if call in self.bugs:
            raise ValueError(call)

    def after(self, call: str) -> None:
        if call in self.forget:
            self.forget.remove(call)
            raise Unavailable("the answer was lost")


@dataclass(slots=True)
class Holds:
    """Holds by name; a repeated call answers as the first did, and must ask for the very same."""

    link: Link
    kind: str
    states: dict[str, HoldState] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    done: set[tuple[str, HoldEvent]] = field(default_factory=set)

    async def ask(self, step: Step, event: HoldEvent) -> bool:
        """Whether it was done now, and not at an earlier call."""
        await self.link.under_way()
        if event is HoldEvent.HOLD and self.link.meanwhile:
            await self.link.meanwhile.pop()()
        name = f"{self.kind}.{event.value}"
        self.link.before(name)
        repeated = (step.hold_id, event) in self.done
        if repeated and event is HoldEvent.HOLD and self.steps[step.hold_id] != step:
            raise AlreadyExists("this request id was used with another body", reason=REQUEST_ID_REUSED)
        if not repeated:
            state = self.states.get(step.hold_id, HoldState.ABSENT)
            self.states[step.hold_id] = resolve(state, event, hold_id=step.hold_id)
            if event is HoldEvent.HOLD:
                self.steps[step.hold_id] = step
            self.done.add((step.hold_id, event))
        self.link.after(name)
        return not repeated

    def expire(self, hold_id: str) -> None:
        self.states[hold_id] = HoldState.EXPIRED


@dataclass(slots=True)
class FakeMembers:
    link: Link
    cards: dict[str, MemberId] = field(default_factory=dict)
    survivors: dict[MemberId, MemberId] = field(default_factory=dict)

    async def resolve(self, call: Call, identifier: Identifier) -> MemberId:
        self.link.before("members.resolve")
        if not identifier.value.isdigit():
            raise Invalid("the value names nobody", field="identifier.value", reason="IDENTIFIER_REFUSED")
        if identifier.value not in self.cards:
            raise Missing(kind="member", name="")
        return self.cards[identifier.value]

    async def survivor(self, call: Call, member_id: MemberId) -> MemberId:
        if member_id in self.survivors:
            return self.survivors[member_id]
        if member_id not in self.cards.values():
            raise Missing(kind="member", name=member_id)
        return member_id


@dataclass(slots=True)
class FakeStores:
    """identity's stores; commerce hears of none unless the test tells it."""

    link: Link
    known: dict[StoreId, Store] = field(default_factory=dict)

    def put(self, store_id: str, *, active: bool = True) -> Store:
        """Makes or changes a store."""
        before = self.known.get(StoreId(store_id))
        store = Store(store_id=StoreId(store_id), active=active, version=before.version + 1 if before else 1)
        self.known[store.store_id] = store
        return store

    async def find(self, call: Call, store_id: StoreId) -> Store | None:
        self.link.before(f"stores.find {store_id}")
        return self.known.get(store_id)


@dataclass(slots=True)
class FakeOffers:
    """Member prices by SKU (off per unit), and coupons (code: id, off) on the first line."""

    link: Link
    member_prices: dict[str, int] = field(default_factory=dict)
    coupons: dict[str, tuple[str, int]] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    holds: Holds = field(init=False)

    def __post_init__(self) -> None:
        self.holds = Holds(self.link, "offers")

    async def quote(self, call: Call, basket: QuoteBasket) -> Quote:
        self.link.before("offers.quote")
        shares: list[list[tuple[Discount, int]]] = []
        member = Discount(source=DiscountSource.LINE_PROMOTION, source_id="member-price")
        for line in basket.lines:
            off = self.member_prices.get(line.sku, 0) * line.quantity // line.price_quantity if basket.member_id else 0
            shares.append([(member, min(off, line.shelf_minor))] if off else [])
        uses = []
        candidates: list[tuple[int, str, int, str]] = []
        for code in sorted(basket.coupon_codes):
            if code not in self.coupons or code in self.used:
                reason = "COUPON_USED" if code in self.used else "COUPON_NOT_FOUND"
                candidates.append((int(DiscountSource.COUPON), code, 0, reason))
                continue
            coupon_id, off = self.coupons[code]
            left = basket.lines[0].shelf_minor - sum(share for _, share in shares[0])
            off = min(off, left)
            coupon = Discount(source=DiscountSource.COUPON, source_id="ten-off", coupon_id=coupon_id)
            shares[0].append((coupon, off))
            uses.append(CouponUse(coupon_id=coupon_id, amount_minor=off))
            candidates.append((int(DiscountSource.COUPON), code, off, ""))
        return Quote(
            shares=tuple(tuple(line) for line in shares), candidates=tuple(candidates), coupons=tuple(uses), budgets=()
        )

    async def hold(self, call: Call, step: Step, *, occurred_at: datetime) -> None:
        codes = self._codes(step)
        taken = [code for code in codes if self.used.get(code, step.hold_id) != step.hold_id]
        if taken:
            self.link.before("offers.hold")
            raise Refused(
                "another order holds it",
                reason="COUPON_HELD",
                subject=f"coupon/{taken[0]}",
                metadata={"coupon_id": taken[0]},
            )
        await self.holds.ask(step, HoldEvent.HOLD)
        self.used.update(dict.fromkeys(codes, step.hold_id))

    async def capture(self, call: Call, step: Step) -> None:
        await self.holds.ask(step, HoldEvent.CAPTURE)

    async def void(self, call: Call, step: Step) -> None:
        await self.holds.ask(step, HoldEvent.VOID)
        for code in self._codes(step):
            if self.used.get(code) == step.hold_id:
                del self.used[code]

    def _codes(self, step: Step) -> list[str]:
        ids = {use.coupon_id for use in step.coupons}
        return [code for code, (coupon_id, _) in self.coupons.items() if coupon_id in ids]


@dataclass(slots=True)
class FakePoints:
    """One point per 1.00, 100 points are 1.00; a return window of 3 days."""

    link: Link
    balances: dict[str, int] = field(default_factory=dict)
    holds: Holds = field(init=False)

    def __post_init__(self) -> None:
        self.holds = Holds(self.link, "points")

    async def programme(self, call: Call, point_currency: str) -> Programme | None:
        return Programme(value=PointsValue(tender_value_minor=100, points_per_value=100), return_window_days=3)

    async def earned(
        self,
        call: Call,
        *,
        member_id: MemberId,
        point_currency: str,
        lines: Sequence[EarningLine],
        occurred_at: datetime,
        store_id: str,
    ) -> int:
        self.link.before("points.earned")
        return sum(line.accrual_base_minor for line in lines) // 100

    async def available(self, call: Call, *, member_id: MemberId, point_currency: str) -> int:
        return self.balances.get(member_id, 0)

    async def hold(self, call: Call, step: Step) -> None:
        repeated = (step.hold_id, HoldEvent.HOLD) in self.holds.done
        if not repeated and self.balances.get(step.member_id, 0) < step.points:
            self.link.before("points.hold")
            raise Refused("not enough points", reason="INSUFFICIENT_POINTS", subject="points")
        try:
            if await self.holds.ask(step, HoldEvent.HOLD):
                self.balances[step.member_id] -= step.points
        except DomainError:
            if not repeated and (step.hold_id, HoldEvent.HOLD) in self.holds.done:
                self.balances[step.member_id] -= step.points
            raise

    async def capture(self, call: Call, step: Step) -> None:
        await self.holds.ask(step, HoldEvent.CAPTURE)

    async def void(self, call: Call, step: Step) -> None:
        held = self.holds.states.get(step.hold_id) is HoldState.HELD
        if await self.holds.ask(step, HoldEvent.VOID) and held:
            self.balances[step.member_id] += step.points


@dataclass(slots=True)
class FakeFollowers:
    queues: dict[str, int] = field(default_factory=dict)

    async def behind(self, call: Call, *, partition: int, seq: int) -> tuple[str, ...]:
        return tuple(queue for queue, at in self.queues.items() if at < seq)


@dataclass(slots=True)
class FakePeers:
    """All of them over one link."""

    link: Link = field(default_factory=Link)
    members: FakeMembers = field(init=False)
    stores: FakeStores = field(init=False)
    offers: FakeOffers = field(init=False)
    points: FakePoints = field(init=False)
    followers: FakeFollowers = field(default_factory=FakeFollowers)

    def __post_init__(self) -> None:
        self.members = FakeMembers(self.link)
        self.stores = FakeStores(self.link)
        self.offers = FakeOffers(self.link)
        self.points = FakePoints(self.link)

    def peers(self) -> Peers:
        return Peers(
            members=self.members,
            stores=self.stores,
            offers=self.offers,
            points=self.points,
            followers=self.followers,
        )
