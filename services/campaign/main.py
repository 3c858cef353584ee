"""Constructs campaign: its roles, and what each of them needs. Nothing else does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.campaign import convert
from services.campaign.consumer import MembersHandler, UsageHandler
from services.campaign.domain.codes import CodeKeys
from services.campaign.servicer import coupons, promotions, quotes
from services.campaign.store import audit as audit_store
from services.campaign.usecases.coupons import CouponDesk
from services.campaign.usecases.definitions import Definitions
from services.campaign.usecases.holds import HoldBatcher, HoldBook, HoldDesk, hold_batcher
from services.campaign.usecases.promotions import PromotionDesk
from services.campaign.usecases.quoting import Lookups, Quoting, lookups
from services.campaign.usecases.sweeping import Sweeper
from services.campaign.usecases.usage import UsageRecorder
from services.runtime import audit, idempotency, log
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import DEFAULT_TIME_ZONE, SystemClock
from services.runtime.consumer import Consumer
from services.runtime.database import EVERY_TENANT, Database, Lane
from services.runtime.events import Handler
from services.runtime.feed import Feed, PeerFeed
from services.runtime.forgetting import until_done
from services.runtime.leases import repeat_leased, this_process
from services.runtime.outbox import Outbox
from services.runtime.process import Context, Role, Started, running
from services.runtime.relay import Relay
from services.runtime.server import Mounted
from siyu.common.v1 import feed_pb2

SERVICE: Final = "campaign"
SWEEP_EVERY_S: Final = 2.0
FORGET_EVERY_ROUNDS: Final = 15
SWEEP_TIMEOUT_S: Final = 30.0
QUOTE_QUEUE: Final = 4096
HOLD_QUEUE: Final = 4096
FEED = feed_pb2.DESCRIPTOR.services_by_name["FeedService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The role that serves calls, with what has to be closed after it."""

    looking_up: Lookups
    holding: HoldBatcher
    lanes: tuple[Lane, ...]

    async def stop(self) -> None:
        """Answers what waits, then closes the lanes."""
        await self.looking_up.close()
        await self.holding.close()
        for lane in self.lanes:
            await lane.close()


async def start_api(context: Context) -> Started:
    """Mounts campaign's services."""
    lanes = tuple([await context.database().lane() for _ in range(context.settings.batch_lanes)])
    holding = hold_batcher(
        context.database(), _hold_book(context), lanes=context.settings.batch_lanes, max_queue=HOLD_QUEUE
    )
    api = Api(looking_up=lookups(lanes, max_queue=QUOTE_QUEUE), holding=holding, lanes=lanes)
    context.server.mount(_services(context, api))
    return api


def _services(context: Context, api: Api) -> list[Mounted]:
    database, clock, system = context.database(), SystemClock(), context.database("system")
    keys = CodeKeys.derive(context.settings.service_secret)
    quoting = Quoting(lookups=api.looking_up, definitions=Definitions(database=database), keys=keys, clock=clock)
    coupon_desk = CouponDesk(database=database, keys=keys, clock=clock)
    served = (
        (promotions.SERVICE, promotions.PromotionServicer(desk=PromotionDesk(database=database))),
        (quotes.SERVICE, quotes.QuoteServicer(quoting=quoting)),
        (coupons.SERVICE, coupons.CouponServicer(desk=coupon_desk, holds=HoldDesk(batcher=api.holding, clock=clock))),
        (audit.SERVICE, audit.AuditServicer(desk=audit.AuditDesk(database=system, books=audit_store))),
        (FEED, Feed(system, context.settings.log_partitions)),
    )
    return [Mounted(descriptor=descriptor, servicer=servicer) for descriptor, servicer in served]


def _hold_book(context: Context) -> HoldBook:
    outbox = Outbox(encode=convert.recorded, partitions=context.settings.log_partitions)
    return HoldBook(clock=SystemClock(), outbox=outbox)


async def start_relay(context: Context) -> Started:
    """Numbers and publishes campaign's events."""
    relay = Relay(database=context.database("system"), redis_url=context.settings.redis_url, holder=this_process())
    return running(context, relay.run(context.stop), name="relay")


async def start_sweeper(context: Context) -> Started:
    """Gives back holds whose time is over, forgets tombstones and old refusals, trims the log."""
    database = context.database("system")
    sweeper = Sweeper(database=database, book=_hold_book(context))
    sweep = _sweeping(sweeper, database)
    repeated = repeat_leased(database, "sweeper", sweep, every_s=SWEEP_EVERY_S, stop=context.stop)
    return running(context, repeated, name="sweeper")


def _sweeping(sweeper: Sweeper, database: Database) -> Callable[[], Awaitable[None]]:
    rounds = 0

    async def sweep() -> None:
        nonlocal rounds
        await sweeper.sweep(_sweeping_call())
        if rounds % FORGET_EVERY_ROUNDS == 0:
            await until_done(database, idempotency.forget_expired, at_once=idempotency.FORGET_BATCH)
            await until_done(database, log.trim, at_once=log.TRIM_BATCH)
        rounds += 1

    return sweep


def _sweeping_call() -> Call:
    """The sweeper's own call: it is in no tenant until it comes to one, and it goes by the machine's time."""
    return Call(
        tenant_id=EVERY_TENANT,
        client_id=f"{SERVICE}.sweeper",
        actor=Actor(kind=ActorKind.SERVICE, id=SERVICE),
        now=SystemClock().now(),
        time_zone=DEFAULT_TIME_ZONE,
        deadline_at=deadline_in(SWEEP_TIMEOUT_S),
    )


async def start_usage(context: Context) -> Started:
    """Records what commerce's paid and refunded orders used."""
    outbox = Outbox(encode=convert.recorded, partitions=context.settings.log_partitions)
    handler = UsageHandler(recorder=UsageRecorder(outbox=outbox, book=_hold_book(context)))
    return _consuming(context, producer="commerce", queue="usage", handler=handler.handle)


async def start_members(context: Context) -> Started:
    """Follows identity's tenants and merges."""
    return _consuming(context, producer="identity", queue="members", handler=MembersHandler().handle)


def _consuming(context: Context, *, producer: str, queue: str, handler: Handler) -> Started:
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


ROLES: Final = (
    Role("api", start_api),
    Role("relay", start_relay),
    Role("sweeper", start_sweeper),
    Role("worker:usage", start_usage),
    Role("worker:members", start_members),
)
