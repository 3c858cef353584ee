"""What every step of the opening of the shops needs: the line to Siyu, the brand, the files and the plan."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from services.console.demo import rules
from services.console.demo.brand import Brand
from services.console.demo.calls import Caller, Wire
from services.console.demo.dataset import DataSet, Product
from services.console.demo.plan import Plan
from services.runtime.clock import end_of_day, start_of_day

CALLS_AT_ONCE = 4
"""Batches are heavy: more of them at once only wait for each other on a small machine."""

Item = TypeVar("Item")


class OpeningFailed(Exception):
    """Siyu refused what the opening of the shops needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """The brand before its first sale. `wire` calls from inside, `outside` through the edge."""

    wire: Wire
    outside: Wire
    brand: Brand
    admin: Caller
    data: DataSet
    plan: Plan
    products: dict[int, Product]
    days: dict[date, int]

    async def call(self, method: Callable[..., Any], request: Any) -> Any:
        """Head office calls."""
        return await self.wire.call(method, request, caller=self.admin, timeout_s=120.0)

    async def each(self, items: Iterable[Item], work: Callable[[Item], Awaitable[None]]) -> None:
        """Does the work for all items, a few at a time."""
        room = asyncio.Semaphore(CALLS_AT_ONCE)

        async def one(item: Item) -> None:
            async with room:
                await work(item)

        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))

    def days_of(self, week: int) -> list[date]:
        """The week's days with sales, in order."""
        return sorted(day for day, of in self.days.items() if of == week)

    def weekend_of_offer(self, week: int) -> list[date]:
        """Saturday and Sunday of every second week of the replay; else none."""
        if self.plan.weeks.index(week) % 2 == 0:
            return []
        return [day for day in self.days_of(week) if day.isoweekday() >= 6]


def batches(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """The items in lists of at most `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def stamp(at: datetime) -> Timestamp:
    """The time as a proto."""
    made = Timestamp()
    made.FromDatetime(at.astimezone(UTC).replace(tzinfo=None))
    return made


def start_stamp(day: date) -> Timestamp:
    """0:00 of the brand's day."""
    return stamp(start_of_day(day, rules.TIME_ZONE))


def end_stamp(day: date) -> Timestamp:
    """24:00 of the brand's day."""
    return stamp(end_of_day(day, rules.TIME_ZONE))
