"""Statements: closed once, payable after the return window, claw-backs netted, a negative carried; payouts."""

import asyncio
import contextlib
import random
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from services.runtime.call import Call
from services.runtime.errors import Invalid, Missing, NotAllowed, Refused
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2, statement_pb2, supplier_pb2
from tests.store.commerce.conftest import NOON, Brand, card, cash, line, with_sources, with_supplier
from tests.store.commerce.test_suppliers import accept, asked, deliver, reject, ship

SUPPLIER, BRAND, GUIDE = supplier_pb2.PARTY_KIND_SUPPLIER, supplier_pb2.PARTY_KIND_BRAND, supplier_pb2.PARTY_KIND_GUIDE
NOTHING, DUE = statement_pb2.PAYOUT_STATE_NOTHING, statement_pb2.PAYOUT_STATE_DUE
PAID, RETURNED = statement_pb2.PAYOUT_STATE_PAID, statement_pb2.PAYOUT_STATE_RETURNED


def day(after: int) -> str:
    return (NOON + timedelta(days=after)).date().isoformat()


async def close(
    brand: Brand,
    to_day: str,
    *,
    party: supplier_pb2.PartyKind.ValueType = SUPPLIER,
    party_id: str = "florist",
    call: Call | None = None,
    request_id: str = "",
) -> statement_pb2.ClosedStatement:
    request = statement_pb2.CloseStatementRequest(
        request_id=request_id or new_id(), party_kind=party, party_id=party_id, to_day=to_day
    )
    return (await brand.statements.close_statement(request, call or brand.office())).statement


async def lines_of(brand: Brand, statement_id: str) -> list[statement_pb2.StatementLine]:
    request = statement_pb2.ListStatementLinesRequest(statement_id=statement_id, page_size=2)
    found: list[statement_pb2.StatementLine] = []
    while True:
        reply = await brand.statements.list_statement_lines(request, brand.office())
        found += reply.lines
        request.page_token = reply.next_page_token
        if not reply.next_page_token:
            return found


async def pay(
    brand: Brand, statement_id: str, state: statement_pb2.PayoutState.ValueType, reference: str = "B-1"
) -> statement_pb2.ClosedStatement:
    request = statement_pb2.RecordPayoutRequest(
        request_id=new_id(), statement_id=statement_id, payout_state=state, reference=reference
    )
    return (await brand.statements.record_payout(request, brand.office())).statement


async def delivered(brand: Brand, *goods: order_pb2.BasketLine, guide: str = "") -> str:
    """An order whose goods were shipped and arrived; its return window runs from the sale."""
    order_id, supplier_order = await asked(brand, *(goods or (line("1", "ROSE", 3, 1000),)), guide=guide)
    await accept(brand, supplier_order, {})
    (parcel,) = (await ship(brand, supplier_order, {})).parcels
    await deliver(brand, supplier_order, parcel.parcel_no)
    return order_id


async def at_day(brand: Brand, after: int) -> None:
    """The brand's clock at noon of a day, and what time does by then."""
    await brand.move_clock(NOON + timedelta(days=after))
    await brand.sweep()


async def test_nothing_is_payable_before_the_return_window_is_over(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (4, "5"), (2, "25")))
    await delivered(brand, guide="G7")
    # the window is the day of the sale and three more
    await at_day(brand, 3)
    early = await close(brand, day(2), party=GUIDE, party_id="G7")
    assert (early.payable_minor, early.line_count, early.payout_state) == (0, 0, NOTHING)
    await at_day(brand, 4)
    guide = await close(brand, day(3), party=GUIDE, party_id="G7")
    assert (guide.payable_minor, guide.earned_minor, guide.line_count) == (50, 50, 1)
    assert (guide.from_day, guide.to_day, guide.statement_no) == (day(3), day(3), 2)
    assert (await close(brand, day(3))).payable_minor == 700
    await brand.audited()


async def test_what_is_still_under_way_is_not_payable(brand: Brand) -> None:
    await with_supplier(brand)
    _, supplier_order = await asked(brand, line("1", "ROSE", 3, 1000))
    await accept(brand, supplier_order, {})
    await brand.move_clock(NOON + timedelta(days=19))
    shipped = await ship(brand, supplier_order, {})
    await at_day(brand, 20)
    assert (await close(brand, day(19))).line_count == 0
    await deliver(brand, supplier_order, shipped.parcels[0].parcel_no)
    await at_day(brand, 21)
    assert (await close(brand, day(20))).earned_minor == 725
    await brand.audited()


async def refused_after_the_window(brand: Brand, at: datetime, *, rerouted: bool) -> None:
    """A florist with more time to answer than a customer has to bring the goods back refuses at `at`."""
    await with_supplier(brand, split=((1, "70"), (2, "30")), within_s=30 * 86_400)
    if rerouted:
        await with_sources(brand)
    _, first = await asked(brand, line("1", "ROSE", 3, 1000))
    await brand.move_clock(at)
    await reject(brand, first)
    if rerouted:
        await brand.fulfil()
        (second,) = await brand.supplier_orders("butcher")
        butcher = brand.supplier_call("butcher")
        await accept(brand, second, {}, butcher)
        (parcel,) = (await ship(brand, second, {}, butcher)).parcels
        await deliver(brand, second, parcel.parcel_no, call=butcher)
    await brand.move_clock(at + timedelta(hours=1))
    await brand.sweep()


MIDNIGHT = NOON.astimezone(ZoneInfo("Asia/Shanghai")).replace(hour=0)


@pytest.mark.parametrize("rerouted", [pytest.param(True, id="re-routed"), pytest.param(False, id="refunded")])
@pytest.mark.parametrize(
    "at",
    [
        pytest.param(NOON + timedelta(days=9), id="at noon"),
        pytest.param(MIDNIGHT + timedelta(days=9), id="at the end of the day before"),
    ],
)
async def test_nothing_is_paid_for_goods_that_are_refused_later(brand: Brand, at: datetime, rerouted: bool) -> None:
    await refused_after_the_window(brand, at, rerouted=rerouted)
    # the window was over by then, the florist's answer was not there
    early = await close(brand, day(8))
    assert (early.line_count, early.payable_minor) == (0, 0)
    await at_day(brand, 10)
    florist = await close(brand, day(9))
    assert (florist.line_count, florist.earned_minor, florist.clawed_back_minor) == (2, 0, 0)
    if rerouted:
        assert (await close(brand, day(9), party_id="butcher")).payable_minor == 700
    await brand.audited()


async def test_a_period_is_closed_once(brand: Brand) -> None:
    await with_supplier(brand)
    await delivered(brand)
    await at_day(brand, 20)
    with pytest.raises(Refused) as not_over:
        await close(brand, day(20))
    assert not_over.value.reason == "PERIOD_NOT_OVER"
    found = await asyncio.gather(*(close(brand, day(19)) for _ in range(4)))
    assert all(each == found[0] for each in found)
    assert found[0].payable_minor == 725
    with pytest.raises(Refused) as closed:
        await close(brand, day(18))
    assert (closed.value.reason, closed.value.metadata) == ("PERIOD_CLOSED", {"closed_to_day": day(19)})
    with pytest.raises(Missing) as unknown:
        await close(brand, day(19), party_id="stranger")
    assert unknown.value.reason == "PARTY_NOT_FOUND"
    with pytest.raises(Invalid):
        await close(brand, "2026-02-30")
    await at_day(brand, 30)
    # the next period holds nothing twice
    assert (await close(brand, day(29))).line_count == 0
    await brand.audited()


async def test_a_refund_after_the_payout_is_clawed_back_and_a_negative_carried(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    order_id = await delivered(brand)
    await at_day(brand, 15)
    first = await close(brand, day(14))
    assert first.payable_minor == 700
    # two of three units come back after the payout
    await brand.refund(order_id, {"1": 2})
    await at_day(brand, 16)
    second = await close(brand, day(15))
    assert (second.earned_minor, second.clawed_back_minor) == (0, 467)
    assert (second.payable_minor, second.carried_out_minor, second.payout_state) == (0, -467, NOTHING)
    (line_,) = await lines_of(brand, second.statement_id)
    assert (line_.claw_back, line_.entry.amount_minor, line_.entry.order_id) == (True, -467, order_id)
    await delivered(brand)
    await at_day(brand, 31)
    third = await close(brand, day(30))
    assert (third.carried_in_minor, third.earned_minor, third.payable_minor) == (-467, 700, 233)
    # the rest comes back: all that was ever paid is what is left
    await brand.refund(order_id, {"1": 1})
    await at_day(brand, 32)
    fourth = await close(brand, day(31))
    assert (fourth.clawed_back_minor, fourth.carried_out_minor) == (233, -233)
    # paid 700 and 233, carried -233: the share of the one order that is left
    assert first.payable_minor + third.payable_minor + fourth.carried_out_minor == 700
    await brand.audited()


async def test_a_refund_before_the_payout_is_no_claw_back(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    order_id = await delivered(brand)
    await brand.refund(order_id, {"1": 1})
    await at_day(brand, 15)
    statement = await close(brand, day(14))
    assert (statement.earned_minor, statement.clawed_back_minor, statement.line_count) == (466, 0, 2)
    assert [each.claw_back for each in await lines_of(brand, statement.statement_id)] == [False, False]
    await brand.audited()


async def test_who_ships_is_paid(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    await with_sources(brand)
    _, first = await asked(brand, line("1", "ROSE", 3, 1000))
    await reject(brand, first)
    await brand.fulfil()
    (second,) = await brand.supplier_orders("butcher")
    butcher = brand.supplier_call("butcher")
    await accept(brand, second, {}, butcher)
    (parcel,) = (await ship(brand, second, {}, butcher)).parcels
    await deliver(brand, second, parcel.parcel_no, call=butcher)
    await at_day(brand, 15)
    florist, paid = await close(brand, day(14)), await close(brand, day(14), party_id="butcher")
    assert (florist.payable_minor, florist.line_count) == (0, 2)
    assert paid.payable_minor == 700
    await brand.audited()


async def test_a_returned_payout_is_paid_again(brand: Brand) -> None:
    await with_supplier(brand)
    await delivered(brand)
    await at_day(brand, 15)
    statement = await close(brand, day(14))
    with pytest.raises(Refused) as not_paid:
        await pay(brand, statement.statement_id, RETURNED)
    assert not_paid.value.reason == "PAYOUT_NOT_PAID"
    for state, reference in ((PAID, "B-1"), (RETURNED, "R-1"), (PAID, "B-2")):
        told = await pay(brand, statement.statement_id, state, reference)
        assert (told.payout_state, told.payout_reference) == (state, reference)
    at_once = await asyncio.gather(
        *(pay(brand, statement.statement_id, state) for state in (PAID, RETURNED, RETURNED)), return_exceptions=True
    )
    assert sum(isinstance(each, Refused) for each in at_once) >= 1
    with pytest.raises(Missing) as unknown:
        await pay(brand, new_id(), PAID)
    assert unknown.value.reason == "STATEMENT_NOT_FOUND"
    # a statement that pays nothing
    await at_day(brand, 16)
    nothing = await close(brand, day(15))
    with pytest.raises(Refused) as not_due:
        await pay(brand, nothing.statement_id, PAID)
    assert not_due.value.reason == "PAYOUT_NOT_DUE"
    await brand.audited()


async def test_a_supplier_reads_its_own_statements_only(brand: Brand) -> None:
    await with_supplier(brand)
    await delivered(brand)
    closed = []
    for after in (15, 16, 17):
        await at_day(brand, after)
        closed.append(await close(brand, day(after - 1)))
    request = statement_pb2.ListClosedStatementsRequest(party_kind=SUPPLIER, party_id="florist", page_size=2)
    first = await brand.statements.list_closed_statements(request, brand.supplier_call())
    request.page_token = first.next_page_token
    second = await brand.statements.list_closed_statements(request, brand.supplier_call())
    assert [*first.statements, *second.statements] == closed[::-1]
    stranger = brand.supplier_call("butcher")
    request.page_token = ""
    with pytest.raises(NotAllowed):
        await brand.statements.list_closed_statements(request, stranger)
    with pytest.raises(Missing):
        await brand.statements.list_statement_lines(
            statement_pb2.ListStatementLinesRequest(statement_id=closed[0].statement_id), stranger
        )
    own = await brand.statements.list_statement_lines(
        statement_pb2.ListStatementLinesRequest(statement_id=closed[0].statement_id), brand.supplier_call()
    )
    assert [each.entry.amount_minor for each in own.lines] == [725]


@pytest.mark.parametrize("seed", range(3))
async def test_statements_sum_to_the_ledger_whatever_happens(brand: Brand, seed: int) -> None:
    chance = random.Random(seed)
    await with_supplier(brand, split=((1, "72.5"), (4, "5"), (2, "22.5")))
    parties = ((SUPPLIER, "florist"), (GUIDE, "G7"), (BRAND, "brand"))
    orders: list[str] = []
    paid = dict.fromkeys(parties, 0)
    carried = dict.fromkeys(parties, 0)
    held = dict.fromkeys(parties, 0)
    now = 0
    for _ in range(14):
        now += chance.randint(1, 9)
        await at_day(brand, now)
        if chance.random() < 0.6:
            goods = line("1", "ROSE", 3, chance.randint(1, 3000)), line("2", "TULIP", 2, chance.randint(0, 900))
            orders.append(await delivered(brand, *goods, guide="G7"))
        for _ in range(chance.randint(0, 2)):
            if orders:
                with contextlib.suppress(Refused):
                    await brand.refund(chance.choice(orders), {chance.choice(("1", "2")): 1})
        party, party_id = chosen = chance.choice(parties)
        if not orders:
            continue
        statement = await close(brand, day(now - 1), party=party, party_id=party_id)
        lines = await lines_of(brand, statement.statement_id)
        assert statement.carried_in_minor == carried[chosen]
        assert sum(each.entry.amount_minor for each in lines) == statement.earned_minor - statement.clawed_back_minor
        for each in lines:
            assert sum(part.amount_minor for part in each.entry.payments) == each.entry.amount_minor
        paid[chosen] += statement.payable_minor
        carried[chosen] = statement.carried_out_minor
        held[chosen] += sum(each.entry.amount_minor for each in lines)
        assert paid[chosen] + carried[chosen] == held[chosen]
        await brand.audited()
    # everything comes back, and every window is over: what was paid is what is carried
    for order_id in orders:
        left = {each.line_id: each.quantity - each.refunded_quantity for each in (await brand.order(order_id)).lines}
        rest = {line_id: units for line_id, units in left.items() if units}
        if rest:
            await brand.refund(order_id, rest)
    await at_day(brand, now + 30)
    for party, party_id in parties:
        if orders:
            last = await close(brand, day(now + 29), party=party, party_id=party_id)
            assert last.payable_minor == 0 or last.carried_out_minor == 0
    await brand.audited()
    for party, party_id in parties:
        request = statement_pb2.ListClosedStatementsRequest(party_kind=party, party_id=party_id, page_size=100)
        every = (await brand.statements.list_closed_statements(request, brand.office())).statements
        assert sum(each.payable_minor for each in every) + every[0].carried_out_minor == 0


async def test_payments_of_an_entry_stand_on_the_statement(brand: Brand) -> None:
    await with_supplier(brand, split=((1, "70"), (2, "30")))
    order = (await brand.sell(brand.sale(brand.basket(line("1", "ROSE", 1, 1000)), card(600), cash()))).order
    await brand.fulfil()
    (supplier_order,) = await brand.supplier_orders()
    await accept(brand, supplier_order, {})
    (parcel,) = (await ship(brand, supplier_order, {})).parcels
    await deliver(brand, supplier_order, parcel.parcel_no)
    await at_day(brand, 15)
    (line_,) = await lines_of(brand, (await close(brand, day(14))).statement_id)
    assert line_.entry.order_id == order.order_id
    assert [(each.tender, each.amount_minor) for each in line_.entry.payments] == [
        (order_pb2.TENDER_CARD, 420),
        (order_pb2.TENDER_CASH, 280),
    ]
