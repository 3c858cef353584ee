"""How many calls a client may make: a bucket of `burst` calls that fills at `rate_per_s`.

Kept as one time per client, the moment at which its bucket would be full again (GCRA): a call moves it on by one
interval, and is refused while it lies more than a burst ahead. The time lives in Valkey, so that all edges share it.
When Valkey does not answer, each edge counts alone for a while: a limit is there to protect, not to stop trade.
"""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

# Longer than this and the answer isn't worth the wait; Envoy itself waits half a second for ours.
ASK_WITHIN_S = 0.3
ALONE_FOR_S = 2.0
# Each question takes a connection; a burst must not open hundreds.
MAX_ASKING = 16
MAX_BUCKETS = 100_000

# KEYS[1]: the bucket. ARGV: interval and burst in microseconds. Returns the microseconds to wait, 0 if the call may go.
# The server's clock is used: those of several edges differ.
_TAKE = """
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local full_at_us = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now_us)
local next_us = full_at_us + tonumber(ARGV[1])
local wait_us = next_us - now_us - tonumber(ARGV[2])
if wait_us > 0 then
    return math.ceil(wait_us)
end
redis.call('SET', KEYS[1], string.format('%.0f', next_us), 'PX', math.ceil((next_us - now_us) / 1000) + 1)
return 0
"""

# KEYS and ARGV as above. A bucket that is forgotten is full.
_GIVE_BACK = """
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local full_at_us = tonumber(redis.call('GET', KEYS[1]) or '0') - tonumber(ARGV[1])
if full_at_us > now_us then
    redis.call('SET', KEYS[1], string.format('%.0f', full_at_us), 'PX', math.ceil((full_at_us - now_us) / 1000) + 1)
else
    redis.call('DEL', KEYS[1])
end
return 0
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A limit: on average `per_s` calls a second, and `burst` at once."""

    per_s: float
    burst: int

    @property
    def interval_s(self) -> float:
        """The time in which one call becomes free again."""
        return 1 / self.per_s

    @property
    def capacity_s(self) -> float:
        """How far ahead the bucket's time may lie."""
        return self.burst / self.per_s


def take(full_at_s: float, rate: Rate, *, now_s: float) -> tuple[float, float]:
    """One call from the bucket: when it will be full again, and the seconds to wait (0: the call may go).

    A call that has to wait leaves the bucket as it was."""
    next_s = max(full_at_s, now_s) + rate.interval_s
    wait_s = next_s - now_s - rate.capacity_s
    return (full_at_s, wait_s) if wait_s > 1e-9 else (next_s, 0.0)


@dataclass(slots=True)
class LocalBuckets:
    """The buckets of this process, the least used forgotten first."""

    _full_at_s: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def wait_s(self, key: str, rate: Rate, *, now_s: float) -> float:
        """Takes one call; the seconds to wait, 0 if it may go."""
        full_at_s, wait_s = take(self._full_at_s.get(key, 0.0), rate, now_s=now_s)
        self._full_at_s[key] = full_at_s
        self._full_at_s.move_to_end(key)
        if len(self._full_at_s) > MAX_BUCKETS:
            self._full_at_s.popitem(last=False)
        return wait_s

    def give_back(self, key: str, rate: Rate) -> None:
        """Puts a call back, as if it had not been taken."""
        if key in self._full_at_s:
            self._full_at_s[key] -= rate.interval_s


@dataclass(slots=True)
class Limits:
    """The limits of all edges together, in Valkey, or of this one alone while that does not answer."""

    redis: Redis
    _local: LocalBuckets = field(default_factory=LocalBuckets)
    _alone_until_s: float = -math.inf
    _scripts: dict[str, Any] = field(default_factory=dict)
    _asking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_ASKING))

    async def wait_s(self, key: str, rate: Rate) -> float:
        """Takes one call from the bucket `key`; the seconds to wait, 0 if it may go."""
        waited_s = await self._together(_TAKE, key, rate)
        return self._local.wait_s(key, rate, now_s=time.monotonic()) if waited_s is None else waited_s

    async def give_back(self, key: str, rate: Rate) -> None:
        """Puts a call back into the bucket, as if it had not been taken."""
        if await self._together(_GIVE_BACK, key, rate) is None:
            self._local.give_back(key, rate)

    async def _together(self, script: str, key: str, rate: Rate) -> float | None:
        """What Valkey says; None while it does not answer."""
        now_s = time.monotonic()
        if now_s >= self._alone_until_s:
            try:
                return await self._ask(script, key, rate)
            except (RedisError, OSError, TimeoutError) as error:
                if self._alone_until_s <= now_s:  # the first of those who were waiting says it
                    _log.warning("limits are kept alone: Valkey does not answer", kind=type(error).__name__)
                self._alone_until_s = time.monotonic() + ALONE_FOR_S
        return None

    async def _ask(self, script: str, key: str, rate: Rate) -> float:
        if script not in self._scripts:
            self._scripts[script] = self.redis.register_script(script)
        arguments = [round(rate.interval_s * 1e6), round(rate.capacity_s * 1e6)]
        # Shielded: a cancelled command leaves its reply for the connection's next user (redis-py#2665).
        asked = asyncio.ensure_future(self._run(script, f"edge:limit:{key}", arguments))
        done, _ = await asyncio.wait({asked}, timeout=ASK_WITHIN_S)
        if not done:
            asked.add_done_callback(_forget)
            raise TimeoutError
        return asked.result() / 1e6

    async def _run(self, script: str, key: str, arguments: list[int]) -> int:
        async with self._asking:
            return int(await self._scripts[script](keys=[key], args=arguments))


def _forget(asked: "asyncio.Future[Any]") -> None:
    """Takes the late answer's error, if it is one, off the event loop's hands."""
    if not asked.cancelled():
        asked.exception()
