"""What a valid call is, and the table that all of them are in."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.message import Message

from services.console.demo.calls import Caller
from tests.e2e.shop import Shop

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
NEXT_MONTH = datetime.now(UTC) + timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Valid:
    """A request, another body under its id, and who makes them (head office where it is None)."""

    request: Message
    other: Message
    caller: Caller | None = None


M = TypeVar("M", bound=Message)
Make = Callable[[Shop], Awaitable[Valid]]
CALLS: dict[str, Make] = {}


def calls(name: str) -> Callable[[Make], Make]:
    """Enters a maker under "Service.Method"."""

    def enter(make: Make) -> Make:
        CALLS[name] = make
        return make

    return enter


def changed(request: M, **fields: object) -> M:
    """A copy with other values in some fields."""
    other = type(request)()
    other.CopyFrom(request)
    for name, value in fields.items():
        setattr(other, name, value)
    return other
