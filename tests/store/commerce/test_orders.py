"""Place, pay, cancel, expire and refund: each race has one winner, and every refund is the inverse of its sale."""

import asyncio
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from services.commerce.usecases.sweeping import Sweeper
from services.runtime.call import ActorKind
from services.runtime.database import Connection, raw
from services.runtime.errors import AlreadyExists, Invalid, Missing, Refused, Unavailable
from services.runtime.holds import HoldState
from services.runtime.ids import new_id
from siyu.commerce.v1 import catalogue_pb2, order_pb2
from tests.store.commerce.conftest import NOON, Brand, TickingClock, card, cash, line


async def placed(brand: Brand, *, burn: int = 0) -> order_pb2.Order:
    basket = brand.basket(line("1", "TEA", 2, 1000), line("2", "CUP", 1, 400), burn=burn)
    return (await brand.place(basket)).order


async def test_a_placed_order_reserves_and_waits(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 300
    order = await placed(brand, burn=200)
    assert (order.state, order.version) == (order_pb2.ORDER_STATE_PENDING_PAYMENT, 1)
    assert order.HasField("expires_at")
    assert await brand.on_hand("TEA") == (10, 2)
    assert brand.peers.points.balances[brand.member_id] == 100
    paid = await brand.pay(order.order_id, cash(700), card(500))
    assert (paid.state, paid.version, paid.HasField("expires_at")) == (order_pb2.ORDER_STATE_PAID, 2, False)
    assert await brand.on_hand("TEA") == (8, 0)
    assert set(brand.peers.points.holds.states.values()) == {HoldState.CAPTURED}
    await brand.audited()


async def test_a_repeated_place_answers_the_first_reply_whatever_happened_since(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 300
    basket, request_id = brand.basket(line("1", "TEA", 1, 500), burn=100), new_id()
    first = await brand.place(basket, request_id=request_id)
    await brand.cancel(first.order.order_id)
    assert await brand.place(basket, request_id=request_id) == first
    with pytest.raises(AlreadyExists):
        await brand.place(brand.basket(line("1", "TEA", 2, 500), burn=100), request_id=request_id)
    assert brand.peers.points.balances[brand.member_id] == 300
    await brand.audited()


async def test_a_hold_that_is_asked_for_again_is_as_old_as_its_order(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 300
    basket, request_id, placed_at = brand.basket(line("1", "TEA", 1, 500), burn=100), new_id(), brand.clock.now()
    brand.peers.points.link.lose.append("points.hold")
    with pytest.raises(Unavailable):
        await brand.place(basket, request_id=request_id)
    brand.clock.advance(timedelta(minutes=5))
    await brand.place(basket, request_id=request_id)
    (step,) = brand.peers.points.holds.steps.values()
    assert step.issued_at == placed_at


async def test_a_placing_asks_for_the_very_same_holds_again(brand: Brand) -> None:
    brand.shop = replace(brand.shop, clock=TickingClock(brand.clock.now()))
    brand.peers.points.balances[brand.member_id] = 300
    basket, request_id = brand.basket(line("1", "TEA", 1, 500), burn=100), new_id()
    brand.peers.points.link.forget.append("points.hold")
    with pytest.raises(Unavailable):
        await brand.place(basket, request_id=request_id)
    order = (await brand.place(basket, request_id=request_id)).order
    assert order.state == order_pb2.ORDER_STATE_PENDING_PAYMENT
    await brand.audited()


async def test_the_total_that_the_customer_saw_is_kept(brand: Brand) -> None:
    basket = brand.basket(line("1", "TEA", 1, 500))
    with pytest.raises(Refused) as refused:
        await brand.place(basket, expected_due_minor=400)
    assert (refused.value.reason, refused.value.metadata) == (
        "TOTAL_CHANGED",
        {"due_minor": "500", "field": "expected_due_minor"},
    )
    assert (await brand.place(basket, expected_due_minor=500)).order.net_minor == 500


async def test_one_member_cannot_reserve_the_whole_shop(brand: Brand) -> None:
    """So many unpaid orders and no more, however parallel; who pays or cancels one may place another."""
    brand.shop = replace(brand.shop, max_open_orders=3)
    basket = brand.basket(line("1", "TEA", 1, 500))
    outcomes = await asyncio.gather(*(brand.place(basket) for _ in range(8)), return_exceptions=True)
    made = [outcome.order for outcome in outcomes if isinstance(outcome, order_pb2.PlaceOrderResponse)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert {(refusal.reason, refusal.metadata["limit"]) for refusal in refused} == {("TOO_MANY_OPEN_ORDERS", "3")}
    assert (len(made), len(refused), await brand.on_hand("TEA")) == (3, 5, (10, 3))
    await brand.pay(made[0].order_id)
    await brand.cancel(made[1].order_id)
    for _ in range(2):
        await brand.place(basket)
    request_id = new_id()
    for _ in range(2):
        with pytest.raises(Refused, match="wait for payment"):
            await brand.place(basket, request_id=request_id)
    # another customer, and a sale at the till, are not refused for it
    await brand.place(brand.basket(line("1", "TEA", 1, 500), member=False))
    await brand.sell(brand.sale(basket))
    await brand.audited()


async def test_one_client_cannot_reserve_the_whole_shop_for_guests(brand: Brand) -> None:
    """So many unpaid orders of nobody in particular in a store, however parallel; a till's sales go on beside them."""
    brand.shop = replace(brand.shop, max_open_guest_orders=3)
    brand.peers.stores.put("S2")
    guest = brand.basket(line("1", "TEA", 1, 500), member=False)
    # a till whose call died: its sale is placed, waits for the repeated call, and is not the guests'
    brand.peers.offers.coupons["TEN"] = (new_id(), 10)
    brand.peers.link.lose.append("offers.hold")
    died = brand.sale(brand.basket(line("1", "TEA", 1, 500), member=False, codes=["TEN"]))
    with pytest.raises(Unavailable):
        await brand.sell(died, request_id="died")
    outcomes = await asyncio.gather(*(brand.place(guest) for _ in range(8)), return_exceptions=True)
    made = [outcome.order for outcome in outcomes if isinstance(outcome, order_pb2.PlaceOrderResponse)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert {(each.reason, each.metadata["limit"], each.metadata["store_id"]) for each in refused} == {
        ("TOO_MANY_OPEN_GUEST_ORDERS", "3", "S1")
    }
    assert (len(made), len(refused), await brand.on_hand("TEA")) == (3, 5, (10, 4))
    # the till sells, with and without a hold; a member, another client and another store are not refused for it
    await brand.sell(brand.sale(guest))
    await brand.sell(died, request_id="died")
    await brand.place(brand.basket(line("1", "TEA", 1, 500)))
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=guest)
    await brand.orders.place_order(request, brand.call(client="till-2"))
    elsewhere = brand.basket(line("1", "GIFT", 1, 500), member=False)
    elsewhere.store_id = "S2"
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=elsewhere)
    await brand.orders.place_order(request, brand.call(client="till-1", store="", kind=ActorKind.BACKEND))
    # who pays or cancels one may place another; who was refused is told so again
    await brand.pay(made[0].order_id)
    await brand.cancel(made[1].order_id)
    for _ in range(2):
        await brand.place(guest)
    for _ in range(2):
        with pytest.raises(Refused, match="without a member"):
            await brand.place(guest, request_id="refused")
    await brand.audited()


async def test_a_basket_in_another_currency_is_refused(brand: Brand) -> None:
    basket = brand.basket(line("1", "TEA", 1, 500))
    basket.currency_code = "JPY"
    quote = order_pb2.QuoteOrderRequest(basket=basket)
    for ask, path in (
        (brand.orders.quote_order(quote, brand.call()), "basket"),
        (brand.place(basket), "basket"),
        (brand.sell(brand.sale(basket)), "sale.basket"),
    ):
        with pytest.raises(Invalid) as refused:
            await ask
        assert (refused.value.reason, refused.value.metadata) == ("CURRENCY_DIFFERS", {"currency_code": "CNY"})
        assert [field for field, _ in refused.value.violations] == [f"{path}.currency_code"]
    basket.currency_code = "CNY"
    assert (await brand.place(basket)).order.currency_code == "CNY"


async def test_a_payment_must_sum_and_is_made_once(brand: Brand) -> None:
    order = await placed(brand)
    with pytest.raises(Refused) as refused:
        await brand.pay(order.order_id, cash(1000))
    assert (refused.value.reason, refused.value.subject) == ("PAYMENT_MISMATCH", "payments")
    request_id = new_id()
    first = await brand.pay(order.order_id, card(), request_id=request_id)
    assert await brand.pay(order.order_id, card(), request_id=request_id) == first
    with pytest.raises(Refused) as twice:
        await brand.pay(order.order_id, card())
    assert twice.value.reason == "ORDER_NOT_PAYABLE"
    with pytest.raises(Refused) as cancelled:
        await brand.cancel(order.order_id)
    assert cancelled.value.reason == "ORDER_NOT_CANCELLABLE"
    await brand.audited()


async def test_parallel_payments_pay_once(brand: Brand) -> None:
    order = await placed(brand)
    same = new_id()
    outcomes = await asyncio.gather(
        *(brand.pay(order.order_id, request_id=same) for _ in range(10)),
        *(brand.pay(order.order_id) for _ in range(10)),
        return_exceptions=True,
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert {refusal.reason for refusal in refused} == {"ORDER_NOT_PAYABLE"}
    # either the repeated request won, and all ten answer, or one of the others did
    assert len(outcomes) - len(refused) in {1, 10}
    assert len([name for name, _ in await brand.events() if name == "commerce.OrderPaid"]) == 1
    assert await brand.on_hand("TEA") == (8, 0)
    await brand.audited()


@pytest.mark.parametrize("seed", range(4))
async def test_pay_cancel_and_expiry_race_to_one_end(brand: Brand, seed: int) -> None:
    brand.peers.points.balances[brand.member_id] = 300
    order = await placed(brand, burn=100)

    async def expire() -> None:
        await brand.sweep()

    rivals = [brand.pay(order.order_id), brand.cancel(order.order_id), expire(), brand.pay(order.order_id)]
    random.Random(seed).shuffle(rivals)
    await asyncio.gather(*rivals, return_exceptions=True)
    after = await brand.order(order.order_id)
    await brand.resume()
    if after.state == order_pb2.ORDER_STATE_PAID:
        assert (await brand.on_hand("TEA"), brand.peers.points.balances[brand.member_id]) == ((8, 0), 200)
    else:
        assert after.state == order_pb2.ORDER_STATE_CANCELLED
        assert (await brand.on_hand("TEA"), brand.peers.points.balances[brand.member_id]) == ((10, 0), 300)
    await brand.audited()


async def test_what_is_not_paid_in_time_goes_back(brand: Brand) -> None:
    machine_now = brand.clock.now()
    brand.clock.at = machine_now - timedelta(hours=1)
    order = await placed(brand)
    brand.clock.at = machine_now
    with pytest.raises(Refused) as late:
        await brand.pay(order.order_id)
    assert late.value.reason == "ORDER_NOT_PAYABLE"
    await brand.sweep()
    assert (await brand.order(order.order_id)).state == order_pb2.ORDER_STATE_CANCELLED
    assert await brand.on_hand("TEA") == (10, 0)
    assert [name for name, _ in await brand.events()] == ["commerce.OrderCancelled"]
    await brand.audited()


async def test_another_stores_order_is_not_there(brand: Brand) -> None:
    order = await placed(brand)
    elsewhere = brand.call(store="S2")
    for ask in (
        brand.orders.get_order(order_pb2.GetOrderRequest(order_id=order.order_id), elsewhere),
        brand.orders.pay_order(order_pb2.PayOrderRequest(request_id=new_id(), order_id=order.order_id), elsewhere),
        brand.orders.wait_for_order(order_pb2.WaitForOrderRequest(order_id=order.order_id), elsewhere),
    ):
        with pytest.raises(Missing) as refused:
            await ask
        assert refused.value.reason == "ORDER_NOT_FOUND"


async def test_orders_are_listed_newest_first_by_page(brand: Brand) -> None:
    ids = []
    for at in range(5):
        sale = brand.sale(brand.basket(line("1", "TEA", 1, 100)), at=NOON - timedelta(minutes=at))
        ids.append((await brand.sell(sale)).order.order_id)
    for asked in ({"store_id": "S1"}, {"member_id": brand.member_id}, {}):
        found: list[str] = []
        token = ""
        while True:
            request = order_pb2.ListOrdersRequest(page_size=2, page_token=token, **asked)
            reply = await brand.orders.list_orders(request, brand.office())
            found += [order.order_id for order in reply.orders]
            token = reply.next_page_token
            if not token:
                break
        assert found == ids
    with pytest.raises(Invalid):
        await brand.orders.list_orders(order_pb2.ListOrdersRequest(page_token="no"), brand.office())


async def test_an_order_id_sorts_by_when_it_was_sold(brand: Brand) -> None:
    later = await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 100)), at=NOON), request_id="a")
    earlier = await brand.sell(
        brand.sale(brand.basket(line("1", "TEA", 1, 100)), at=NOON - timedelta(hours=1)), request_id="b"
    )
    assert earlier.order.order_id < later.order.order_id


# --- refunds ---


async def test_a_refund_is_the_inverse_by_unit(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 1000
    basket = brand.basket(line("1", "TEA", 3, 1000), line("2", "CUP", 1, 101), burn=100)
    order = (await brand.sell(brand.sale(basket, cash(400), card()))).order
    amounts = []
    for units in ({"1": 1}, {"1": 1, "2": 1}, {"1": 1}):
        reply = await brand.refund(order.order_id, units)
        amounts.append((reply.refund.amount_minor, reply.refund.returned_points))
        assert sum(tender.amount_minor for tender in reply.refund.tenders) == reply.refund.amount_minor
    # 1000 in three units: 334, 333, 333
    assert [amount for amount, _ in amounts] == [334, 333 + 101, 333]
    assert sum(points for _, points in amounts) == 100
    after = await brand.order(order.order_id)
    assert after.refunded_minor == after.net_minor
    assert [payment.refunded_minor for payment in after.payments] == [
        payment.amount_minor for payment in after.payments
    ]
    assert await brand.on_hand("TEA") == (10, 0)
    refunds = [event for name, event in await brand.events() if name == "commerce.LineRefunded"]
    assert [event.whole_order for event in refunds] == [False, False, True]
    assert [unit.refunded_before for event in refunds for unit in event.lines if unit.line_id == "1"] == [0, 1, 2]
    found = await brand.orders.get_order(order_pb2.GetOrderRequest(order_id=order.order_id), brand.call())
    assert [refund.amount_minor for refund in found.refunds] == [amount for amount, _ in amounts]
    await brand.audited()


async def test_a_refund_asks_nobody_and_follows_no_new_price(brand: Brand) -> None:
    """It is the inverse of the sale, whatever promotions and prices say by then."""
    await brand.list_price("TEA", 1000)
    brand.peers.offers.member_prices["TEA"] = 100
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 2))))).order
    first = (await brand.refund(order.order_id, {"1": 1})).refund
    await brand.list_price("TEA", 3000)
    brand.peers.offers.member_prices["TEA"] = 2500
    brand.peers.offers.coupons["TEN"] = (new_id(), 1000)
    asked = len(brand.peers.offers.link.calls)
    second = (await brand.refund(order.order_id, {"1": 1})).refund
    assert [first.amount_minor, second.amount_minor] == [900, 900]
    assert brand.peers.offers.link.calls[asked:] == []
    await brand.audited()


async def test_a_unit_is_refunded_once_by_parallel_calls(brand: Brand) -> None:
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 3, 1000))))).order
    outcomes = await asyncio.gather(
        *(brand.refund(order.order_id, {"1": 1}) for _ in range(12)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert (len(outcomes) - len(refused), {refusal.reason for refusal in refused}) == (3, {"UNITS_ALREADY_REFUNDED"})
    assert (await brand.order(order.order_id)).refunded_minor == 1000
    await brand.audited()


async def test_a_repeated_refund_refunds_once(brand: Brand) -> None:
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 3, 1000))))).order
    request_id = new_id()
    first = await brand.refund(order.order_id, {"1": 2}, request_id=request_id)
    assert await brand.refund(order.order_id, {"1": 2}, request_id=request_id) == first
    with pytest.raises(Missing):
        await brand.refund(order.order_id, {"9": 1})
    assert (await brand.order(order.order_id)).refunded_minor == 667


async def test_goods_come_back_only_if_they_do(brand: Brand) -> None:
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 2, 1000), line("2", "GIFT", 1, 50))))).order
    await brand.refund(order.order_id, {"1": 1, "2": 1}, restock=False)
    assert await brand.on_hand("TEA") == (8, 0)
    await brand.refund(order.order_id, {"1": 1})
    assert await brand.on_hand("TEA") == (9, 0)
    reply = await brand.stock.list_stock_lines(
        catalogue_pb2.ListStockLinesRequest(store_id="S1", sku="TEA"), brand.call()
    )
    assert [(each.change, each.on_hand_after) for each in reply.lines] == [(1, 9), (-2, 8), (10, 10)]
    assert {each.order_id for each in reply.lines} == {order.order_id, ""}
    await brand.audited()


async def test_a_refund_happens_between_its_sale_and_tomorrow(brand: Brand) -> None:
    """Statements, tiers and windows go by it: neither before there was a sale, nor in a far future."""
    sold = brand.now - timedelta(days=2)
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 4, 1000)), at=sold))).order
    for at in (sold - timedelta(microseconds=1), brand.now + timedelta(days=1, microseconds=1)):
        with pytest.raises(Invalid) as refused:
            await brand.refund(order.order_id, {"1": 1}, at=at)
        assert refused.value.violations[0][0] == "occurred_at"
    for at in (sold, brand.now + timedelta(days=1)):
        await brand.refund(order.order_id, {"1": 1}, at=at)
    await brand.audited()


async def test_an_unpaid_order_is_not_refunded(brand: Brand) -> None:
    order = await placed(brand)
    with pytest.raises(Refused) as refused:
        await brand.refund(order.order_id, {"1": 1})
    assert refused.value.reason == "ORDER_NOT_PAID"


# --- what follows by event ---


async def test_waiting_tells_what_is_open(brand: Brand) -> None:
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 500))))).order
    request = order_pb2.WaitForOrderRequest(order_id=order.order_id, timeout_ms=100)
    reply = await brand.orders.wait_for_order(request, brand.call())
    assert (reply.settled, list(reply.open)) == (False, ["commerce/relay"])
    brand.peers.followers.queues.update({"loyalty/accrual": 0, "campaign/usage": 2**40})
    await brand.relay()
    reply = await brand.orders.wait_for_order(request, brand.call())
    assert (reply.settled, list(reply.open)) == (False, ["loyalty/accrual"])
    waiting = asyncio.create_task(
        brand.orders.wait_for_order(
            order_pb2.WaitForOrderRequest(order_id=order.order_id, timeout_ms=5000), brand.call()
        )
    )
    await asyncio.sleep(0.05)
    brand.peers.followers.queues["loyalty/accrual"] = 2**40
    assert (await waiting).settled


async def test_an_order_closes_when_its_return_window_is_over(brand: Brand) -> None:
    order = (await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 500))))).order
    # three days after 1 May ends at 24:00 of the 4th in Shanghai
    await brand.move_clock(NOON + timedelta(days=3, hours=11))
    await brand.sweep()
    assert (await brand.order(order.order_id)).state == order_pb2.ORDER_STATE_PAID
    await brand.move_clock(NOON + timedelta(days=3, hours=13))
    await brand.sweep()
    assert (await brand.order(order.order_id)).state == order_pb2.ORDER_STATE_CLOSED
    assert (await brand.refund(order.order_id, {"1": 1})).order.state == order_pb2.ORDER_STATE_CLOSED
    await brand.audited()


async def test_a_backend_sells_in_any_store(brand: Brand) -> None:
    await brand.list_price("TEA", 500)
    call = brand.call(client="app", store="", kind=ActorKind.BACKEND, scopes=frozenset({"commerce.orders.write"}))
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=brand.basket(line("1", "TEA", 2)))
    assert (await brand.orders.place_order(request, call)).order.net_minor == 1000
    quote = await brand.orders.quote_order(order_pb2.QuoteOrderRequest(basket=request.basket), call)
    assert (quote.due_minor, quote.quoted_points, quote.member_id) == (1000, 10, brand.member_id)


async def hold_is(brand: Brand, order_id: str, state: str) -> None:
    """Says of an order's stock hold what is not so, or is again: such an order can't be given up."""

    async def work(connection: Connection) -> None:
        await raw(connection).execute(
            "UPDATE stock_holds SET state = $3, resolved_at = CASE WHEN $3 <> 'held' THEN now() END"
            " WHERE tenant_id = $1::uuid AND order_id = $2::uuid",
            brand.tenant_id,
            order_id,
            state,
        )

    await brand.databases.app.run(brand.tenant_id, work)


async def test_as_many_broken_orders_as_a_round_takes_hide_no_others(brand: Brand) -> None:
    brand.clock.at = brand.clock.now() - timedelta(hours=1)
    broken, sound = [await placed(brand), await placed(brand)], await placed(brand)
    for each in broken:
        await hold_is(brand, each.order_id, "voided")
    brand.clock.advance(timedelta(hours=1))
    sweeper = Sweeper(shop=brand.shop, system=brand.databases.system, max_due=2)
    for _ in range(3):
        await sweeper.round()
    assert (await brand.order(sound.order_id)).state == order_pb2.ORDER_STATE_CANCELLED
    # and they have their turn again
    for each in broken:
        await hold_is(brand, each.order_id, "held")
    for _ in range(3):
        await sweeper.round()
    assert {(await brand.order(each.order_id)).state for each in broken} == {order_pb2.ORDER_STATE_CANCELLED}
    await brand.audited()


async def test_a_broken_order_keeps_no_other_waiting(brand: Brand) -> None:
    """It is a bug or a damaged row, told with its stack; the sweeper, and whatever shares its process, goes on."""
    brand.clock.at = brand.clock.now() - timedelta(hours=1)
    broken, sound = await placed(brand), await placed(brand)
    await hold_is(brand, broken.order_id, "voided")
    brand.clock.advance(timedelta(hours=1))
    await brand.sweep()
    assert (await brand.order(sound.order_id)).state == order_pb2.ORDER_STATE_CANCELLED
    assert (await brand.order(broken.order_id)).state == order_pb2.ORDER_STATE_PENDING_PAYMENT
    await hold_is(brand, broken.order_id, "held")
    await brand.sweep()
    assert (await brand.order(broken.order_id)).state == order_pb2.ORDER_STATE_CANCELLED
    await brand.audited()
