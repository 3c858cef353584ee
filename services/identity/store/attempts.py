"""Failed log-ins, counted per client and address: in Redis over all processes, and here while Redis is away.

Only failures touch Redis, so that a right secret costs nothing more. A count that Redis loses is no harm: secrets have
256 random bits, and the limit only keeps a guesser from keeping us busy.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.identity.domain.refusals import TooManyAttempts

FAILURES_MAX: Final = 20
WINDOW_S: Final = 60
_KNOWN_MAX: Final = 50_000
_PREFIX: Final = "siyu:identity:attempts:"

_log = structlog.get_logger(__name__)


class Attempts(Protocol):
    """Who may try again."""

    def check(self, client_id: str, address: str) -> None:
        """Raises TooManyAttempts for a client and address with too many failures in the last minute."""
        ...

    async def failed(self, client_id: str, address: str) -> None:
        """Counts a failure."""
        ...


@dataclass(slots=True)
class _Window:
    failures: int
    ends_at: float


@dataclass(slots=True, kw_only=True)
class CountedAttempts:
    """Counts in windows of a minute that start with the first failure."""

    redis: Redis | None = None
    seconds: Callable[[], float] = time.monotonic
    _windows: dict[str, _Window] = field(default_factory=dict)

    def check(self, client_id: str, address: str) -> None:
        """Raises TooManyAttempts for a client and address with too many failures in the last minute."""
        window = self._windows.get(_name(client_id, address))
        if window is not None and window.failures >= FAILURES_MAX and (left_s := window.ends_at - self.seconds()) > 0:
            raise TooManyAttempts(left_s)

    async def failed(self, client_id: str, address: str) -> None:
        """Counts a failure here and in Redis; what the other processes counted is known with the answer."""
        name = _name(client_id, address)
        window = self._windows.get(name)
        if window is None or window.ends_at <= self.seconds():
            if len(self._windows) >= _KNOWN_MAX:
                self._windows.clear()
            window = self._windows[name] = _Window(0, self.seconds() + WINDOW_S)
        window.failures += 1
        if self.redis is None:
            return
        try:
            async with self.redis.pipeline(transaction=True) as pipeline:
                pipeline.incr(_PREFIX + name)
                pipeline.expire(_PREFIX + name, WINDOW_S, nx=True)
                counted, _ = await pipeline.execute()
        except (RedisError, OSError) as error:
            _log.warning("failed log-ins are counted in this process only", error=type(error).__name__)
        else:
            window.failures = max(window.failures, int(counted))


def _name(client_id: str, address: str) -> str:
    # whatever was sent as an id is not a key of ours
    return hashlib.sha256(f"{client_id}\x1f{address}".encode()).hexdigest()[:32]
