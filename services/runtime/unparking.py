"""Tries parked events again until they can be handled: what was mended by a deployment drains by itself."""

import asyncio
import random
from dataclasses import dataclass

import structlog
from opentelemetry.trace import SpanKind
from prometheus_client import Gauge

from services.runtime import parking, telemetry
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.errors import DomainError
from services.runtime.events import EVENTS, FAILURES, HANDLE_TIMEOUT_S, PASSING, Event, Queue, reason_of, stack_of
from services.runtime.leases import pause
from services.runtime.parking import First, Shelf

LOOK_EVERY_S = 1.0
MAX_EVENTS_AT_ONCE = 64
"""Handled in one transaction, once as many before them could be."""
TRANSACTIONS_PER_SHELF = 32
"""Then the next shelf has its turn."""
SHORTEST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0

PARKED = Gauge(
    "siyu_consumer_parked_events", "Events taken that could not be handled yet, up to 10,000", ["service", "queue"]
)

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Unparking:
    """Tries parked events again, shelf by shelf, until they are gone. Any number of processes may do so at once."""

    queue: Queue
    system: Database

    async def run(self, stop: asyncio.Event) -> None:
        """Looks every second until told to stop; a deployment that mends the cause needs nobody to tell it."""
        while not stop.is_set():
            try:
                if any([await self._empty(shelf, stop) for shelf in await self._due()]):
                    continue
            except PASSING as away:
                self._warn(away)
            except Exception as error:  # noqa: BLE001 - the partitions go on, and the next look may find it mended
                _log.error("parked events can't be looked at", reason=reason_of(error), stack=stack_of(error))
            await pause(stop, LOOK_EVERY_S)

    async def _due(self) -> tuple[Shelf, ...]:
        producer, name = self.queue.producer, self.queue.name

        async def work(connection: Connection) -> tuple[int, tuple[Shelf, ...]]:
            parked = await parking.count(connection, producer=producer, queue=name)
            return parked, await parking.due(connection, producer=producer, queue=name) if parked else ()

        parked, shelves = await self.system.read(EVERY_TENANT, work)
        PARKED.labels(self.queue.service, name).set(parked)
        return shelves

    async def _empty(self, shelf: Shelf, stop: asyncio.Event) -> bool:
        """Handles a shelf's events from the front; at one that fails the shelf waits, longer each time.

        Returns whether there may be more to handle at once."""
        limit = 1
        for _ in range(TRANSACTIONS_PER_SHELF):
            if stop.is_set():
                return False
            held: list[First] = []
            try:
                handled = await self._handle(shelf, limit, held)
            except Exception as error:
                if isinstance(error, PASSING) and not (held and await self.queue.is_their_own(error)):
                    self._warn(error)
                    return False
                FAILURES.labels(self.queue.service, self.queue.name).inc()
                if not held:
                    raise
                if limit == 1:
                    await self._postpone(shelf, held[-1], error)
                    return False
                # one of several: those before it are handled by themselves
                limit = 1
                continue
            if handled < limit:
                return False
            limit = min(limit * 2, MAX_EVENTS_AT_ONCE)
        return True

    async def _handle(self, shelf: Shelf, limit: int, held: list[First]) -> int:
        """Makes the effect of the first events and removes them, in one transaction; tells in `held` which was first.

        Returns how many it were: none where nothing is due, or another process is at it."""
        tenant = await self.queue.tenant(shelf.tenant_id)

        async def work(connection: Connection) -> tuple[Event, ...]:
            first = await parking.hold_first(connection, shelf)
            if first is None:
                return ()
            held.append(first)
            events = await parking.take(connection, shelf, limit=limit)
            with telemetry.entered(self.queue.span, events[0].trace, kind=SpanKind.CONSUMER) as trace:
                await self.queue.handler(connection, events, self.queue.call(shelf.tenant_id, tenant, trace))
            return events

        events = await self.queue.database.run(shelf.tenant_id, work, timeout_s=HANDLE_TIMEOUT_S)
        EVENTS.labels(self.queue.service, self.queue.name).inc(len(events))
        if events:
            _log.info(
                "parked events are handled", events=len(events), last_event_id=events[-1].id, **self._known(shelf)
            )
        return len(events)

    async def _postpone(self, shelf: Shelf, first: First, error: Exception) -> None:
        reason = reason_of(error)
        next_try_s = _backoff_s(first.attempts)

        async def work(connection: Connection) -> None:
            await parking.failed(connection, shelf, first, reason=reason, next_try_s=next_try_s)

        await self.queue.database.run(shelf.tenant_id, work)
        _log.error(
            "a parked event can't be handled yet",
            reason=reason,
            event_id=first.event_id,
            type=first.type,
            aggregate_type=first.aggregate_type,
            aggregate_id=first.aggregate_id,
            seq=first.seq,
            attempts=first.attempts + 1,
            next_try_s=round(next_try_s, 1),
            stack=stack_of(error),
            **self._known(shelf),
        )

    def _warn(self, away: DomainError) -> None:
        _log.warning("parked events wait", reason=away.reason, detail=away.message, queue=self.queue.name)

    def _known(self, shelf: Shelf) -> dict[str, str | int]:
        return {
            "service": self.queue.service,
            "queue": shelf.queue,
            "partition": shelf.partition,
            "tenant_id": shelf.tenant_id,
        }


def _backoff_s(attempts: int) -> float:
    backoff_s = min(LONGEST_BACKOFF_S, SHORTEST_BACKOFF_S * 2.0 ** min(attempts, 16))
    return backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
