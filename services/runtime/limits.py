"""How much a role takes on at once: an adaptive limit of calls in flight, and the order in which they are shed.

The limit follows additive increase, multiplicative decrease on the time that calls wait for the event loop: a role
that is saturated sees its own loop lag first, whatever the calls do. What is cheapest to lose goes first. One tenant
that takes all the room keeps nobody else out: whoever has less than an equal share of it is let in past the limit.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.runtime.errors import Exhausted
from siyu.common.v1 import rule_pb2

INITIAL = 1024
FLOOR = 256
CEILING = 4096
# a busy loop lags by what it has in flight: 256 calls of 200 µs are 50 ms and no overload
LAG_TARGET_S = 0.4
PROBE_S = 0.05
INCREASE = 16
DECREASE = 0.8
RETRY_AFTER_S = 0.5
# with tenants who have less than their share there may be so many times the room
OVERFLOW = 2

# the share of the limit that each class may fill; NEVER has a hard stop only, far above
SHARE: Mapping[int, float] = {
    rule_pb2.SHEDDING_REPORT: 0.5,
    rule_pb2.SHEDDING_READ: 0.7,
    rule_pb2.SHEDDING_QUOTE: 0.8,
    rule_pb2.SHEDDING_WRITE: 1.0,
    rule_pb2.SHEDDING_NEVER: 8.0,
}


def is_full(taken: int, *, room: float, own: int, share: float) -> bool:
    """Whether a tenant that has `own` of the `taken` places gets no other: past the room, only who has less than its
    equal share does. So whoever took all of it while it was alone keeps nobody out."""
    return taken >= (room if own >= share else OVERFLOW * room)


@dataclass(slots=True)
class AdaptiveLimit:
    """Calls in flight in this process. `limit` moves between FLOOR and CEILING by the loop's lag."""

    limit: float = INITIAL
    in_flight: int = 0
    shed: dict[int, int] = field(default_factory=dict)
    _own: dict[str, int] = field(default_factory=dict)

    def enter(self, shedding: int, tenant_id: str) -> None:
        """Counts a call in; whoever got in leaves. Raises Exhausted (OVERLOADED) when its class has no room left."""
        room = self.limit * SHARE[shedding]
        own = self._own.get(tenant_id, 0)
        tenants = len(self._own) + (own == 0)
        if is_full(self.in_flight, room=room, own=own, share=room / tenants):
            self.shed[shedding] = self.shed.get(shedding, 0) + 1
            raise Exhausted(
                "too much at once; come back in a moment",
                reason="OVERLOADED",
                subject="calls",
                retry_after_s=RETRY_AFTER_S,
            )
        self.in_flight += 1
        self._own[tenant_id] = own + 1

    def leave(self, tenant_id: str) -> None:
        """Counts a call out."""
        self.in_flight -= 1
        own = self._own[tenant_id] - 1
        if own:
            self._own[tenant_id] = own
        else:
            del self._own[tenant_id]

    def observe(self, lag_s: float) -> None:
        """Moves the limit by one measurement of the loop's lag."""
        if lag_s > LAG_TARGET_S:
            # with few calls in flight it is starved by others, and shedding ours would not help
            if self.in_flight > FLOOR / 2:
                self.limit = max(FLOOR, self.limit * DECREASE)
        elif self.in_flight > self.limit / 2:
            self.limit = min(CEILING, self.limit + INCREASE)

    async def follow(self) -> None:
        """Measures the loop's lag until cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(PROBE_S)
            self.observe(time.monotonic() - before - PROBE_S)
