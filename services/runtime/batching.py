"""Micro-batching: concurrent calls wait in the process, and whichever lane is free takes them all at once.

The statement in flight is the timer: what comes meanwhile goes next, together. While calls come so thick that batches
are large, a free lane also waits a few milliseconds for as long as they keep coming: most of a small batch's cost is
its transaction's, so that under load fewer and larger batches answer everybody sooner. Who calls alone never waits.

A batch is of one tenant, tenants take turns, and each caller gets its own verdict. A batch that fails is halved until
each bad item stands alone, so that it fails nobody else.
"""

import asyncio
import random
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from opentelemetry.trace import SpanContext
from prometheus_client import Histogram

from services.runtime import telemetry
from services.runtime.errors import Conflict, DomainError, Exhausted, TimedOut, Unavailable
from services.runtime.limits import is_full

L = TypeVar("L")
I = TypeVar("I")  # noqa: E741 - an item
V = TypeVar("V")

MAX_BATCH = 512
MAX_QUEUE = 8192
MAX_ATTEMPTS = 6
BACKOFF_S = 0.02
# So long a failed batch is halved without an answer to anybody. Bad items fail fast, however many they are, and an item
# too large is even answered when it stands alone; an outage that looks like them must not hold the lane for 1,023 runs.
PATIENCE_S = 1.0
RETRY_AFTER_S = 0.5
# company: the last batch was at least so large
COMPANY = 2
# with 256 callers, batches of 64 cost Postgres what larger ones did, half of what those do that wait for nobody; larger
# ones leave the processor idle while all callers wait for one batch
ENOUGH = 64
STEP_S = 0.001
LONGEST_WAIT_S = 0.03
# after so large a batch its callers are on their way back, and only so many steps in which nobody came tell that they
# are not: holds among grants went 15 at a time, and 27 since, at three quarters of the cost of each
BUSY = 8
EMPTY_STEPS = 4
NO_DEADLINE = float("inf")

ITEMS = Histogram("siyu_batch_items", "Items in a batch", ["batcher"], buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512))

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Waiting(Generic[I, V]):
    item: I
    verdict: asyncio.Future[V]
    deadline_at: float
    caller: SpanContext | None


@dataclass(slots=True)
class _Halving:
    """Until when the parts of a batch that failed are run; each that is answered puts it off."""

    patience_s: float
    until: float | None = None

    def goes_on(self) -> None:
        """It has just begun, or somebody was answered."""
        self.until = time.monotonic() + self.patience_s

    @property
    def is_over(self) -> bool:
        """Whether nobody was answered for too long."""
        return self.until is not None and time.monotonic() > self.until


class Batcher(Generic[L, I, V]):
    """Runs items in batches on its lanes.

    `run_batch(lane, tenant_id, items)` is one transaction and idempotent: it runs again after a lost connection. It
    returns one verdict an item, in order; a verdict that is a DomainError is raised to its caller.
    """

    def __init__(
        self,
        lanes: Sequence[L],
        run_batch: Callable[[L, str, Sequence[I]], Awaitable[Sequence[V | DomainError]]],
        *,
        name: str = "batch",
        max_batch: int = MAX_BATCH,
        max_queue: int = MAX_QUEUE,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Starts nothing; the first item starts the lanes."""
        assert lanes, "a batcher needs a lane"
        self._lanes = lanes
        self._run_batch = run_batch
        self._name = name
        self._max_batch = max_batch
        self._enough = min(ENOUGH, max_batch)
        self._max_queue = max_queue
        self._patience_s = patience_s
        self._sleep = sleep
        self._queues: OrderedDict[str, deque[_Waiting[I, V]]] = OrderedDict()
        self._queued = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._workers: list[asyncio.Task[None]] = []
        self._closing = False
        self._last = 0
        self._items = ITEMS.labels(name)
        self._gathering = False

    async def submit(self, tenant_id: str, item: I, *, deadline_at: float = NO_DEADLINE) -> V:
        """The item's verdict. `deadline_at` is on the scale of `time.monotonic()`.

        Raises Exhausted when the queue is full, TimedOut when the deadline passed before the item was taken, the
        item's own refusal, or Unavailable when the database stayed away.
        """
        self._admit(tenant_id)
        verdict: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant_id, deque()).append(_Waiting(item, verdict, deadline_at, telemetry.here()))
        self._queued += 1
        if not self._workers:
            # not of the call that happens to be the first
            self._workers = [
                asyncio.create_task(self._serve(lane), context=telemetry.outside()) for lane in self._lanes
            ]
        if not self._gathering:
            self._wake_one()
        return await verdict

    async def close(self) -> None:
        """Refuses new items, finishes those that wait, and ends. The lanes stay open: they are their owner's."""
        self._closing = True
        while self._idle:
            self._wake_one()
        await asyncio.gather(*self._workers)

    @property
    def queued(self) -> int:
        """Items that wait for a lane."""
        return self._queued

    def _admit(self, tenant_id: str) -> None:
        if self._closing:
            raise Unavailable("this process is stopping", retry_after_s=RETRY_AFTER_S)
        own = len(self._queues.get(tenant_id, ()))
        tenants = len(self._queues) + (own == 0)
        # while others wait too, nobody holds more than half of the places
        own_limit = self._max_queue if tenants == 1 else self._max_queue // 2
        share = self._max_queue // tenants
        if own >= own_limit or is_full(self._queued, room=self._max_queue, own=own, share=share):
            raise Exhausted(
                "too many calls wait already", retry_after_s=RETRY_AFTER_S, subject=self._name, reason="QUEUE_FULL"
            )

    def _wake_one(self) -> None:
        while self._idle:
            idle = self._idle.popleft()
            if not idle.done():
                idle.set_result(None)
                return

    async def _serve(self, lane: L) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if self._queued and self._last >= COMPANY and not self._gathering and not self._closing:
                await self._gather()
            # one lane waits for company at a time, and the others leave it what comes
            taken = None if self._gathering else self._take()
            if taken is not None:
                tenant_id, batch = taken
                self._last = len(batch)
                self._items.observe(len(batch))
                if self._queued:
                    self._wake_one()
                await self._run(lane, tenant_id, batch, _Halving(self._patience_s))
            elif self._closing:
                return
            else:
                idle = loop.create_future()
                self._idle.append(idle)
                await idle

    async def _gather(self) -> None:
        """Waits while more keep coming, until there are enough; where few call, one step without any is the end."""
        self._gathering = True
        until = time.monotonic() + LONGEST_WAIT_S
        patience = EMPTY_STEPS if self._last >= BUSY else 1
        try:
            while self._queued < self._enough and not self._closing and time.monotonic() < until:
                before = self._queued
                await self._sleep(STEP_S)
                patience -= self._queued <= before
                if not patience:
                    return
        finally:
            self._gathering = False

    def _take(self) -> tuple[str, list[_Waiting[I, V]]] | None:
        while self._queues:
            tenant_id, queue = self._queues.popitem(last=False)
            batch: list[_Waiting[I, V]] = []
            now = time.monotonic()
            while queue and len(batch) < self._max_batch:
                waiting = queue.popleft()
                self._queued -= 1
                if not _is_over(waiting, now):
                    batch.append(waiting)
            if queue:
                # what is left goes behind the other tenants
                self._queues[tenant_id] = queue
            if batch:
                return tenant_id, batch
        return None

    async def _run(self, lane: L, tenant_id: str, batch: list[_Waiting[I, V]], halving: _Halving) -> None:
        try:
            verdicts = await self._attempt(lane, tenant_id, batch, halving)
        except (Unavailable, TimedOut, Conflict) as refusal:
            _refuse(batch, refusal)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told to the item that causes it
            await self._halve(lane, tenant_id, batch, halving, error)
        else:
            halving.goes_on()
            self._tell(batch, verdicts)

    def _tell(self, batch: Sequence[_Waiting[I, V]], verdicts: Sequence[V | DomainError]) -> None:
        if len(verdicts) != len(batch):
            # nobody knows whose they are; raised here, this bug would end the lane, and all would wait for ever
            bug = AssertionError(f"{len(verdicts)} verdicts for {len(batch)} items")
            _log.error("a batch came back with another number of verdicts", batcher=self._name, error=str(bug))
            _refuse(batch, bug)
            return
        for waiting, verdict in zip(batch, verdicts, strict=True):
            if waiting.verdict.done():
                continue
            if isinstance(verdict, DomainError):
                waiting.verdict.set_exception(verdict)
            else:
                waiting.verdict.set_result(verdict)

    async def _attempt(
        self, lane: L, tenant_id: str, batch: list[_Waiting[I, V]], halving: _Halving
    ) -> Sequence[V | DomainError]:
        """Runs the batch, again while the database is away or another lane wins the race, a bounded number of times."""
        attempt = 1
        while True:
            try:
                with telemetry.together(f"{self._name} batch", (waiting.caller for waiting in batch)):
                    return await self._run_batch(lane, tenant_id, [waiting.item for waiting in batch])
            except (Unavailable, Conflict):
                now = time.monotonic()
                if attempt == MAX_ATTEMPTS or halving.is_over or all(_is_over(waiting, now) for waiting in batch):
                    raise
                await asyncio.sleep(BACKOFF_S * 2.0**attempt * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                attempt += 1

    async def _halve(
        self, lane: L, tenant_id: str, batch: list[_Waiting[I, V]], halving: _Halving, error: Exception
    ) -> None:
        if len(batch) == 1:
            _log.warning("an item failed alone", batcher=self._name, error=type(error).__name__)
            _refuse(batch, error)
            return
        if halving.until is None:
            halving.goes_on()
        if halving.is_over:
            _log.error("a batch fails whatever is taken out", batcher=self._name, items=len(batch), exc_info=error)
            _refuse(batch, Unavailable("the batch failed; try again", reason="BATCH_FAILED"))
            return
        middle = len(batch) // 2
        await self._run(lane, tenant_id, batch[:middle], halving)
        await self._run(lane, tenant_id, batch[middle:], halving)


def _is_over(waiting: _Waiting[I, V], now: float) -> bool:
    """Whether nobody waits any more; one whose deadline has passed is told so."""
    if waiting.verdict.done():
        return True
    if waiting.deadline_at > now:
        return False
    waiting.verdict.set_exception(TimedOut("the deadline passed before the call was taken"))
    return True


def _refuse(batch: Sequence[_Waiting[I, V]], error: Exception) -> None:
    for waiting in batch:
        if not waiting.verdict.done():
            waiting.verdict.set_exception(error)
