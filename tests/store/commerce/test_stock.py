"""The stock ledger: every change has a line, and nothing is taken from under a reservation."""

import asyncio

import pytest

from services.runtime.errors import Invalid, Missing, NotAllowed, Refused
from services.runtime.ids import new_id
from siyu.commerce.v1 import catalogue_pb2, order_pb2
from tests.store.commerce.conftest import Brand, cash, line

RECEIPT = catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT
COUNT = catalogue_pb2.STOCK_DOCUMENT_KIND_COUNT
ADJUSTMENT = catalogue_pb2.STOCK_DOCUMENT_KIND_ADJUSTMENT


@pytest.mark.parametrize(
    ("kind", "quantity", "on_hand"),
    [
        pytest.param(RECEIPT, 5, 15, id="a receipt adds"),
        pytest.param(COUNT, 7, 7, id="a count sets"),
        pytest.param(ADJUSTMENT, -3, 7, id="an adjustment is signed"),
    ],
)
async def test_documents_move_stock(brand: Brand, kind: int, quantity: int, on_hand: int) -> None:
    await brand.receive({"TEA": quantity}, kind=kind)
    assert await brand.on_hand("TEA") == (on_hand, 0)
    await brand.audited()


async def test_what_is_reserved_stays(brand: Brand) -> None:
    await brand.place(brand.basket(line("1", "TEA", 8, 800)))
    with pytest.raises(Refused) as refused:
        await brand.receive({"TEA": -3}, kind=ADJUSTMENT)
    assert (refused.value.reason, refused.value.metadata) == ("STOCK_BELOW_RESERVED", {"sku": "TEA", "reserved": "8"})
    await brand.receive({"TEA": -2}, kind=ADJUSTMENT)
    with pytest.raises(Refused):
        await brand.receive({"TEA": 7, "CUP": 1}, kind=COUNT)
    assert await brand.on_hand("CUP") == (5, 0)
    await brand.audited()


async def test_a_bad_document_posts_nothing(brand: Brand) -> None:
    with pytest.raises(Missing):
        await brand.receive({"TEA": 1, "NONE": 1})
    with pytest.raises(Invalid):
        await brand.receive({"TEA": 0})
    assert await brand.on_hand("TEA") == (10, 0)


async def test_a_repeated_document_is_posted_once(brand: Brand) -> None:
    request = catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=RECEIPT,
        store_id="S1",
        lines=[catalogue_pb2.StockDocumentLine(sku="TEA", quantity=5)],
    )
    replies = await asyncio.gather(*(brand.stock.post_document(request, brand.office()) for _ in range(5)))
    assert len({reply.document_id for reply in replies}) == 1
    assert await brand.on_hand("TEA") == (15, 0)


async def test_orders_over_the_same_goods_in_any_order_do_not_deadlock(brand: Brand) -> None:
    await brand.receive({"TEA": 200, "CUP": 200})
    forth = [brand.basket(line("1", "TEA", 1, 10), line("2", "CUP", 1, 10), member=False) for _ in range(20)]
    back = [brand.basket(line("1", "CUP", 1, 10), line("2", "TEA", 1, 10), member=False) for _ in range(20)]
    await asyncio.gather(*(brand.sell(brand.sale(basket)) for pair in zip(forth, back, strict=True) for basket in pair))
    assert (await brand.on_hand("TEA"), await brand.on_hand("CUP")) == ((170, 0), (165, 0))
    await brand.audited()


async def test_goods_of_one_store_do_not_serve_anothers_order(brand: Brand) -> None:
    """The store that is checked is the one that reserves, and the one that ships."""
    brand.peers.stores.put("S2")
    basket = brand.basket(line("1", "TEA", 1))
    basket.store_id = "S2"
    await brand.list_price("TEA", 500)
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=basket)
    with pytest.raises(Refused) as refused:
        await brand.orders.place_order(request, brand.office())
    assert (refused.value.reason, refused.value.metadata["available"]) == ("OUT_OF_STOCK", "0")
    assert await brand.on_hand("TEA") == (10, 0)

    document = catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
        store_id="S2",
        lines=[catalogue_pb2.StockDocumentLine(sku="TEA", quantity=1)],
        reason="delivery",
    )
    await brand.stock.post_document(document, brand.office())
    request.request_id = new_id()
    order = (await brand.orders.place_order(request, brand.office())).order
    paying = order_pb2.PayOrderRequest(request_id=new_id(), order_id=order.order_id, payments=[cash()])
    await brand.orders.pay_order(paying, brand.office())
    assert await brand.on_hand("TEA") == (10, 0)
    await brand.audited()


async def test_products_change_and_are_read(brand: Brand) -> None:
    product = catalogue_pb2.Product(sku="TEA", display_name="Green tea", category="DRINKS", price_quantity=100)
    request = catalogue_pb2.BatchUpsertProductsRequest(
        request_id=new_id(),
        products=[product, catalogue_pb2.Product(sku="JAR", display_name="Jar")],
    )
    reply = await brand.catalogue.batch_upsert_products(request, brand.office())
    assert (reply.created, reply.updated) == (1, 1)
    found = await brand.catalogue.get_product(catalogue_pb2.GetProductRequest(sku="TEA"), brand.office())
    assert (found.product.display_name, found.product.base_unit) == ("Green tea", catalogue_pb2.BASE_UNIT_PIECE)
    with pytest.raises(Missing):
        await brand.catalogue.get_product(catalogue_pb2.GetProductRequest(sku="NONE"), brand.office())
    with pytest.raises(Missing) as refused:
        await brand.goods(product, catalogue_pb2.Product(sku="X", display_name="X", supplier_id="nobody"))
    assert (refused.value.reason, refused.value.metadata) == (
        "SUPPLIER_NOT_FOUND",
        {"field": "products[1].supplier_id"},
    )


async def test_a_store_posts_its_own_documents_only(brand: Brand) -> None:
    request = catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=RECEIPT,
        store_id="S1",
        lines=[catalogue_pb2.StockDocumentLine(sku="TEA", quantity=5)],
    )
    with pytest.raises(NotAllowed):
        await brand.stock.post_document(request, brand.call(store="S2"))
    await brand.stock.post_document(request, brand.call(store="S1"))


async def test_a_line_has_an_upper_end(brand: Brand) -> None:
    await brand.list_price("TEA", 10**12)
    with pytest.raises(Invalid):
        await brand.sell(brand.sale(brand.basket(line("1", "TEA", 2))))
