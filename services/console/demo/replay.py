"""Replays the baskets day by day as the chain's tills would: many at once, one household's in order."""

import asyncio
import json
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from typing import Any, Self

from rich.console import Console

from services.console.demo import rules
from services.console.demo.barrier import DayEnd
from services.console.demo.dataset import Basket
from services.console.demo.intake import Coverage, accepted_lines
from services.console.demo.opening import Opening
from services.console.demo.plan import RefundIntent
from services.console.demo.prices import member_discounts
from services.console.demo.progress import Bar, bar
from services.console.demo.supply import Request, Suppliers
from services.console.demo.tills import SALES_AN_UPLOAD, Tills

TILLS_AT_ONCE = 16


class UploadRefused(Exception):
    """An off-line sale was refused or recorded twice; it is a fact and must be recorded once."""


@dataclass(slots=True)
class Visit:
    """What one household does on one day, in order: refunds first, then purchases."""

    refunds: list[tuple[RefundIntent, int]] = field(default_factory=list)
    baskets: list[Basket] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """What the replay saw for itself; the report reads everything else from Siyu's books."""

    coverage: Coverage = field(default_factory=Coverage)
    sales: int = 0
    refunds: int = 0
    uploads: int = 0
    uploaded_twice: int = 0
    exceptions: Counter[str] = field(default_factory=Counter)
    suppliers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    phases_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def text(self) -> str:
        """As JSON, for a later run that only reads the books."""
        # not `asdict`: it rebuilds a Counter from pairs, and so counts the pairs
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        own["coverage"] = {each.name: getattr(self.coverage, each.name) for each in fields(self.coverage)}
        return json.dumps(own)

    @classmethod
    def of(cls, text: str) -> Self:
        """What `text` told."""
        found = json.loads(text)
        coverage = Coverage(**{name: _counted(value) for name, value in found.pop("coverage").items()})
        return cls(**{name: _counted(value) for name, value in found.items()}, coverage=coverage)


def upload_waves(baskets: Sequence[Basket]) -> list[list[list[Basket]]]:
    """Stores' sales that can be uploaded at once, wave by wave: none of a wave shares a household with another.

    Of two stores that share one, the smaller number comes first.
    """
    stores: dict[int, list[Basket]] = defaultdict(list)
    for basket in baskets:
        stores[basket.store_id].append(basket)
    waves: list[list[list[Basket]]] = []
    wave_of: dict[int, int] = {}
    for _, own in sorted(stores.items()):
        households = {basket.household_id for basket in own}
        wave = max((wave_of[household] + 1 for household in households if household in wave_of), default=0)
        wave_of.update(dict.fromkeys(households, wave))
        while len(waves) <= wave:
            waves.append([])
        waves[wave].append(own)
    return waves


async def _nothing() -> dict[date, list[Basket]]:
    return {}


def _counted(value: Any) -> Any:
    return Counter(value) if isinstance(value, dict) else value


class Replay:
    """One replay of the plan."""

    def __init__(self, opening: Opening) -> None:
        """`opening` has been carried out: the shops are open."""
        self.opening = opening
        self.plan = opening.plan
        self.tills = Tills(opening.outside, opening.brand, opening.products)
        suppliers = {supplier.supplier_id: opening.brand.caller(supplier.supplier_id) for supplier in rules.SUPPLIERS}
        self.suppliers = Suppliers(opening.outside, self.tills, suppliers)
        self.day_end = DayEnd(opening.wire, opening.admin)
        self.result = Result()
        self._refunds: dict[date, list[tuple[RefundIntent, int]]] = defaultdict(list)
        for number, intent in enumerate(self.plan.refunds):
            self._refunds[intent.when].append((intent, number))
        self._households: dict[int, int] = {}
        self._latest: deque[int] = deque(maxlen=TILLS_AT_ONCE)
        self._late: list[Basket] = []
        self._discounts: dict[int, dict[int, int]] = {}

    async def run(self, *, console: Console) -> Result:
        """Every day of the window, and the midnight after the last one."""
        weeks = [*self.plan.weeks]
        days = await asyncio.to_thread(self._prepare, weeks[0])
        started = time.monotonic()
        with bar(console, title="sales", total=self.plan.sales) as progress:
            for week, after in zip(weeks, [*weeks[1:], None], strict=True):
                # files are read while tills sell
                reading = asyncio.create_task(asyncio.to_thread(self._prepare, after) if after else _nothing())
                for day in self.opening.days_of(week):
                    progress.say(f"{day:%A %-d %B %Y}")
                    with self._phase("clock"):
                        await self.day_end.move_to(day)
                    await self._live(day, days.pop(day, []), progress)
                self._discounts.pop(week - 1, None)
                days = await reading
            with self._phase("clock"):
                await self.day_end.move_to(date.fromisoformat(self.plan.last_day) + timedelta(days=1))
        self.result.suppliers = self.suppliers.answers
        self.result.seconds = time.monotonic() - started
        return self.result

    def _prepare(self, week: int) -> dict[date, list[Basket]]:
        """Reads a week: its price list is all households', whoever is replayed. Returns what is sold, by day."""
        everything = self.opening.data.baskets(week)
        self._discounts[week] = member_discounts(everything, self.opening.products)
        baskets = [basket for basket in everything if self.plan.takes(basket.household_id)]
        self.result.coverage.add(baskets, self.opening.products)
        days: dict[date, list[Basket]] = defaultdict(list)
        for basket in baskets:
            if accepted_lines(basket):
                days[basket.day].append(basket)
        return days

    async def _live(self, day: date, baskets: list[Basket], progress: Bar) -> None:
        late, self._late = self._late, [basket for basket in baskets if basket.basket_id in self.plan.offline]
        with self._phase("uploads"):
            uploaded = await self._upload(late)
        progress.advance(len(late))
        online = [basket for basket in baskets if basket.basket_id not in self.plan.offline]
        with self._phase("tills"):
            await self._visit(self._visits(day, online), progress)
        with self._phase("suppliers"):
            answered = await self.suppliers.evening(day, self._requests([*uploaded, *online]))
        with self._phase("settling"):
            await self._settle_all([*self._latest, *answered])

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.result.phases_s[name] = self.result.phases_s.get(name, 0.0) + time.monotonic() - started

    def _visits(self, day: date, baskets: list[Basket]) -> deque[Visit]:
        visits: dict[int, Visit] = defaultdict(Visit)
        for intent, number in self._refunds.pop(day, []):
            visits[self._households[intent.basket_id]].refunds.append((intent, number))
        for basket in baskets:
            visits[basket.household_id].baskets.append(basket)
        # those with most to do first, so that the day's end does not wait for one household
        ordered = sorted(visits.values(), key=lambda visit: -len(visit.refunds) - len(visit.baskets))
        return deque(ordered)

    async def _visit(self, visits: deque[Visit], progress: Bar) -> None:
        async def till() -> None:
            while visits:
                await self._one(visits.popleft(), progress)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(TILLS_AT_ONCE, len(visits))):
                group.create_task(till())

    async def _one(self, visit: Visit, progress: Bar) -> None:
        """A household's day. What it did is settled before it does more: a burn sees what a refund gave back."""
        unsettled: int | None = None
        for intent, number in visit.refunds:
            await self._settle(unsettled)
            await self.tills.refund(intent, number)
            self.result.refunds += 1
            unsettled = intent.basket_id
        for basket in visit.baskets:
            await self._settle(unsettled)
            codes = self.plan.coupon_uses.get(basket.basket_id, ())
            await self.tills.sell(basket, codes=codes, burns=basket.basket_id in self.plan.burns)
            self._note(basket)
            progress.advance()
            unsettled = basket.basket_id
        if unsettled is not None:
            self._latest.append(unsettled)

    async def _settle(self, basket_id: int | None) -> None:
        if basket_id is not None:
            await self.tills.settle(basket_id)

    async def _settle_all(self, latest: Sequence[int]) -> None:
        """The barrier before the clock moves: nothing of the day is still on its way.

        Events get their numbers when all older transactions have ended. The newest transaction belongs to one of those
        that finished last, as many as run at once: when these are settled, all others have their numbers, and what is
        left is to wait for the consumers to come to the end of the log.
        """
        async with asyncio.TaskGroup() as group:
            for basket_id in set(latest):
                group.create_task(self.tills.settle(basket_id))
        await self.day_end.caught_up()

    async def _upload(self, late: list[Basket]) -> list[Basket]:
        """Yesterday's off-line sales; each batch is sent twice, as after a link that broke again.

        Stores upload at once, but a household's sales in two of them come in the order of the stores.
        """
        if not late:
            return []
        for wave in upload_waves(late):
            async with asyncio.TaskGroup() as group:
                for own in wave:
                    group.create_task(self._upload_store(own))
        await self._settle_all([own[-1].basket_id for wave in upload_waves(late) for own in wave])
        return sorted(late, key=lambda basket: (basket.store_id, basket.at, basket.basket_id))

    async def _upload_store(self, own: list[Basket]) -> None:
        for first in range(0, len(own), SALES_AN_UPLOAD):
            await self._upload_batch(own[first : first + SALES_AN_UPLOAD])

    async def _upload_batch(self, batch: list[Basket]) -> None:
        discounts = self._discounts[batch[0].week]
        first = await self.tills.upload(batch, discounts, self.plan.offline)
        second = await self.tills.upload(batch, discounts, self.plan.offline)
        for basket, once, again in zip(batch, first, second, strict=True):
            if once.refusal_reason:
                raise UploadRefused(f"basket {basket.basket_id}: {once.refusal_reason} {once.refusal_message}")
            if not again.duplicate or again.order.order_id != once.order.order_id:
                raise UploadRefused(f"basket {basket.basket_id} was recorded twice")
            for exception in once.exceptions:
                self.result.exceptions[exception.reason] += 1
            self._note(basket)
        self.result.uploads += 1
        self.result.uploaded_twice += len(batch)

    def _note(self, basket: Basket) -> None:
        self.result.sales += 1
        self._households[basket.basket_id] = basket.household_id

    def _requests(self, baskets: list[Basket]) -> list[Request]:
        return [
            Request(
                basket_id=basket.basket_id,
                household_id=basket.household_id,
                supplier_id=supplier_id,
                intent=intent,
            )
            for basket in baskets
            for supplier_id, intent in sorted(self.plan.suppliers.get(basket.basket_id, {}).items())
        ]
