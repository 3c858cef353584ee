"""commerce's servicers over one migrated schema, called as the server calls them; each test has a tenant of its own."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from services.commerce.consumer import FulfilmentHandler, MembersHandler
from services.commerce.convert import events
from services.commerce.servicer.catalogue import CatalogueServicer
from services.commerce.servicer.orders import OrderServicer
from services.commerce.servicer.pos import PosServicer
from services.commerce.servicer.statements import StatementServicer
from services.commerce.servicer.stock import StockServicer
from services.commerce.servicer.suppliers import SettlementServicer, SupplierServicer
from services.commerce.store.audit import books
from services.commerce.usecases import saga, sweeping
from services.commerce.usecases.shop import Shop
from services.console.stack.postgres import drop_database, ensure_database
from services.runtime import tenants
from services.runtime.audit import AuditDesk, AuditServicer
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import FixedClock, SystemClock
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.events import Event
from services.runtime.ids import MemberId, new_id
from services.runtime.migrations import migrate
from services.runtime.outbox import Outbox
from services.runtime.relay import Relay
from services.runtime.settings import Settings
from services.runtime.tenants import Tenant, Tenants
from siyu.commerce.v1 import catalogue_pb2, events_pb2, order_pb2, supplier_pb2
from siyu.common.v1 import audit_pb2
from siyu.identity.v1 import member_pb2
from tests.conftest import ROLE_PASSWORD, with_database
from tests.store.commerce.peers import FakePeers

NOON = datetime(2026, 5, 1, 4, tzinfo=UTC)
"""12:00 in Shanghai: where the brand's test clock stands."""
PARTITIONS = 2
DATABASE = "siyu_commerce_tests"
STORE = "S1"
CARD = "9001"
SCOPES = frozenset({"commerce.pos.sell", "commerce.orders.write", "commerce.orders.read", "commerce.refunds.write"})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def commerce_settings(postgres: str) -> AsyncIterator[Settings]:
    """A database with commerce's schema, shared by this folder's tests."""
    await drop_database(postgres, database=DATABASE)
    await ensure_database(postgres, database=DATABASE)
    settings = Settings(
        database_url=with_database(postgres, DATABASE), role_password=ROLE_PASSWORD, log_partitions=PARTITIONS
    )
    await migrate(settings, "commerce")
    yield settings
    await drop_database(postgres, database=DATABASE)


@dataclass(slots=True, kw_only=True)
class Databases:
    app: Database
    system: Database


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def databases(commerce_settings: Settings) -> AsyncIterator[Databases]:
    app = Database.open(commerce_settings, service="commerce", pool_size=12)
    system = Database.open(commerce_settings, service="commerce", role="system", pool_size=3)
    yield Databases(app=app, system=system)
    await app.close()
    await system.close()


@dataclass(slots=True)
class TickingClock:
    """A clock of which no two readings are equal, as a machine's are."""

    at: datetime

    def now(self) -> datetime:
        self.at += timedelta(microseconds=7)
        return self.at


def stamp(at: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(at)
    return message


def line(line_id: str, sku: str, quantity: int = 1, shelf: int | None = None) -> order_pb2.BasketLine:
    """A line at the till's price; without one, at the list's."""
    if shelf is None:
        return order_pb2.BasketLine(line_id=line_id, sku=sku, quantity=quantity)
    return order_pb2.BasketLine(
        line_id=line_id, sku=sku, quantity=quantity, price_source=order_pb2.PRICE_SOURCE_POS, shelf_minor=shelf
    )


def cash(amount: int = 0) -> order_pb2.Payment:
    return order_pb2.Payment(tender=order_pb2.TENDER_CASH, amount_minor=amount)


def card(amount: int = 0) -> order_pb2.Payment:
    return order_pb2.Payment(tender=order_pb2.TENDER_CARD, amount_minor=amount)


@dataclass(slots=True, kw_only=True)
class Brand:
    """One tenant with the whole service at hand, without its transport."""

    tenant_id: str
    databases: Databases
    shop: Shop
    peers: FakePeers
    clock: FixedClock
    now: datetime = NOON
    member_id: MemberId = field(default_factory=lambda: MemberId(new_id()))
    sales: int = 0

    def __post_init__(self) -> None:
        self.peers.members.cards[CARD] = self.member_id

    @property
    def pos(self) -> PosServicer:
        return PosServicer(shop=self.shop)

    @property
    def orders(self) -> OrderServicer:
        return OrderServicer(shop=self.shop, partitions=PARTITIONS)

    @property
    def catalogue(self) -> CatalogueServicer:
        return CatalogueServicer(shop=self.shop)

    @property
    def stock(self) -> StockServicer:
        return StockServicer(shop=self.shop)

    @property
    def suppliers(self) -> SupplierServicer:
        return SupplierServicer(shop=self.shop)

    @property
    def settlement(self) -> SettlementServicer:
        return SettlementServicer(shop=self.shop)

    @property
    def statements(self) -> StatementServicer:
        return StatementServicer(shop=self.shop)

    def call(
        self,
        *,
        client: str = "till-1",
        store: str = STORE,
        kind: ActorKind = ActorKind.POS,
        supplier: str = "",
        scopes: frozenset[str] = SCOPES,
        timeout_s: float = 30.0,
    ) -> Call:
        return Call(
            tenant_id=self.tenant_id,
            client_id=client,
            actor=Actor(kind=kind, id=client, store_id=store, supplier_id=supplier, scopes=scopes),
            now=self.now,
            time_zone="Asia/Shanghai",
            deadline_at=deadline_in(timeout_s),
        )

    def office(self) -> Call:
        return self.call(client="erp", store="", kind=ActorKind.BACKEND)

    def supplier_call(self, supplier: str = "florist") -> Call:
        return self.call(client=supplier, store="", kind=ActorKind.SUPPLIER, supplier=supplier)

    async def goods(self, *products: catalogue_pb2.Product, stock: dict[str, int] | None = None) -> None:
        request = catalogue_pb2.BatchUpsertProductsRequest(request_id=new_id(), products=products)
        await self.catalogue.batch_upsert_products(request, self.office())
        if stock:
            await self.receive(stock)

    async def receive(self, stock: dict[str, int], *, kind: int = catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT) -> str:
        request = catalogue_pb2.PostDocumentRequest(
            request_id=new_id(),
            kind=kind,
            store_id=STORE,
            lines=[catalogue_pb2.StockDocumentLine(sku=sku, quantity=units) for sku, units in stock.items()],
            reason="delivery",
        )
        return (await self.stock.post_document(request, self.office())).document_id

    async def list_price(self, sku: str, price: int, *, store: str = "", channel: str = "") -> None:
        price_message = catalogue_pb2.ListPrice(sku=sku, store_id=store, channel=channel, price_minor=price)
        request = catalogue_pb2.BatchSetPricesRequest(request_id=new_id(), prices=[price_message])
        await self.catalogue.batch_set_prices(request, self.office())

    def basket(
        self,
        *lines: order_pb2.BasketLine,
        member: bool = True,
        burn: int = 0,
        codes: Sequence[str] = (),
        guide: str = "",
    ) -> order_pb2.Basket:
        identifier = member_pb2.Identifier(type=member_pb2.IDENTIFIER_TYPE_CARD, value=CARD) if member else None
        return order_pb2.Basket(
            store_id=STORE,
            channel="pos",
            identifier=identifier,
            lines=lines,
            burn_points=burn,
            coupon_codes=codes,
            guide_id=guide,
        )

    def sale(
        self,
        basket: order_pb2.Basket,
        *payments: order_pb2.Payment,
        number: str = "",
        at: datetime | None = None,
    ) -> order_pb2.Sale:
        self.sales += 1
        return order_pb2.Sale(
            till_id="T1",
            sale_number=number or str(self.sales),
            basket=basket,
            payments=payments or (cash(),),
            occurred_at=stamp(at) if at else None,
        )

    async def sell(
        self, sale: order_pb2.Sale, *, request_id: str = "", client: str = "till-1"
    ) -> order_pb2.SellResponse:
        request = order_pb2.SellRequest(request_id=request_id or new_id(), sale=sale)
        return await self.pos.sell(request, self.call(client=client))

    async def place(
        self, basket: order_pb2.Basket, *, request_id: str = "", **more: Any
    ) -> order_pb2.PlaceOrderResponse:
        request = order_pb2.PlaceOrderRequest(request_id=request_id or new_id(), basket=basket, **more)
        return await self.orders.place_order(request, self.call())

    async def pay(self, order_id: str, *payments: order_pb2.Payment, request_id: str = "") -> order_pb2.Order:
        request = order_pb2.PayOrderRequest(
            request_id=request_id or new_id(), order_id=order_id, payments=payments or (cash(),)
        )
        return (await self.orders.pay_order(request, self.call())).order

    async def cancel(self, order_id: str, *, request_id: str = "") -> order_pb2.Order:
        request = order_pb2.CancelOrderRequest(request_id=request_id or new_id(), order_id=order_id, reason="changed")
        return (await self.orders.cancel_order(request, self.call())).order

    async def refund(
        self,
        order_id: str,
        units: dict[str, int],
        *,
        restock: bool = True,
        request_id: str = "",
        at: datetime | None = None,
    ) -> order_pb2.RefundOrderResponse:
        request = order_pb2.RefundOrderRequest(
            request_id=request_id or new_id(),
            order_id=order_id,
            lines=[
                order_pb2.RefundLine(line_id=line_id, quantity=quantity, restock=restock)
                for line_id, quantity in units.items()
            ],
            reason="damaged",
            occurred_at=stamp(at) if at else None,
        )
        return await self.orders.refund_order(request, self.call())

    async def order(self, order_id: str) -> order_pb2.Order:
        reply = await self.orders.get_order(order_pb2.GetOrderRequest(order_id=order_id), self.call())
        return reply.order

    async def on_hand(self, sku: str) -> tuple[int, int]:
        """On hand, and reserved."""
        reply = await self.stock.get_stock(catalogue_pb2.GetStockRequest(store_id=STORE, sku=sku), self.call())
        return reply.on_hand, reply.reserved

    async def supplier_orders(self, supplier: str = "florist") -> list[supplier_pb2.SupplierOrder]:
        request = supplier_pb2.ListSupplierOrdersRequest(supplier_id=supplier)
        reply = await self.suppliers.list_supplier_orders(request, self.supplier_call(supplier))
        return list(reply.supplier_orders)

    async def audited(self) -> audit_pb2.AuditResponse:
        """The audit, which must be green."""
        reply = await self.audit()
        assert [finding for finding in reply.findings if not finding.ok] == []
        return reply

    async def audit(self) -> audit_pb2.AuditResponse:
        desk = AuditServicer(desk=AuditDesk(books=books, database=self.databases.system))
        return await desk.audit(audit_pb2.AuditRequest(), self.office())

    async def sweep(self) -> sweeping.Swept:
        return await sweeping.Sweeper(shop=self.shop, system=self.databases.system).round()

    async def resume(self, *, round_s: float = saga.ROUND_S) -> None:
        """The worker, as if every step had been left alone long enough."""

        async def age(connection: Connection) -> None:
            await raw(connection).execute(
                "UPDATE order_steps SET due_at = due_at - interval '1 hour' WHERE tenant_id = $1::uuid", self.tenant_id
            )

        await self.databases.app.run(self.tenant_id, age)
        await saga.resume(self.shop, self.databases.system, round_s=round_s)

    async def move_clock(self, at: datetime) -> None:
        """Moves the brand's test clock, as identity's event would."""
        self.now = at
        await self._known(at)
        self.shop.tenants.forget(self.tenant_id)

    async def _known(self, at: datetime) -> None:
        tenant = Tenant(
            id=self.tenant_id,
            time_zone="Asia/Shanghai",
            currency_code="CNY",
            test_clock_at=at,
            version=int(at.timestamp()),
        )

        async def write(connection: Connection) -> None:
            await tenants.apply(connection, tenant)

        await self.databases.app.run(self.tenant_id, write)

    async def events(self) -> list[tuple[str, Any]]:
        """This tenant's events that no relay has taken yet, in the order of their writing."""

        async def read(connection: Connection) -> list[tuple[str, Any]]:
            rows = await raw(connection).fetch(
                "SELECT type, payload FROM outbox WHERE tenant_id = $1::uuid ORDER BY xid, version", self.tenant_id
            )
            return [
                (row["type"], getattr(events_pb2, row["type"].partition(".")[2]).FromString(row["payload"]))
                for row in rows
            ]

        return await self.databases.system.read(EVERY_TENANT, read)

    async def fulfil(self) -> None:
        """What the fulfilment worker does with the tenant's events."""
        wanted = [
            Event(
                id=new_id(),
                type=type_,
                tenant_id=self.tenant_id,
                aggregate_type="supplier_order",
                aggregate_id=payload.supplier_order_id,
                version=1,
                occurred_at=self.now,
                posted_at=self.now,
                payload=payload.SerializeToString(),
                trace="",
            )
            for type_, payload in await self.events()
            if type_ == "commerce.SupplierOrderRequested"
        ]
        handler = FulfilmentHandler(shop=self.shop)
        call = self.office()

        async def handle(connection: Connection) -> None:
            await handler.handle(connection, wanted, call)

        await self.databases.app.run(self.tenant_id, handle)

    async def relay(self) -> int:
        relay = Relay(database=self.databases.system, redis_url="redis://localhost:1", holder="test")
        return await relay.drain()


@pytest_asyncio.fixture
async def brand(databases: Databases) -> Brand:
    """A tenant of this test, its test clock at noon."""
    peers = FakePeers()
    peers.stores.put(STORE)
    clock = FixedClock(SystemClock().now())
    known = Tenants(databases.app)
    shop = Shop(
        database=databases.app,
        outbox=Outbox(encode=events.recorded, partitions=PARTITIONS),
        peers=peers.peers(),
        tenants=known,
        clock=clock,
    )
    brand = Brand(tenant_id=new_id(), databases=databases, shop=shop, peers=peers, clock=clock)
    await brand.move_clock(NOON)
    await brand.goods(
        catalogue_pb2.Product(sku="TEA", display_name="Tea", category="DRINKS"),
        catalogue_pb2.Product(sku="CUP", display_name="Cup", category="HOME"),
        catalogue_pb2.Product(sku="RICE", display_name="Rice", category="FOOD", price_quantity=1000),
        catalogue_pb2.Product(sku="GIFT", display_name="Gift wrap", category="SERVICE", untracked=True),
        stock={"TEA": 10, "CUP": 5, "RICE": 50_000},
    )
    return brand


async def with_supplier(brand: Brand, *, split: Sequence[tuple[int, str]] = (), within_s: int = 86_400) -> None:
    """A florist that ships ROSE and TULIP, with a split rule."""
    supplier = supplier_pb2.Supplier(supplier_id="florist", display_name="Florist", accept_within_s=within_s)
    await brand.suppliers.put_supplier(
        supplier_pb2.PutSupplierRequest(request_id=new_id(), supplier=supplier), brand.office()
    )
    await brand.goods(
        catalogue_pb2.Product(sku="ROSE", display_name="Rose", category="FLORAL", supplier_id="florist"),
        catalogue_pb2.Product(sku="TULIP", display_name="Tulip", category="FLORAL", supplier_id="florist"),
    )
    await publish_split(brand, split or ((1, "72.5"), (3, "10"), (4, "5"), (2, "12.5")))


async def publish_split(brand: Brand, split: Sequence[tuple[int, str]]) -> int:
    request = supplier_pb2.PublishSplitRuleRequest(
        request_id=new_id(),
        supplier_id="florist",
        shares=[supplier_pb2.SplitShare(party=party, percent=percent) for party, percent in split],
    )
    return (await brand.settlement.publish_split_rule(request, brand.office())).version


async def with_sources(brand: Brand, *, skus: Sequence[str] = ("ROSE",)) -> None:
    """A butcher and a grower who are asked, in this order, for what the florist does not ship."""
    for supplier_id in ("butcher", "grower"):
        supplier = supplier_pb2.Supplier(supplier_id=supplier_id, display_name=supplier_id, accept_within_s=7200)
        await brand.suppliers.put_supplier(
            supplier_pb2.PutSupplierRequest(request_id=new_id(), supplier=supplier), brand.office()
        )
    await brand.suppliers.put_supply_policy(
        supplier_pb2.PutSupplyPolicyRequest(request_id=new_id(), on_unfilled=supplier_pb2.ON_UNFILLED_REROUTE),
        brand.office(),
    )
    for sku in skus:
        request = supplier_pb2.PutSourcesRequest(
            request_id=new_id(),
            sku=sku,
            sources=[
                supplier_pb2.Source(supplier_id="butcher", cost_minor=210),
                supplier_pb2.Source(supplier_id="grower", cost_minor=190),
            ],
        )
        await brand.suppliers.put_sources(request, brand.office())


def hours(count: int) -> timedelta:
    return timedelta(hours=count)


__all__ = ["Brand", "MembersHandler"]
