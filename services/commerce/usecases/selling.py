"""The till's one call: identify, price, hold, pay and capture.

Where nothing has to be held the sale is one transaction. Else the order is placed first, with its goods reserved and
its saga as rows, so that whoever comes after a crash finds it: the repeated call goes on where the first one stopped,
the sweeper gives up what is never paid, and the worker captures what was.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.commerce.domain.freezing import settle_payments
from services.commerce.domain.naming import order_id_of
from services.commerce.domain.orders import PAID_STATES, Order, OrderState, Payment, PriceSource
from services.commerce.domain.refusals import SaleNumberReused, SaleRace
from services.commerce.domain.saga import Step, StepState
from services.commerce.store import known_sales
from services.commerce.store.known_sales import KnownSale
from services.commerce.store.orders import Attempt
from services.commerce.usecases import booking, placing, saga
from services.commerce.usecases.placing import Placed
from services.commerce.usecases.pricing import NO_GOODS, Basket, Goods, Priced, buyer_of, goods_of
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import DomainError
from services.runtime.idempotency import Once
from services.runtime.ids import OrderId

FAMILY: Final = "commerce.pos"
SELL_TTL_S: Final = 60
"""A till's order waits so long for a repeated call; then its holds go back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TillSale:
    """A till's sale; a last payment of 0 takes what remains."""

    till_id: str
    sale_number: str
    occurred_at: datetime | None
    basket: Basket
    payments: tuple[Payment, ...]


async def sell(shop: Shop, call: Call, sale: TillSale, once: Once[Placed]) -> bytes:
    """Makes the sale; the encoded answer, the same for a repeated call and for the same sale under another request id.

    Raises what the peers refuse, OccurredOutOfRange, OutOfStock, PaymentMismatch, SaleNumberReused; then nothing is
    held or sold.
    """
    placing.check_call(call, sale.basket, occurred_at=sale.occurred_at)
    return await placing.in_rounds(shop, once, lambda: _sell(shop, call, sale, once), basket=sale.basket)


async def find_sale(
    connection: Connection, call: Call, sale: TillSale, *, order_id: OrderId, request_key: str
) -> tuple[KnownSale, ...]:
    """What is known of the sale, by its request and by its number."""
    return await known_sales.find(
        connection,
        call.tenant_id,
        order_id,
        request_key=request_key,
        store_id=sale.basket.store_id,
        till_id=sale.till_id,
        sale_number=sale.sale_number,
    )


def of_number(known: Sequence[KnownSale], sale: TillSale, goods: bytes) -> KnownSale | None:
    """The sale that has the till's number, if any. Raises SaleNumberReused for other goods."""
    for each in known:
        if each.goods != goods:
            raise number_reused(sale, order_id=each.order_id)
        return each
    return None


def number_reused(sale: TillSale, *, order_id: OrderId) -> SaleNumberReused:
    """The refusal of a sale whose number is that of another order."""
    return SaleNumberReused(
        till_id=sale.till_id,
        sale_number=sale.sale_number,
        order_id=order_id,
        field=sale.basket.beside("sale_number"),
    )


async def _sell(shop: Shop, call: Call, sale: TillSale, once: Once[Placed]) -> bytes:
    basket = sale.basket
    order_id = order_id_of(call.tenant_id, call.client_id, FAMILY, once.request_id, sold_at=sale.occurred_at)
    attempt = placing.attempt_of(call, basket, once.fingerprint, ())

    async def prepare(connection: Connection) -> tuple[bool, tuple[KnownSale, ...], Goods]:
        answered = await placing.is_answered(connection, once)
        known = await find_sale(connection, call, sale, order_id=order_id, request_key=placing.key_of(once))
        goods = NO_GOODS
        if not (answered or known):
            goods = await goods_of(connection, call.tenant_id, basket, shop.open_stores)
        return answered, known, goods

    answered, found, goods = await shop.database.read(call.tenant_id, prepare, timeout_s=call.remaining_s())
    own = placing.own_of(found, once)
    if answered:
        return await placing.answer_of(shop, call, once, own)
    known = own or of_number(found, sale, attempt.goods)
    if known is not None:
        return await _go_on(shop, call, known.order_id, sale, once, own=known.own)
    priced = await placing.priced_basket(shop, call, basket, goods, occurred_at=sale.occurred_at)
    now = shop.now()
    wanted = saga.steps_of(priced, order_id=order_id, payment_ttl_s=SELL_TTL_S, issued_at=now)
    order = _order_of(priced, sale, order_id, wanted, now=now)
    if wanted:
        # refused before anything is held
        settle_payments(sale.payments, due_minor=order.due_minor, field=sale.basket.beside("payments"))
        attempt = replace(attempt, candidates=priced.candidates, request_key=placing.key_of(once))
        await _place(shop, call, order, attempt, wanted, once=once, now=now)
        return await _hold_and_pay(shop, call, order, wanted, sale=sale, once=once, own=True)
    paid = placing.as_paid(order, sale.payments, field=sale.basket.beside("payments"))

    async def book(connection: Connection) -> Placed:
        await booking.sell_at_once(connection, shop, call, paid, attempt=attempt)
        return Placed(order=paid, candidates=priced.candidates)

    return await once.run(shop.database, book)


def _order_of(priced: Priced, sale: TillSale, order_id: OrderId, wanted: Sequence[Step], *, now: datetime) -> Order:
    order = placing.order_from(priced, sale.basket, order_id=order_id, expires_at=now + timedelta(seconds=SELL_TTL_S))
    return replace(saga.with_hold_ids(order, wanted), till_id=sale.till_id, sale_number=sale.sale_number)


async def _place(
    shop: Shop,
    call: Call,
    order: Order,
    attempt: Attempt,
    wanted: Sequence[Step],
    *,
    once: Once[Placed],
    now: datetime,
) -> None:
    async def book(connection: Connection) -> None:
        if await placing.is_answered(connection, once):
            raise SaleRace
        await booking.place(connection, call, order, attempt=attempt, saga=wanted, placed_at=now)

    await shop.database.run(call.tenant_id, book, timeout_s=call.remaining_s())


async def _go_on(shop: Shop, call: Call, order_id: OrderId, sale: TillSale, once: Once[Placed], *, own: bool) -> bytes:
    """Answers a sale that is known; where it was left half done, does the rest."""
    stored, wanted = await placing.saga_of(shop, call, order_id)
    if own:
        placing.check_same_request(stored, once.fingerprint)
    elif not (_has_prices_of(stored.order, sale.basket) and await _is_buyer(shop, call, stored.order, sale.basket)):
        raise number_reused(sale, order_id=order_id)
    return await _hold_and_pay(shop, call, stored.order, wanted, sale=sale, once=once, own=own)


def _has_prices_of(order: Order, basket: Basket) -> bool:
    """Whether the till asks the prices that the order of the same goods has; off-line they may have been its own."""
    if order.offline:
        return True
    asked = {line.line_id: line for line in basket.lines}
    return all(
        line.price_source is asked[line.line_id].price_source
        and (line.price_source is not PriceSource.POS or line.shelf_minor == asked[line.line_id].shelf_minor)
        for line in order.lines
    )


async def _is_buyer(shop: Shop, call: Call, order: Order, basket: Basket) -> bool:
    """Whether who buys now is who bought, under whatever id; off-line a card may have been unknown."""
    buyer = await buyer_of(call, basket, shop.peers)
    if buyer == order.member_id or (order.offline and not order.member_id):
        return True
    return bool(buyer and order.member_id) and await shop.peers.members.survivor(call, order.member_id) == buyer


async def _hold_and_pay(
    shop: Shop, call: Call, order: Order, wanted: Sequence[Step], *, sale: TillSale, once: Once[Placed], own: bool
) -> bytes:
    order_id = order.order_id
    if order.state is OrderState.PENDING_PAYMENT:
        try:
            await saga.hold_all(shop, call, wanted, order)
        except DomainError as failure:
            if saga.is_refusal(failure):
                await placing.undo(shop, call, order_id, failure)
            raise

    async def finish(connection: Connection) -> Placed:
        now = await booking.locked(connection, call.tenant_id, order_id)
        placing.check_not_given_up(now)
        if now.order.state in PAID_STATES:
            return Placed(order=now.order, candidates=now.attempt.candidates)
        given = settle_payments(sale.payments, due_minor=now.order.due_minor, field=sale.basket.beside("payments"))
        paid = await booking.pay(connection, shop, call, now, given, held=True)
        return Placed(order=paid, candidates=now.attempt.candidates)

    if own:
        reply = await placing.answered_or_undone(shop, call, once, finish, order_id=order_id)
    else:
        # the order is another request's to undo
        reply = await once.run(shop.database, finish)
    if wanted and order.state is OrderState.PENDING_PAYMENT:
        await _capture(shop, call, wanted)
    return reply


async def _capture(shop: Shop, call: Call, wanted: Sequence[Step]) -> None:
    """Spends the holds of an order that was just paid; what fails is left to the worker."""
    due = [replace(step, state=StepState.CAPTURE_DUE) for step in wanted]
    await saga.resolve_inline(shop, call, due)
