"""When an on-line sale happened is about now: points, tiers, windows and statements go by it. A stock document tells of
what has been, like an off-line sale.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from services.runtime.errors import Invalid
from services.runtime.ids import new_id
from siyu.commerce.v1 import catalogue_pb2, order_pb2
from tests.store.commerce.conftest import NOON, STORE, Brand, line, stamp

TICK = timedelta(microseconds=1)


def basket(brand: Brand) -> order_pb2.Basket:
    return brand.basket(line("1", "TEA", 1, 500))


async def sell(brand: Brand, at: datetime) -> object:
    return await brand.sell(brand.sale(basket(brand), at=at))


async def place(brand: Brand, at: datetime) -> object:
    return await brand.place(basket(brand), occurred_at=stamp(at))


async def quote(brand: Brand, at: datetime) -> object:
    request = order_pb2.QuoteOrderRequest(basket=basket(brand), occurred_at=stamp(at))
    return await brand.orders.quote_order(request, brand.call())


CALLS = [pytest.param(each, id=each.__name__) for each in (sell, place, quote)]
Asking = Callable[[Brand, datetime], Awaitable[object]]


@pytest.mark.parametrize("asking", CALLS)
@pytest.mark.parametrize(
    "at",
    [
        pytest.param(NOON - timedelta(days=2) - TICK, id="more than two days ago"),
        pytest.param(NOON - timedelta(days=400), id="last year"),
        pytest.param(NOON + timedelta(minutes=10) + TICK, id="more than ten minutes ahead"),
        pytest.param(NOON + timedelta(hours=20), id="tomorrow"),
    ],
)
async def test_another_time_than_about_now_is_refused(brand: Brand, asking: Asking, at: datetime) -> None:
    with pytest.raises(Invalid) as refused:
        await asking(brand, at)
    told = "sale.occurred_at" if asking is sell else "occurred_at"
    assert (refused.value.reason, refused.value.violations[0][0]) == ("OCCURRED_OUT_OF_RANGE", told)
    assert refused.value.metadata == {
        "earliest": (NOON - timedelta(days=2)).isoformat(),
        "latest": (NOON + timedelta(minutes=10)).isoformat(),
    }
    assert (await brand.on_hand("TEA"), await brand.events()) == ((10, 0), [])


@pytest.mark.parametrize("asking", CALLS)
@pytest.mark.parametrize(
    "at",
    [
        pytest.param(NOON - timedelta(days=2), id="two days ago"),
        pytest.param(NOON - timedelta(hours=25), id="the start of a long day, at whose end a test clock stands"),
        pytest.param(NOON + timedelta(minutes=10), id="ten minutes ahead"),
    ],
)
async def test_about_now_is_taken(brand: Brand, asking: Asking, at: datetime) -> None:
    await asking(brand, at)
    await brand.audited()


async def test_a_repeated_call_is_answered_however_late_it_comes(brand: Brand) -> None:
    sale, request_id = brand.sale(basket(brand), at=NOON), new_id()
    sold = await brand.sell(sale, request_id=request_id)
    placing = new_id()
    placed = await brand.place(basket(brand), request_id=placing, occurred_at=stamp(NOON))
    await brand.move_clock(NOON + timedelta(days=3))
    assert await brand.sell(sale, request_id=request_id) == sold
    assert (await brand.sell(sale)).order == sold.order
    assert await brand.place(basket(brand), request_id=placing, occurred_at=stamp(NOON)) == placed
    with pytest.raises(Invalid):
        await brand.sell(brand.sale(basket(brand), at=NOON))


# --- stock documents ---

Y2K = datetime(2000, 1, 1, tzinfo=UTC)


def receipt(at: datetime) -> catalogue_pb2.PostDocumentRequest:
    return catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
        store_id=STORE,
        lines=[catalogue_pb2.StockDocumentLine(sku="TEA", quantity=1)],
        occurred_at=stamp(at),
    )


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), id="the first year"),
        pytest.param(Y2K - TICK, id="before the year 2000"),
        pytest.param(NOON + timedelta(days=1) + TICK, id="more than a day ahead"),
        pytest.param(datetime(9999, 12, 31, tzinfo=UTC), id="the last year"),
    ],
)
async def test_a_document_of_a_time_that_is_no_facts_posts_nothing(brand: Brand, at: datetime) -> None:
    with pytest.raises(Invalid) as refused:
        await brand.stock.post_document(receipt(at), brand.office())
    assert (refused.value.reason, refused.value.violations[0][0]) == ("OCCURRED_OUT_OF_RANGE", "occurred_at")
    assert refused.value.metadata == {
        "earliest": Y2K.isoformat(),
        "latest": (NOON + timedelta(days=1)).isoformat(),
    }
    assert await brand.on_hand("TEA") == (10, 0)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(Y2K, id="the year 2000"),
        pytest.param(NOON - timedelta(days=30), id="a month ago"),
        pytest.param(NOON + timedelta(days=1), id="a day ahead"),
    ],
)
async def test_a_document_says_when_it_happened(brand: Brand, at: datetime) -> None:
    await brand.stock.post_document(receipt(at), brand.office())
    request = catalogue_pb2.ListStockLinesRequest(store_id=STORE, sku="TEA", page_size=1)
    (posted,) = (await brand.stock.list_stock_lines(request, brand.office())).lines
    assert (posted.occurred_at, posted.on_hand_after) == (stamp(at), 11)
    await brand.audited()
