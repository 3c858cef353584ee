"""The till's one call: what it writes, what it answers twice, and what a broken link leaves behind."""

import asyncio
import random
import time
from dataclasses import replace

import pytest

from services.commerce.domain.saga import StepState
from services.commerce.usecases import saga
from services.commerce.usecases.placing import saga_of
from services.runtime.call import ActorKind
from services.runtime.errors import AlreadyExists, Invalid, Missing, NotAllowed, Refused, Unavailable
from services.runtime.holds import HoldState
from services.runtime.ids import MemberId, OrderId, new_id
from services.runtime.leases import DEFAULT_TTL_S
from siyu.commerce.v1 import order_pb2
from tests.store.commerce.conftest import CARD, NOON, Brand, TickingClock, card, cash, line

PAID = order_pb2.ORDER_STATE_PAID


async def test_a_sale_is_priced_paid_and_taken_from_stock(brand: Brand) -> None:
    brand.peers.offers.member_prices["TEA"] = 150
    sold = await brand.sell(
        brand.sale(brand.basket(line("1", "TEA", 2, 2000), line("2", "CUP", 1, 990)), cash(1000), card())
    )
    order = sold.order
    assert (order.state, order.shelf_minor, order.discount_minor, order.net_minor) == (PAID, 2990, 300, 2690)
    assert order.member_id == brand.member_id
    assert order.quoted_points == 26
    assert [(payment.tender, payment.amount_minor) for payment in order.payments] == [
        (order_pb2.TENDER_CASH, 1000),
        (order_pb2.TENDER_CARD, 1690),
    ]
    assert order.lines[0].discounts[0].source_id == "member-price"
    assert await brand.on_hand("TEA") == (8, 0)
    assert await brand.on_hand("CUP") == (4, 0)
    ((_, paid),) = await brand.events()
    assert (paid.order_id, paid.net_minor, len(paid.lines)) == (order.order_id, 2690, 2)
    assert paid.lines[0].category == "DRINKS"
    assert await brand.order(order.order_id) == order
    figures = (await brand.audited()).figures
    assert figures["commerce.net_minor"] == 2690


async def test_a_list_price_is_per_price_quantity_and_rounds_once_a_line(brand: Brand) -> None:
    await brand.list_price("RICE", 1299)
    await brand.list_price("RICE", 1199, channel="app")
    await brand.list_price("RICE", 999, store="S1")
    sold = await brand.sell(brand.sale(brand.basket(line("1", "RICE", 1500))))
    # 999 x 1.5 = 1498.5
    assert sold.order.shelf_minor == 1499
    assert sold.order.lines[0].price_source == order_pb2.PRICE_SOURCE_LIST


async def test_a_repeated_call_answers_the_same_and_sells_once(brand: Brand) -> None:
    sale, request_id = brand.sale(brand.basket(line("1", "TEA", 1, 500))), new_id()
    first = await brand.sell(sale, request_id=request_id)
    assert await brand.sell(sale, request_id=request_id) == first
    assert await brand.on_hand("TEA") == (9, 0)
    assert len(await brand.events()) == 1


async def test_fifty_parallel_repeats_sell_once(brand: Brand) -> None:
    sale, request_id = brand.sale(brand.basket(line("1", "TEA", 1, 500))), new_id()
    replies = await asyncio.gather(*(brand.sell(sale, request_id=request_id) for _ in range(50)))
    assert len({reply.SerializeToString() for reply in replies}) == 1
    assert await brand.on_hand("TEA") == (9, 0)
    await brand.audited()


async def test_one_number_is_one_sale_whoever_carries_it(brand: Brand) -> None:
    sale = brand.sale(brand.basket(line("1", "TEA", 1, 500)), number="A7")
    replies = await asyncio.gather(*(brand.sell(sale, client=f"till-{at % 3}") for at in range(12)))
    assert len({reply.order.order_id for reply in replies}) == 1
    assert await brand.on_hand("TEA") == (9, 0)
    with pytest.raises(AlreadyExists) as refused:
        await brand.sell(brand.sale(brand.basket(line("1", "TEA", 2, 1000)), number="A7"))
    assert (refused.value.reason, refused.value.metadata["field"]) == ("SALE_NUMBER_REUSED", "sale.sale_number")


async def test_a_number_under_another_id_answers_nobody_elses_sale(brand: Brand) -> None:
    """The same goods to another customer, or at another price, are another sale: the till counted wrongly."""
    await brand.list_price("TEA", 500)
    brand.peers.members.cards["9002"] = MemberId(new_id())
    own = brand.basket(line("1", "TEA", 1, 500))
    sold = await brand.sell(brand.sale(own, number="A8"))
    others = brand.basket(line("1", "TEA", 1, 500))
    others.identifier.value = "9002"
    for basket in (
        others,
        brand.basket(line("1", "TEA", 1, 500), member=False),
        brand.basket(line("1", "TEA", 1, 400)),
        brand.basket(line("1", "TEA", 1)),
    ):
        with pytest.raises(AlreadyExists) as refused:
            await brand.sell(brand.sale(basket, number="A8"))
        assert refused.value.reason == "SALE_NUMBER_REUSED"
    assert (await brand.sell(brand.sale(own, number="A8"))).order == sold.order
    # who became another member since is the same customer
    merged = brand.peers.members.cards[CARD] = MemberId(new_id())
    brand.peers.members.survivors[brand.member_id] = merged
    assert (await brand.sell(brand.sale(own, number="A8"))).order == sold.order
    assert await brand.on_hand("TEA") == (9, 0)
    await brand.audited()


async def test_a_half_done_sale_is_finished_for_nobody_else(brand: Brand) -> None:
    brand.peers.members.cards["9002"] = MemberId(new_id())
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.link.forget.append("points.hold")
    own, others = (brand.basket(line("1", "TEA", 1, 500), burn=100) for _ in range(2))
    others.identifier.value = "9002"
    with pytest.raises(Unavailable):
        await brand.sell(brand.sale(own, number="A9"))
    with pytest.raises(AlreadyExists) as refused:
        await brand.sell(brand.sale(others, number="A9"))
    assert refused.value.reason == "SALE_NUMBER_REUSED"
    assert (await brand.sell(brand.sale(own, number="A9"))).order.member_id == brand.member_id
    await brand.audited()


async def test_one_request_id_is_one_body(brand: Brand) -> None:
    request_id = new_id()
    await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 500))), request_id=request_id)
    with pytest.raises(AlreadyExists) as refused:
        await brand.sell(brand.sale(brand.basket(line("1", "CUP", 1, 500))), request_id=request_id)
    assert refused.value.reason == "REQUEST_ID_REUSED"


async def test_two_lines_of_one_sku_are_checked_together(brand: Brand) -> None:
    with pytest.raises(Refused) as refused:
        await brand.sell(brand.sale(brand.basket(line("1", "CUP", 3, 300), line("2", "CUP", 3, 300))))
    assert (refused.value.reason, refused.value.metadata) == (
        "OUT_OF_STOCK",
        {"sku": "CUP", "available": "5", "field": "sale.basket.lines[0].sku, sale.basket.lines[1].sku"},
    )
    assert await brand.on_hand("CUP") == (5, 0)
    assert await brand.events() == []


async def test_the_last_unit_is_sold_once_by_fifty_tills(brand: Brand) -> None:
    await brand.receive({"CUP": -4}, kind=3)
    sales = [
        brand.sale(brand.basket(line("1", "CUP", 1, 300), line("2", "TEA", 1, 100), member=False)) for _ in range(50)
    ]
    outcomes = await asyncio.gather(*(brand.sell(sale) for sale in sales), return_exceptions=True)
    sold = [outcome for outcome in outcomes if isinstance(outcome, order_pb2.SellResponse)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    assert (len(sold), len(refused)) == (1, 49)
    assert {refusal.reason for refusal in refused} == {"OUT_OF_STOCK"}
    assert await brand.on_hand("CUP") == (0, 0)
    assert await brand.on_hand("TEA") == (9, 0)
    await brand.audited()


async def test_a_refused_sale_is_told_to_nobody(brand: Brand) -> None:
    """No OrderPaid that has to be taken back: not for goods, a payment or a broken link."""
    brand.peers.points.balances[brand.member_id] = 300
    brand.peers.offers.coupons["TEN"] = (new_id(), 10)
    await brand.sell(brand.sale(brand.basket(line("1", "CUP", 1, 100), codes=["TEN"])))
    told = [name for name, _ in await brand.events()]
    brand.peers.points.link.lose.append("points.hold")
    refusals = [
        (brand.basket(line("1", "TEA", 11, 100)), cash(), Refused),
        (brand.basket(line("1", "TEA", 1, 100)), cash(99), Refused),
        (brand.basket(line("1", "TEA", 1, 100), burn=100), cash(), Unavailable),
    ]
    machine_now = brand.clock.now()
    # long ago, so that the sweeper gives up what the lost link left open
    brand.clock.at = NOON
    for basket, payment, error in refusals:
        with pytest.raises(error):
            await brand.sell(brand.sale(basket, payment))
    brand.clock.at = machine_now
    await brand.sweep()
    await brand.resume()
    after = [name for name, _ in await brand.events()]
    assert after.count("commerce.OrderPaid") == told.count("commerce.OrderPaid") == 1
    assert await brand.on_hand("TEA") == (10, 0)
    await brand.audited()


async def test_a_refusal_is_kept_for_its_request_id(brand: Brand) -> None:
    sale, request_id = brand.sale(brand.basket(line("1", "CUP", 6, 300))), new_id()
    for _ in range(2):
        with pytest.raises(Refused, match="5 units"):
            await brand.sell(sale, request_id=request_id)
    await brand.receive({"CUP": 10})
    with pytest.raises(Refused, match="5 units"):
        await brand.sell(sale, request_id=request_id)
    assert (await brand.sell(sale)).order.state == PAID


@pytest.mark.parametrize(
    ("basket", "reason"),
    [
        pytest.param({"sku": "NONE", "shelf": 1}, "PRODUCT_NOT_FOUND", id="unknown product"),
        pytest.param({"sku": "TEA"}, "PRICE_NOT_FOUND", id="no list price"),
    ],
)
async def test_what_the_catalogue_lacks_is_refused_by_its_line(
    brand: Brand, basket: dict[str, object], reason: str
) -> None:
    sale = brand.sale(brand.basket(line("1", "CUP", 1, 100), line("2", **basket)))  # type: ignore[arg-type]
    request_id = new_id()
    for _ in range(2):
        with pytest.raises(Missing) as refused:
            await brand.sell(sale, request_id=request_id)
        assert (refused.value.reason, refused.value.metadata) == (reason, {"field": "sale.basket.lines[1].sku"})
        assert "sale.basket.lines[1].sku" in refused.value.message


async def test_a_line_is_named_where_each_request_has_it(brand: Brand) -> None:
    await brand.list_price("CUP", 1_000_000_000_000)
    twice = brand.basket(line("1", "CUP", 1, 100), line("1", "TEA", 1, 100))
    dear = brand.basket(line("1", "TEA", 1, 100), line("2", "CUP", 2))
    for basket, field in ((twice, "basket.lines[1].line_id"), (dear, "basket.lines[1].quantity")):
        quote = order_pb2.QuoteOrderRequest(basket=basket)
        for ask, path in (
            (brand.orders.quote_order(quote, brand.call()), field),
            (brand.place(basket), field),
            (brand.sell(brand.sale(basket)), f"sale.{field}"),
        ):
            with pytest.raises(Invalid) as refused:
                await ask
            assert [told for told, _ in refused.value.violations] == [path]


async def test_every_unknown_product_of_a_document_is_told_by_its_line(brand: Brand) -> None:
    with pytest.raises(Missing) as refused:
        await brand.receive({"NONE": 1, "TEA": 1, "NEITHER": 1})
    assert refused.value.reason == "PRODUCT_NOT_FOUND"
    assert refused.value.metadata == {"field": "lines[0].sku, lines[2].sku"}
    assert refused.value.name == "NONE, NEITHER"


async def test_an_unknown_card_and_anothers_price_are_refused(brand: Brand) -> None:
    brand.peers.members.cards.pop(CARD)
    with pytest.raises(Missing) as refused:
        await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 100))))
    assert (refused.value.reason, refused.value.metadata["field"]) == ("MEMBER_NOT_FOUND", "sale.basket.identifier")
    assert refused.value.message.startswith("sale.basket.identifier: ")
    unreadable = brand.sale(brand.basket(line("1", "TEA", 1, 100)))
    unreadable.basket.identifier.value = "ABC"
    with pytest.raises(Invalid) as malformed:
        await brand.sell(unreadable)
    assert malformed.value.violations == (("sale.basket.identifier.value", "the value names nobody"),)
    request = order_pb2.QuoteOrderRequest(basket=brand.basket(line("1", "TEA", 1, 100), member=False))
    app = brand.call(kind=ActorKind.BACKEND, store="", scopes=frozenset({"commerce.orders.write"}))
    with pytest.raises(NotAllowed) as not_theirs:
        await brand.orders.quote_order(request, app)
    assert (not_theirs.value.reason, not_theirs.value.metadata["field"]) == (
        "PRICE_NOT_YOURS",
        "basket.lines[0].price_source",
    )
    with pytest.raises(NotAllowed) as out_of_scope:
        await brand.orders.quote_order(request, brand.call(store="S2"))
    assert (out_of_scope.value.reason, out_of_scope.value.metadata["field"]) == ("OUT_OF_SCOPE", "basket.store_id")


async def test_payments_that_do_not_sum_are_told_as_the_till_wrote_them(brand: Brand) -> None:
    sale = brand.sale(brand.basket(line("1", "TEA", 1, 384)))
    del sale.payments[:]
    sale.payments.append(cash(5))
    with pytest.raises(Refused) as refused:
        await brand.sell(sale)
    assert (refused.value.reason, refused.value.subject) == ("PAYMENT_MISMATCH", "sale.payments")
    assert refused.value.metadata == {"due_minor": "384", "field": "sale.payments"}


async def test_services_are_sold_without_stock(brand: Brand) -> None:
    assert (await brand.sell(brand.sale(brand.basket(line("1", "GIFT", 3, 300))))).order.net_minor == 300
    await brand.audited()


# --- points and coupons: two phases ---


async def test_points_and_a_coupon_are_held_and_captured(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.offers.coupons["C1"] = (new_id(), 200)
    basket = brand.basket(line("1", "TEA", 2, 1000), line("2", "CUP", 1, 400), burn=150, codes=["C1", "C2"])
    sold = await brand.sell(brand.sale(basket))
    order = sold.order
    assert (order.net_minor, order.burnt_points, order.discount_minor) == (1200, 150, 200)
    assert [(payment.tender, payment.amount_minor) for payment in order.payments] == [
        (order_pb2.TENDER_POINTS, 150),
        (order_pb2.TENDER_CASH, 1050),
    ]
    assert [(each.source_id, each.rejection_reason) for each in sold.candidates] == [
        ("C1", ""),
        ("C2", "COUPON_NOT_FOUND"),
    ]
    assert brand.peers.points.balances[brand.member_id] == 350
    assert set(brand.peers.points.holds.states.values()) == {HoldState.CAPTURED}
    assert set(brand.peers.offers.holds.states.values()) == {HoldState.CAPTURED}
    paid = next(event for name, event in await brand.events() if name == "commerce.OrderPaid")
    assert (paid.burnt_points, paid.points_tender_minor) == (150, 150)
    assert paid.points_hold_id in brand.peers.points.holds.states
    assert sum(each.accrual_base_minor for each in paid.lines) == 1050
    await brand.audited()


async def test_points_are_lowered_to_what_the_total_takes(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 5000
    sold = await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 300), burn=5000)))
    assert (sold.order.burnt_points, brand.peers.points.balances[brand.member_id]) == (300, 4700)
    assert [payment.tender for payment in sold.order.payments] == [order_pb2.TENDER_POINTS]
    await brand.audited()


async def test_a_refused_hold_undoes_the_other_and_gives_the_goods_back(brand: Brand) -> None:
    brand.peers.offers.coupons["C1"] = (new_id(), 100)
    sale, request_id = brand.sale(brand.basket(line("1", "CUP", 5, 500), burn=100, codes=["C1"]), number="N1"), new_id()
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            await brand.sell(sale, request_id=request_id)
        assert (refused.value.reason, refused.value.metadata["field"]) == (
            "INSUFFICIENT_POINTS",
            "sale.basket.burn_points",
        )
    assert await brand.on_hand("CUP") == (5, 0)
    assert set(brand.peers.offers.holds.states.values()) == {HoldState.VOIDED}
    assert brand.peers.offers.used == {}
    # the number is free again
    brand.peers.points.balances[brand.member_id] = 100
    assert (await brand.sell(sale)).order.state == PAID
    await brand.audited()


async def test_a_step_that_breaks_waits_for_its_own_time(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    link = brand.peers.link
    link.lose.append("points.capture")
    sold = await brand.sell(brand.sale(brand.basket(line("1", "GIFT", 1, 500), burn=100)))
    link.bugs.append("points.capture")
    await brand.resume()
    (step,) = (await saga_of(brand.shop, brand.call(), OrderId(sold.order.order_id)))[1]
    assert (step.state, step.attempts) == (StepState.CAPTURE_DUE, 2)
    link.bugs.clear()
    await brand.resume()
    await brand.audited()


async def test_a_round_of_the_worker_is_bounded_while_a_peer_hangs(brand: Brand) -> None:
    """Its lease is taken anew before a round, and not within: another worker would go through the same orders."""
    assert saga.ROUND_S + saga.WORKER_TIMEOUT_S < DEFAULT_TTL_S
    brand.peers.points.balances[brand.member_id] = 10_000
    link = brand.peers.link
    for _ in range(10):
        link.lose.append("points.capture")
        await brand.sell(brand.sale(brand.basket(line("1", "GIFT", 1, 500), burn=100)))
    link.hang_s, link.most_at_once = 0.5, 0
    began = time.monotonic()
    await brand.resume(round_s=0.25)
    assert time.monotonic() - began < 2.0
    assert 1 < link.most_at_once <= saga.MAX_AT_ONCE
    # what other brands have due is among what was begun
    captured = list(brand.peers.points.holds.states.values()).count(HoldState.CAPTURED)
    assert captured <= saga.MAX_AT_ONCE
    link.hang_s = 0.0
    await brand.resume()
    assert set(brand.peers.points.holds.states.values()) == {HoldState.CAPTURED}
    await brand.audited()


@pytest.mark.parametrize("broken", ["lose", "forget"])
@pytest.mark.parametrize("at", ["points.hold", "offers.hold"])
async def test_a_retry_goes_on_where_the_first_call_stopped(brand: Brand, at: str, broken: str) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.offers.coupons["C1"] = (new_id(), 100)
    getattr(brand.peers.link, broken).append(at)
    sale, request_id = brand.sale(brand.basket(line("1", "CUP", 2, 500), burn=100, codes=["C1"])), new_id()
    with pytest.raises(Unavailable):
        await brand.sell(sale, request_id=request_id)
    assert await brand.on_hand("CUP") == (5, 2)
    sold = await brand.sell(sale, request_id=request_id)
    assert (sold.order.state, sold.order.net_minor, sold.order.burnt_points) == (PAID, 400, 100)
    # the coupon was ours already, and is explained as it was when the sale was priced
    assert [(each.source_id, each.rejection_reason) for each in sold.candidates] == [("C1", "")]
    assert brand.peers.points.balances[brand.member_id] == 400
    assert await brand.on_hand("CUP") == (3, 0)
    await brand.audited()


@pytest.mark.parametrize("broken", ["lose", "forget"])
@pytest.mark.parametrize("at", ["points.capture", "offers.capture"])
async def test_a_capture_that_fails_is_the_workers(brand: Brand, at: str, broken: str) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.offers.coupons["C1"] = (new_id(), 100)
    getattr(brand.peers.link, broken).append(at)
    sold = await brand.sell(brand.sale(brand.basket(line("1", "CUP", 2, 500), burn=100, codes=["C1"])))
    assert sold.order.state == PAID
    await brand.resume()
    assert {*brand.peers.points.holds.states.values(), *brand.peers.offers.holds.states.values()} == {
        HoldState.CAPTURED
    }
    await brand.audited()


@pytest.mark.parametrize("at", ["points.hold", "offers.hold"])
async def test_a_retry_asks_for_the_very_same_holds(brand: Brand, at: str) -> None:
    """The peers compare bodies: a hold that says another time would be refused, and undo a sale that was going well."""
    brand.shop = replace(brand.shop, clock=TickingClock(brand.clock.now()))
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.offers.coupons["C1"] = (new_id(), 100)
    brand.peers.link.forget.append(at)
    sale, request_id = brand.sale(brand.basket(line("1", "CUP", 2, 500), burn=100, codes=["C1"])), new_id()
    with pytest.raises(Unavailable):
        await brand.sell(sale, request_id=request_id)
    assert (await brand.sell(sale, request_id=request_id)).order.state == PAID
    await brand.audited()


async def test_a_dead_orchestrator_leaves_nothing_held(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.offers.coupons["C1"] = (new_id(), 100)
    brand.peers.link.forget.append("points.hold")
    brand.peers.link.lose.append("offers.hold")
    sale, request_id = brand.sale(brand.basket(line("1", "CUP", 2, 500), burn=100, codes=["C1"])), new_id()
    machine_now = brand.clock.now()
    brand.clock.at = NOON
    with pytest.raises(Unavailable):
        await brand.sell(sale, request_id=request_id)
    brand.clock.at = machine_now
    brand.peers.link.lose += ["points.void"]
    assert (await brand.sweep()).expired >= 1
    assert await brand.on_hand("CUP") == (5, 0)
    await brand.resume()
    assert brand.peers.points.balances[brand.member_id] == 500
    # the void came before its hold: a hold that still arrives is refused
    assert set(brand.peers.offers.holds.states.values()) == {HoldState.TOMBSTONE}
    with pytest.raises(Refused) as refused:
        await brand.sell(sale, request_id=request_id)
    assert refused.value.reason == "ORDER_GIVEN_UP"
    assert (await brand.sell(sale)).order.state == PAID
    await brand.audited()


async def test_a_hold_that_expired_before_its_capture_is_an_alarm(brand: Brand) -> None:
    brand.peers.points.balances[brand.member_id] = 500
    brand.peers.link.lose.append("points.capture")
    sold = await brand.sell(brand.sale(brand.basket(line("1", "CUP", 2, 500), burn=100)))
    for hold_id in brand.peers.points.holds.states:
        brand.peers.points.holds.expire(hold_id)
    # by the worker and by a call that is late, of which each saw the step as due
    _, due = await saga_of(brand.shop, brand.call(), OrderId(sold.order.order_id))
    for _ in range(2):
        await saga.resolve(brand.shop, brand.call(), due)
    reply = await brand.pos.list_exceptions(order_pb2.ListExceptionsRequest(), brand.office())
    assert [(each.reason, each.order_id, each.difference) for each in reply.exceptions] == [
        ("HOLD_LOST", sold.order.order_id, 100)
    ]
    assert [finding.check for finding in (await brand.audit()).findings if not finding.ok] == [
        "commerce.sagas_are_resolved"
    ]


async def test_a_coupon_is_used_once_by_twenty_tills(brand: Brand) -> None:
    brand.peers.offers.coupons["C1"] = (new_id(), 100)
    await brand.receive({"TEA": 100})
    sales = [brand.sale(brand.basket(line("1", "TEA", 1, 500), codes=["C1"])) for _ in range(20)]
    outcomes = await asyncio.gather(*(brand.sell(sale) for sale in sales), return_exceptions=True)
    sold = [outcome for outcome in outcomes if isinstance(outcome, order_pb2.SellResponse)]
    assert len([each for each in sold if each.order.discount_minor]) == 1
    refused = {(each.reason, each.metadata["field"]) for each in outcomes if isinstance(each, Refused)}
    assert refused <= {("COUPON_HELD", "sale.basket.coupon_codes")}
    await brand.audited()


async def test_a_refusal_of_a_peer_is_kept_as_well(brand: Brand) -> None:
    sale, request_id = brand.sale(brand.basket(line("1", "TEA", 1, 500))), new_id()
    member_id = brand.peers.members.cards.pop(CARD)
    with pytest.raises(Missing):
        await brand.sell(sale, request_id=request_id)
    brand.peers.members.cards[CARD] = member_id
    with pytest.raises(Missing):
        await brand.sell(sale, request_id=request_id)
    assert (await brand.sell(sale)).order.state == PAID


@pytest.mark.parametrize("seed", range(3))
async def test_a_call_that_dies_at_any_moment_is_finished_by_its_repetition(brand: Brand, seed: int) -> None:
    chance = random.Random(seed)
    await brand.receive({"TEA": 1000})
    brand.peers.points.balances[brand.member_id] = 10_000
    for round_ in range(12):
        brand.peers.offers.coupons[f"C{round_}"] = (new_id(), 50)
        basket = brand.basket(line("1", "TEA", 2, 1000), burn=100, codes=[f"C{round_}"])
        sale, request_id = brand.sale(basket), new_id()
        for _ in range(chance.randrange(1, 4)):
            dying = asyncio.create_task(brand.sell(sale, request_id=request_id))
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)
        sold = await brand.sell(sale, request_id=request_id)
        assert (sold.order.state, sold.order.net_minor, sold.order.burnt_points) == (PAID, 950, 100)
    await brand.resume()
    assert brand.peers.points.balances[brand.member_id] == 10_000 - 12 * 100
    assert {*brand.peers.points.holds.states.values(), *brand.peers.offers.holds.states.values()} == {
        HoldState.CAPTURED
    }
    assert await brand.on_hand("TEA") == (1010 - 24, 0)
    assert len([name for name, _ in await brand.events() if name == "commerce.OrderPaid"]) == 12
    await brand.audited()
