"""Going round again after losing a race for an identifier: the winner has committed, and the next look sees it."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from services.identity.domain.refusals import OwnershipRace

T = TypeVar("T")

ATTEMPTS_MAX: Final = 6


async def settled(attempt: Callable[[], Awaitable[T]]) -> T:
    """The result of `attempt`, which is one whole transaction. Raises OwnershipRace after six lost races in a row."""
    for _ in range(ATTEMPTS_MAX - 1):
        try:
            return await attempt()
        except OwnershipRace:
            continue
    return await attempt()
