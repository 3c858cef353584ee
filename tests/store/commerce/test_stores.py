"""Stores: who names one that the brand does not have is refused, and who would sell in a closed one; goods and prices
come before it opens, and what was sold there is a fact.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from services.commerce.consumer import MembersHandler
from services.commerce.store import stores
from services.commerce.store.stores import OPEN_CACHED_S, OpenStores
from services.runtime.call import ActorKind, Call
from services.runtime.database import Connection
from services.runtime.errors import DomainError, Unavailable
from services.runtime.events import Event
from services.runtime.ids import StoreId, new_id
from siyu.commerce.v1 import catalogue_pb2, order_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2
from tests.store.commerce.conftest import NOON, SCOPES, STORE, Brand, line
from tests.store.commerce.test_offline import offline

NEW = "S9"


def backend(brand: Brand) -> Call:
    """Somebody who may act in any store."""
    return brand.call(client="app", store="", kind=ActorKind.BACKEND, scopes=SCOPES)


def in_store(brand: Brand, store_id: str = NEW) -> order_pb2.Basket:
    basket = brand.basket(line("1", "GIFT", 1, 500))
    basket.store_id = store_id
    return basket


async def quote(brand: Brand) -> object:
    return await brand.orders.quote_order(order_pb2.QuoteOrderRequest(basket=in_store(brand)), backend(brand))


async def place(brand: Brand) -> object:
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=in_store(brand))
    return await brand.orders.place_order(request, backend(brand))


async def sell(brand: Brand) -> object:
    request = order_pb2.SellRequest(request_id=new_id(), sale=brand.sale(in_store(brand)))
    return await brand.pos.sell(request, backend(brand))


async def sell_at_its_till(brand: Brand) -> object:
    request = order_pb2.SellRequest(request_id=new_id(), sale=brand.sale(in_store(brand)))
    return await brand.pos.sell(request, brand.call(store=NEW))


async def set_prices(brand: Brand) -> object:
    prices = [
        catalogue_pb2.ListPrice(sku="TEA", price_minor=1),
        catalogue_pb2.ListPrice(sku="TEA", price_minor=2, store_id=STORE),
        catalogue_pb2.ListPrice(sku="TEA", price_minor=3, store_id=NEW),
        catalogue_pb2.ListPrice(sku="CUP", price_minor=3, store_id=NEW),
    ]
    request = catalogue_pb2.BatchSetPricesRequest(request_id=new_id(), prices=prices)
    return await brand.catalogue.batch_set_prices(request, brand.office())


def document(**given: object) -> catalogue_pb2.PostDocumentRequest:
    return catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
        store_id=NEW,
        lines=[catalogue_pb2.StockDocumentLine(sku="TEA", quantity=1)],
        **given,
    )


async def receive(brand: Brand) -> object:
    return await brand.stock.post_document(document(), brand.office())


async def take(brand: Brand) -> object:
    """A document of somebody who is bound to the store."""
    return await brand.stock.post_document(document(), brand.call(store=NEW, kind=ActorKind.STAFF, scopes=SCOPES))


SALES = [
    pytest.param(quote, "basket.store_id", id="a quote"),
    pytest.param(place, "basket.store_id", id="an order"),
    pytest.param(sell, "sale.basket.store_id", id="a sale"),
    pytest.param(sell_at_its_till, "sale.basket.store_id", id="a sale of a till that is bound to the store"),
]
GOODS = [
    pytest.param(set_prices, "prices[2].store_id", id="a store's prices"),
    pytest.param(receive, "store_id", id="a stock document"),
    pytest.param(take, "store_id", id="a stock document of the store's own staff"),
]
CALLS = [*SALES, *GOODS]
Asking = Callable[[Brand], Awaitable[object]]


async def refusal(asking: Asking, brand: Brand) -> tuple[str, str, str]:
    with pytest.raises(DomainError) as refused:
        await asking(brand)
    return refused.value.reason, refused.value.metadata["store_id"], refused.value.metadata["field"]


async def tell(brand: Brand, *changes: tuple[str, bool, int]) -> None:
    """identity's events, in one block."""
    payloads = [
        identity_pb2.StoreChanged(store_id=store_id, display_name="shop", active=active, version=version)
        for store_id, active, version in changes
    ]
    told = [
        Event(
            id=new_id(),
            type="identity.StoreChanged",
            tenant_id=brand.tenant_id,
            aggregate_type="store",
            aggregate_id=payload.store_id,
            version=payload.version,
            occurred_at=NOON,
            posted_at=NOON,
            payload=payload.SerializeToString(),
            trace="",
        )
        for payload in payloads
    ]

    async def handle(connection: Connection) -> None:
        await MembersHandler().handle(connection, told, brand.office())

    await brand.databases.app.run(brand.tenant_id, handle)


async def known(brand: Brand) -> dict[str, tuple[bool, int]]:
    async def read(connection: Connection) -> dict[str, tuple[bool, int]]:
        found = await stores.find(connection, brand.tenant_id, [StoreId(STORE), StoreId(NEW)])
        return {store_id: (store.active, store.version) for store_id, store in found.items()}

    return await brand.databases.app.read(brand.tenant_id, read)


def asked(brand: Brand) -> int:
    """How often identity was asked for the new store."""
    return brand.peers.link.calls.count(f"stores.find {NEW}")


@pytest.mark.parametrize(("asking", "field"), SALES)
async def test_a_store_that_is_not_there_or_closed_sells_nothing(brand: Brand, asking: Asking, field: str) -> None:
    assert await refusal(asking, brand) == ("STORE_NOT_FOUND", NEW, field)
    brand.peers.stores.put(NEW, active=False)
    assert await refusal(asking, brand) == ("STORE_INACTIVE", NEW, field)
    assert [name for name, _ in await brand.events()] == []
    assert asked(brand) == 2
    # opened a moment ago, and the event has not come
    brand.peers.stores.put(NEW)
    await asking(brand)
    assert (await known(brand))[NEW] == (True, 2)
    await asking(brand)
    assert asked(brand) == 3
    await brand.audited()


@pytest.mark.parametrize(("asking", "field"), GOODS)
async def test_a_store_has_its_goods_and_prices_before_it_opens(brand: Brand, asking: Asking, field: str) -> None:
    assert await refusal(asking, brand) == ("STORE_NOT_FOUND", NEW, field)
    brand.peers.stores.put(NEW, active=False)
    await asking(brand)
    await asking(brand)
    assert ((await known(brand))[NEW], asked(brand)) == ((False, 1), 2)
    for selling in (quote, place, sell, sell_at_its_till):
        assert (await refusal(selling, brand))[0] == "STORE_INACTIVE"
    await brand.audited()


@pytest.mark.parametrize(("asking", "field"), GOODS)
async def test_a_store_is_counted_out_after_it_has_closed(brand: Brand, asking: Asking, field: str) -> None:
    await tell(brand, (NEW, True, 1), (NEW, False, 2))
    await asking(brand)
    assert (asked(brand), (await known(brand))[NEW]) == (0, (False, 2)), field
    await brand.audited()


async def test_a_store_sells_at_its_price_what_it_got_before_it_opened(brand: Brand) -> None:
    brand.peers.stores.put(NEW, active=False)
    await receive(brand)
    await set_prices(brand)
    brand.peers.stores.put(NEW)
    basket = brand.basket(order_pb2.BasketLine(line_id="1", sku="TEA", quantity=1))
    basket.store_id = NEW
    request = order_pb2.SellRequest(request_id=new_id(), sale=brand.sale(basket))
    assert (await brand.pos.sell(request, backend(brand))).order.net_minor == 3
    level = catalogue_pb2.GetStockRequest(store_id=NEW, sku="TEA")
    assert (await brand.stock.get_stock(level, brand.office())).on_hand == 0
    await brand.audited()


@pytest.mark.parametrize(("asking", "field"), CALLS)
async def test_a_store_that_identity_told_of_is_not_asked_for(brand: Brand, asking: Asking, field: str) -> None:
    await tell(brand, (NEW, False, 1), (NEW, True, 2))
    await asking(brand)
    assert (asked(brand), (await known(brand))[NEW]) == (0, (True, 2)), field


async def test_another_tenants_store_is_nobodys(brand: Brand) -> None:
    await tell(brand, (NEW, True, 1))

    async def read(connection: Connection) -> object:
        return await stores.find(connection, brand.tenant_id, [StoreId(NEW)])

    assert await brand.databases.app.read(new_id(), read) == {}


async def test_the_later_of_two_tales_counts(brand: Brand) -> None:
    brand.peers.stores.put(NEW)
    brand.peers.stores.put(NEW, active=False)
    assert (await refusal(sell, brand))[0] == "STORE_INACTIVE"
    # the event of its opening comes after identity was asked
    await tell(brand, (NEW, True, 1))
    assert (await known(brand))[NEW] == (False, 2)
    await tell(brand, (NEW, False, 4), (NEW, True, 3))
    assert (await known(brand))[NEW] == (False, 4)


async def test_a_repeated_request_is_answered_though_the_store_has_closed(brand: Brand) -> None:
    brand.peers.stores.put(NEW)
    receipt = document()
    posted = await brand.stock.post_document(receipt, brand.office())
    sale = order_pb2.SellRequest(request_id=new_id(), sale=brand.sale(in_store(brand)))
    sold = await brand.pos.sell(sale, backend(brand))
    placing = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=in_store(brand))
    placed = await brand.orders.place_order(placing, backend(brand))
    brand.peers.stores.put(NEW, active=False)
    await tell(brand, (NEW, False, 2))
    brand.shop.open_stores._until.clear()
    assert await brand.stock.post_document(receipt, brand.office()) == posted
    assert await brand.pos.sell(sale, backend(brand)) == sold
    assert await brand.orders.place_order(placing, backend(brand)) == placed
    assert (await refusal(sell, brand))[0] == "STORE_INACTIVE"


async def test_an_identity_that_is_away_hinders_nobody_who_is_known(brand: Brand) -> None:
    brand.peers.link.lose.append(f"stores.find {NEW}")
    with pytest.raises(Unavailable):
        await receive(brand)
    brand.peers.stores.put(NEW)
    await receive(brand)
    brand.peers.link.lose += [f"stores.find {NEW}", f"stores.find {STORE}"]
    await receive(brand)
    await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 100))))


async def test_parallel_calls_learn_of_a_store_together(brand: Brand) -> None:
    brand.peers.stores.put(NEW)
    await asyncio.gather(*(receive(brand) for _ in range(8)), *(sell(brand) for _ in range(8)))
    assert (await known(brand))[NEW] == (True, 1)
    await brand.audited()


@dataclass(slots=True)
class Hand:
    """Seconds that move when told to."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


async def test_an_open_store_is_remembered_for_seconds_and_a_closed_one_never(brand: Brand) -> None:
    hand = Hand()
    remembered = OpenStores(seconds=hand)

    async def has(connection: Connection) -> bool:
        return await remembered.has(connection, brand.tenant_id, StoreId(NEW))

    async def is_open() -> bool:
        return await brand.databases.app.read(brand.tenant_id, has)

    assert not await is_open()
    await tell(brand, (NEW, True, 1))
    assert await is_open()
    await tell(brand, (NEW, False, 2))
    hand.at = OPEN_CACHED_S - 0.001
    assert await is_open()
    hand.at = OPEN_CACHED_S
    assert not await is_open()
    await tell(brand, (NEW, True, 3))
    assert await is_open()


# --- off-line ---


async def replay(brand: Brand, call: Call) -> order_pb2.OfflineVerdict:
    request = order_pb2.ReplayOfflineSalesRequest(store_id=NEW, sales=[offline(brand, in_store(brand), [500])])
    return (await brand.pos.replay_offline_sales(request, call)).verdicts[0]


async def test_an_off_line_sale_in_an_unknown_store_is_an_exception(brand: Brand) -> None:
    verdict = await replay(brand, backend(brand))
    assert (verdict.refusal_reason, verdict.order.net_minor) == ("", 500)
    assert [each.reason for each in verdict.exceptions] == ["STORE_UNKNOWN"]
    assert NEW in verdict.exceptions[0].detail
    queue = order_pb2.ListExceptionsRequest(store_id=NEW)
    listed = (await brand.pos.list_exceptions(queue, brand.office())).exceptions
    assert [(each.reason, each.order_id) for each in listed] == [("STORE_UNKNOWN", verdict.order.order_id)]
    await brand.audited()


@pytest.mark.parametrize("active", [pytest.param(True, id="open"), pytest.param(False, id="closed since")])
async def test_an_off_line_sale_in_a_store_of_the_brand_is_none(brand: Brand, *, active: bool) -> None:
    brand.peers.stores.put(NEW, active=active)
    verdict = await replay(brand, backend(brand))
    assert (verdict.refusal_reason, list(verdict.exceptions)) == ("", [])


async def test_an_off_line_sale_in_a_store_that_was_told_of_waits_for_nobody(brand: Brand) -> None:
    """It may have closed since: that it is the brand's is known, also while identity is away."""
    await tell(brand, (NEW, False, 2))
    brand.peers.link.lose.append(f"stores.find {NEW}")
    verdict = await replay(brand, backend(brand))
    assert (verdict.refusal_reason, list(verdict.exceptions), asked(brand)) == ("", [], 0)


async def test_a_till_that_is_bound_to_its_store_is_not_asked_about(brand: Brand) -> None:
    verdict = await replay(brand, brand.call(store=NEW))
    assert (verdict.refusal_reason, list(verdict.exceptions), asked(brand)) == ("", [], 0)
