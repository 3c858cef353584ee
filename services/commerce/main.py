"""Constructs commerce: its roles, and what each of them needs. Nothing else does."""

from typing import Final

from services.commerce.consumer import FulfilmentHandler, MembersHandler
from services.commerce.convert import events, peers
from services.commerce.servicer import catalogue, orders, pos, statements, stock, suppliers
from services.commerce.store.audit import books
from services.commerce.usecases import saga, sweeping
from services.commerce.usecases.shop import SERVICE, Shop
from services.runtime import audit, log
from services.runtime.consumer import Consumer
from services.runtime.events import Handler
from services.runtime.feed import Feed, FeedChannel, OwnFeed, PeerFeed
from services.runtime.forgetting import until_done
from services.runtime.leases import repeat_leased, this_process
from services.runtime.outbox import Outbox
from services.runtime.process import Context, Role, Serving, Started, running
from services.runtime.relay import Relay
from services.runtime.server import Mounted
from siyu.common.v1 import feed_pb2

SWEEP_EVERY_S: Final = 1.0
TRIM_EVERY_ROUNDS: Final = 30
RESUME_EVERY_S: Final = 1.0
FEED: Final = feed_pb2.DESCRIPTOR.services_by_name["FeedService"]


async def start_api(context: Context) -> Started:
    """Mounts commerce's services."""
    shop, system = _shop(context), context.database("system")
    partitions = context.settings.log_partitions
    served = (
        (catalogue.SERVICE, catalogue.CatalogueServicer(shop=shop)),
        (stock.SERVICE, stock.StockServicer(shop=shop)),
        (orders.SERVICE, orders.OrderServicer(shop=shop, partitions=partitions)),
        (pos.SERVICE, pos.PosServicer(shop=shop)),
        (suppliers.SUPPLIER_SERVICE, suppliers.SupplierServicer(shop=shop)),
        (suppliers.SETTLEMENT_SERVICE, suppliers.SettlementServicer(shop=shop)),
        (statements.SERVICE, statements.StatementServicer(shop=shop)),
        (audit.SERVICE, audit.AuditServicer(desk=audit.AuditDesk(database=system, books=books))),
        (FEED, Feed(system, partitions)),
    )
    context.server.mount([Mounted(descriptor=descriptor, servicer=servicer) for descriptor, servicer in served])
    return Serving()


async def start_relay(context: Context) -> Started:
    """Numbers and publishes commerce's events."""
    relay = Relay(database=context.database("system"), redis_url=context.settings.redis_url, holder=this_process())
    return running(context, relay.run(context.stop), name="relay")


async def start_sweeper(context: Context) -> Started:
    """Gives up unpaid orders, times suppliers out, closes orders, forgets old refusals, trims the log."""
    system = context.database("system")
    sweeper = sweeping.Sweeper(shop=_shop(context), system=system)
    rounds = 0

    async def sweep() -> bool:
        nonlocal rounds
        swept = await sweeper.round()
        if rounds % TRIM_EVERY_ROUNDS == 0:
            await until_done(system, log.trim, at_once=log.TRIM_BATCH)
        rounds += 1
        return swept.any

    repeated = repeat_leased(system, "sweeper", sweep, every_s=SWEEP_EVERY_S, stop=context.stop)
    return running(context, repeated, name="sweeper")


async def start_orders(context: Context) -> Started:
    """Goes on with the sagas that a crash or an outage left half done."""
    shop, system = _shop(context), context.database("system")

    async def resume() -> bool:
        # what was due and failed waits for its own time: the next look is never at once
        await saga.resume(shop, system)
        return False

    repeated = repeat_leased(system, "orders", resume, every_s=RESUME_EVERY_S, stop=context.stop)
    return running(context, repeated, name="worker:orders")


async def start_fulfilment(context: Context) -> Started:
    """Hands paid supplier orders to their suppliers."""
    feed = OwnFeed(Feed(context.database("system"), context.settings.log_partitions), SERVICE)
    handler = FulfilmentHandler(shop=_shop(context))
    return _consuming(context, producer=SERVICE, queue="fulfilment", feed=feed, handler=handler.handle)


async def start_members(context: Context) -> Started:
    """Follows identity's tenants, stores and merges."""
    feed = PeerFeed(context.channels, "identity")
    return _consuming(context, producer="identity", queue="members", feed=feed, handler=MembersHandler().handle)


def _shop(context: Context) -> Shop:
    return Shop(
        database=context.database(),
        outbox=Outbox(encode=events.recorded, partitions=context.settings.log_partitions),
        peers=peers.over(context.channels),
        tenants=context.tenants,
        max_open_orders=context.settings.max_open_orders,
    )


def _consuming(context: Context, *, producer: str, queue: str, feed: FeedChannel, handler: Handler) -> Started:
    consumer = Consumer(
        service=SERVICE,
        producer=producer,
        queue=queue,
        database=context.database(),
        system=context.database("system"),
        redis_url=context.settings.redis_url,
        feed_channel=feed,
        handler=handler,
        tenants=context.tenants,
        partitions=context.settings.log_partitions,
    )
    return running(context, consumer.run(context.stop), name=f"worker:{queue}")


ROLES: Final = (
    Role("api", start_api),
    Role("relay", start_relay),
    Role("sweeper", start_sweeper),
    Role("worker:orders", start_orders),
    Role("worker:fulfilment", start_fulfilment),
    Role("worker:members", start_members),
)
