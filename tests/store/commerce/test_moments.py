"""When an on-line sale happened is about now: points, tiers, windows and statements go by it."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from services.runtime.errors import Invalid
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2
from tests.store.commerce.conftest import NOON, Brand, line, stamp

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
    assert (refused.value.reason, refused.value.violations[0][0]) == ("OCCURRED_OUT_OF_RANGE", "occurred_at")
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
