"""Constructs loyalty: its roles, and what each of them needs. Nothing else does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.loyalty import convert
from services.loyalty.consumer import AccrualQueue, MembersQueue
from services.loyalty.domain.events import LoyaltyEvent
from services.loyalty.servicer import points, programmes, tiers
from services.loyalty.store import audit as audit_store
from services.loyalty.usecases.members import MemberFollowing
from services.loyalty.usecases.orders import OrderPosting
from services.loyalty.usecases.points import Lanes, PointsDesk, batchers
from services.loyalty.usecases.programmes import ProgrammeBook, ProgrammeDesk
from services.loyalty.usecases.sweeps import Sweeper
from services.loyalty.usecases.tiers import TierDesk, TierEnding
from services.runtime import audit, idempotency, log
from services.runtime.clock import SystemClock
from services.runtime.consumer import Consumer
from services.runtime.database import Database, Lane
from services.runtime.events import Handler
from services.runtime.feed import Feed, PeerFeed
from services.runtime.forgetting import until_done
from services.runtime.leases import repeat_leased, this_process
from services.runtime.outbox import Outbox
from services.runtime.process import Context, Role, Started, running
from services.runtime.relay import Relay
from services.runtime.server import Mounted
from siyu.common.v1 import feed_pb2

SERVICE: Final = "loyalty"
SWEEP_EVERY_S: Final = 0.5
FORGET_EVERY_SWEEPS: Final = 60
FEED = feed_pb2.DESCRIPTOR.services_by_name["FeedService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The role that serves calls, with what has to be closed after it."""

    batches: Lanes
    lanes: tuple[Lane, ...]

    async def stop(self) -> None:
        """Answers what waits, then closes the lanes."""
        await self.batches.close()
        for lane in self.lanes:
            await lane.close()


async def start_api(context: Context) -> Started:
    """Mounts loyalty's services."""
    database, clock = context.database(), SystemClock()
    partitions = context.settings.log_partitions
    count = context.settings.batch_lanes
    groups = [[await database.lane() for _ in range(size)] for size in (count, count, max(2, count), count)]
    writing, bundling, holding, reading = groups
    batches = batchers(
        writing=writing, bundling=bundling, holding=holding, reading=reading, clock=clock, partitions=partitions
    )
    book = ProgrammeBook(database)
    desk = PointsDesk(
        database=database, book=book, lanes=batches, partitions=partitions, event_parts=convert.granted_parts
    )
    system = context.database("system")
    served = (
        (points.SERVICE, points.PointsServicer(desk=desk, clock=clock)),
        (programmes.SERVICE, programmes.ProgrammeServicer(desk=ProgrammeDesk(database=database, book=book))),
        (tiers.SERVICE, tiers.TierServicer(desk=TierDesk(database=database, book=book))),
        (audit.SERVICE, audit.AuditServicer(desk=audit.AuditDesk(database=system, books=audit_store, clock=clock))),
        (FEED, Feed(system, context.settings.log_partitions)),
    )
    context.server.mount([Mounted(descriptor=descriptor, servicer=servicer) for descriptor, servicer in served])
    return Api(batches=batches, lanes=tuple(lane for group in groups for lane in group))


async def start_relay(context: Context) -> Started:
    """Numbers and publishes loyalty's events."""
    relay = Relay(database=context.database("system"), redis_url=context.settings.redis_url, holder=this_process())
    return running(context, relay.run(context.stop), name="relay")


async def start_sweeper(context: Context) -> Started:
    """Matures and expires points, ends holds and tiers, and forgets what may be forgotten."""
    database = context.database("system")
    sweeper = Sweeper(database=database, tiers=TierEnding(outbox=_outbox(context)), clock=SystemClock())
    sweep = _sweeping(sweeper, database)
    repeated = repeat_leased(database, "sweeper", sweep, every_s=SWEEP_EVERY_S, stop=context.stop)
    return running(context, repeated, name="sweeper")


async def start_accrual(context: Context) -> Started:
    """Posts what commerce's orders and refunds do to points and tiers."""
    queue = AccrualQueue(posting=OrderPosting(outbox=_outbox(context)))
    return _consume(context, producer="commerce", queue="accrual", handler=queue.handle)


async def start_members(context: Context) -> Started:
    """Follows identity's tenants and merges."""
    queue = MembersQueue(following=MemberFollowing(outbox=_outbox(context)))
    return _consume(context, producer="identity", queue="members", handler=queue.handle)


ROLES: Final = (
    Role("api", start_api),
    Role("relay", start_relay),
    Role("sweeper", start_sweeper),
    Role("worker:accrual", start_accrual),
    Role("worker:members", start_members),
)


def _consume(context: Context, *, producer: str, queue: str, handler: Handler) -> Started:
    consumer = Consumer(
        service=SERVICE,
        producer=producer,
        queue=queue,
        database=context.database(),
        system=context.database("system"),
        redis_url=context.settings.redis_url,
        feed_channel=PeerFeed(context.channels, producer),
        handler=handler,
        tenants=context.tenants,
        partitions=context.settings.log_partitions,
    )
    return running(context, consumer.run(context.stop), name=f"worker:{queue}")


def _sweeping(sweeper: Sweeper, database: Database) -> Callable[[], Awaitable[None]]:
    rounds = 0

    async def sweep() -> None:
        nonlocal rounds
        await sweeper.sweep()
        if rounds % FORGET_EVERY_SWEEPS == 0:
            await sweeper.forget()
            await until_done(database, idempotency.forget_expired, at_once=idempotency.FORGET_BATCH)
            await until_done(database, log.trim, at_once=log.TRIM_BATCH)
        rounds += 1

    return sweep


def _outbox(context: Context) -> Outbox[LoyaltyEvent]:
    return Outbox(encode=convert.recorded, partitions=context.settings.log_partitions)
