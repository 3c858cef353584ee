"""One request id is one answer: whatever else comes under it is refused, and leaves no order, reservation or hold."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from services.runtime.errors import AlreadyExists, DomainError, Refused, Unavailable
from services.runtime.holds import HoldState
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2
from tests.store.commerce.conftest import NOON, Brand, cash, line

Ask = Callable[..., Coroutine[Any, Any, order_pb2.Order]]
POINTS = 1000


async def sell(
    brand: Brand, request_id: str, *, units: int = 1, burn: int = 100, hours_ago: int = 0
) -> order_pb2.Order:
    basket = brand.basket(line("1", "CUP", units, 500), burn=burn)
    sale = brand.sale(basket, number=f"{request_id}-{hours_ago}", at=NOON - timedelta(hours=hours_ago))
    return (await brand.sell(sale, request_id=request_id)).order


async def place(
    brand: Brand, request_id: str, *, units: int = 1, burn: int = 100, hours_ago: int = 0
) -> order_pb2.Order:
    request = order_pb2.PlaceOrderRequest(
        request_id=request_id, basket=brand.basket(line("1", "CUP", units, 500), burn=burn)
    )
    request.occurred_at.FromDatetime(NOON - timedelta(hours=hours_ago))
    return (await brand.orders.place_order(request, brand.call())).order


both = pytest.mark.parametrize("ask", [pytest.param(sell, id="sell"), pytest.param(place, id="place")])


async def nothing_left(
    brand: Brand, *, orders: int = 0, on_hand: int = 5, reserved: int = 0, points: int = POINTS
) -> None:
    """So many orders that are not cancelled, and what they hold; the saga's own steps are done."""
    await brand.resume()
    listed = await brand.orders.list_orders(order_pb2.ListOrdersRequest(page_size=100), brand.office())
    living = [order for order in listed.orders if order.state != order_pb2.ORDER_STATE_CANCELLED]
    assert len(living) == orders
    assert await brand.on_hand("CUP") == (on_hand, reserved)
    assert brand.peers.points.balances[brand.member_id] == points
    await brand.audited()


@pytest.fixture(autouse=True)
def _with_points(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = POINTS


@both
async def test_what_was_refused_once_stays_refused_and_books_nothing(brand: Brand, ask: Ask) -> None:
    request_id = new_id()
    with pytest.raises(Refused, match="5 units"):
        await ask(brand, request_id, units=6)
    await brand.receive({"CUP": 10})
    for _ in range(2):
        with pytest.raises(Refused, match="5 units"):
            await ask(brand, request_id, units=6)
    assert brand.peers.points.holds.states == {}
    await nothing_left(brand, on_hand=15)


@both
async def test_another_time_under_the_same_id_is_another_body(brand: Brand, ask: Ask) -> None:
    request_id = new_id()
    first = await ask(brand, request_id)
    for hours_ago in (1, 2):
        with pytest.raises(AlreadyExists) as refused:
            await ask(brand, request_id, hours_ago=hours_ago)
        assert refused.value.reason == "REQUEST_ID_REUSED"
    assert await ask(brand, request_id) == first
    held = {"on_hand": 4} if ask is sell else {"reserved": 1}
    await nothing_left(brand, orders=1, points=POINTS - 100, **held)


@both
async def test_another_body_while_the_first_is_half_done_is_refused(brand: Brand, ask: Ask) -> None:
    request_id = new_id()
    brand.peers.link.forget.append("points.hold")
    with pytest.raises(Unavailable):
        await ask(brand, request_id)
    for other in ({"hours_ago": 1}, {"units": 2}, {"burn": 0}):
        with pytest.raises(AlreadyExists) as refused:
            await ask(brand, request_id, **other)
        assert refused.value.reason == "REQUEST_ID_REUSED"
    # the first goes on where it stopped
    await ask(brand, request_id)
    held = {"on_hand": 4} if ask is sell else {"reserved": 1}
    await nothing_left(brand, orders=1, points=POINTS - 100, **held)


@both
@pytest.mark.parametrize("burns", [(100,), (100, 0)], ids=["with holds", "with and without holds"])
async def test_of_many_bodies_at_once_one_is_placed(brand: Brand, ask: Ask, burns: tuple[int, ...]) -> None:
    request_id = new_id()
    outcomes = await asyncio.gather(
        *(ask(brand, request_id, burn=burns[at % len(burns)], hours_ago=at // 2) for at in range(12)),
        return_exceptions=True,
    )
    made = {outcome.order_id: outcome for outcome in outcomes if isinstance(outcome, order_pb2.Order)}
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {refusal.reason for refusal in refused if isinstance(refusal, DomainError)} == {"REQUEST_ID_REUSED"}
    ((_, order),) = made.items()
    held = {"on_hand": 4} if ask is sell else {"reserved": 1}
    await nothing_left(brand, orders=1, points=POINTS - order.burnt_points, **held)


async def test_an_id_of_another_call_of_the_family_places_nothing(brand: Brand) -> None:
    request_id = new_id()
    await brand.cancel((await place(brand, new_id())).order_id, request_id=request_id)
    with pytest.raises(AlreadyExists) as refused:
        await place(brand, request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    await nothing_left(brand)


async def test_an_id_that_another_call_takes_meanwhile_undoes_the_order(brand: Brand) -> None:
    other, request_id = await place(brand, new_id(), burn=0), new_id()
    brand.peers.link.meanwhile.append(lambda: brand.cancel(other.order_id, request_id=request_id))
    for _ in range(2):
        with pytest.raises(AlreadyExists) as refused:
            await place(brand, request_id)
        assert refused.value.reason == "REQUEST_ID_REUSED"
    assert set(brand.peers.points.holds.states.values()) == {HoldState.VOIDED}
    await nothing_left(brand)


async def test_an_order_whose_id_was_taken_while_its_call_was_dead_is_undone(brand: Brand) -> None:
    other, request_id = await place(brand, new_id(), burn=0), new_id()
    brand.peers.link.forget.append("points.hold")
    with pytest.raises(Unavailable):
        await place(brand, request_id)
    await brand.cancel(other.order_id, request_id=request_id)
    with pytest.raises(AlreadyExists) as refused:
        await place(brand, request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    await nothing_left(brand)


@both
async def test_a_twin_that_would_be_refused_answers_what_the_first_was_told(brand: Brand, ask: Ask) -> None:
    """The coupon, the last unit or the last place that the twin finds taken is taken by its own order."""
    request_id = new_id()
    twins: list[asyncio.Task[order_pb2.Order]] = []
    await brand.receive({"CUP": -4}, kind=3)

    async def twin() -> None:
        twins.append(asyncio.create_task(ask(brand, request_id)))
        await asyncio.sleep(0.05)

    brand.peers.link.meanwhile.append(twin)
    first = await ask(brand, request_id)
    assert await twins[0] == first
    held = {"on_hand": 0} if ask is sell else {"on_hand": 1, "reserved": 1}
    await nothing_left(brand, orders=1, points=POINTS - 100, **held)


async def test_a_payment_that_does_not_sum_under_another_id_leaves_the_first_its_sale(brand: Brand) -> None:
    basket, request_id = brand.basket(line("1", "CUP", 1, 500), burn=100), new_id()
    sale = brand.sale(basket, number="N1")
    brand.peers.link.forget.append("points.hold")
    with pytest.raises(Unavailable):
        await brand.sell(sale, request_id=request_id)
    with pytest.raises(Refused, match="due"):
        await brand.sell(brand.sale(basket, cash(399), number="N1"))
    assert (await brand.sell(sale, request_id=request_id)).order.state == order_pb2.ORDER_STATE_PAID
    await nothing_left(brand, orders=1, on_hand=4, points=POINTS - 100)
