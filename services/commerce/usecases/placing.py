"""Quote, place, pay and cancel: an order's way to its payment, one step a call."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.commerce.domain.freezing import settle_payments
from services.commerce.domain.moments import check_in_time, check_tellable
from services.commerce.domain.naming import goods_fingerprint, order_id_of, request_key_of
from services.commerce.domain.orders import (
    DEFAULT_PAYMENT_TTL_S,
    PAID_STATES,
    Order,
    OrderState,
    Payment,
)
from services.commerce.domain.refusals import (
    OrderGivenUp,
    SaleRace,
    TooManyOpenGuestOrders,
    TooManyOpenOrders,
    TotalChanged,
    UnknownOrder,
)
from services.commerce.domain.saga import Step, StepEvent, StepState, advance
from services.commerce.store import known_sales, open_orders, orders, requests, steps
from services.commerce.store.known_sales import KnownSale
from services.commerce.store.orders import Attempt, Stored
from services.commerce.usecases import booking, saga, stores
from services.commerce.usecases.peers import Candidate
from services.commerce.usecases.pricing import (
    Basket,
    Goods,
    Priced,
    buyer_of,
    check_basket,
    check_goods,
    goods_of,
    price,
    with_field,
)
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import AlreadyExists, DomainError, NotAllowed, Refused
from services.runtime.idempotency import REQUEST_ID_REUSED, Once, refusal_from_json
from services.runtime.ids import OrderId

FAMILY: Final = "commerce.orders"
GIVEN_UP: Final = "not paid in time"
MAX_ROUNDS: Final = 3
"""How often a call looks again after another made the same order or claimed its request at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An order with the candidates of its pricing."""

    order: Order
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """An order to place; `payment_ttl_s` 0 takes the default, and `expected_due_minor` None asks for no total."""

    basket: Basket
    occurred_at: datetime | None
    payment_ttl_s: int
    expected_due_minor: int | None


async def quote(shop: Shop, call: Call, basket: Basket, *, occurred_at: datetime | None) -> Priced:
    """Prices a basket and stores nothing."""
    check_call(call, basket, occurred_at=occurred_at)

    async def read(connection: Connection) -> Goods:
        return await goods_of(connection, call.tenant_id, basket, shop.open_stores)

    goods = await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())
    return await priced_basket(shop, call, basket, goods, occurred_at=occurred_at)


def check_call(call: Call, basket: Basket, *, occurred_at: datetime | None) -> None:
    """What is wrong with an on-line call, the first as well as a repeated one.

    Raises what check_basket does, and OccurredOutOfRange for a time that is ahead or before the year 2000.
    """
    check_basket(call, basket)
    if occurred_at is not None:
        check_tellable(occurred_at, now=call.now, field=basket.beside("occurred_at"))


async def priced_basket(
    shop: Shop, call: Call, basket: Basket, goods: Goods, *, occurred_at: datetime | None
) -> Priced:
    """The basket with every share frozen, for a caller who may be refused: nothing was sold for this call before."""
    if occurred_at is not None:
        check_in_time(occurred_at, now=call.now, field=basket.beside("occurred_at"))
    if not goods.store_is_open:
        await stores.check_with_identity(shop, call, basket.store_id, field=basket.field("store_id"))
    check_goods(basket, goods)
    currency_code = await shop.currency_for(call, basket.currency_code, field=basket.field("currency_code"))
    member_id = await buyer_of(call, basket, shop.peers)
    return await price(
        call,
        basket,
        goods,
        shop.peers,
        member_id=member_id,
        occurred_at=occurred_at or call.now,
        currency_code=currency_code,
    )


async def place(shop: Shop, call: Call, placing: Placing, once: Once[Placed]) -> bytes:
    """Places the order and holds everything for it; the encoded answer, the same for a repeated request.

    Raises what the peers refuse, OccurredOutOfRange, OutOfStock, TotalChanged, TooManyOpenOrders,
    TooManyOpenGuestOrders; then nothing is held.
    """
    check_call(call, placing.basket, occurred_at=placing.occurred_at)
    return await in_rounds(shop, once, lambda: _place(shop, call, placing, once), basket=placing.basket)


async def in_rounds(
    shop: Shop, once: Once[Placed], attempt: Callable[[], Awaitable[bytes]], *, basket: Basket
) -> bytes:
    """What the attempt answers, repeated where another call was first; a refusal is kept for the request id."""
    for _ in range(MAX_ROUNDS):
        try:
            try:
                return await attempt()
            except DomainError as refusal:
                return await told(shop, once, refusal)
        except SaleRace:
            # the other is there now
            continue
        except Refused as refusal:
            raise with_field(refusal, basket) from refusal
    raise SaleRace


async def told(shop: Shop, once: Once[Placed], refusal: DomainError) -> bytes:
    """Raises the refusal, kept as the answer to its request id wherever on the way it arose.

    A delayed duplicate must not succeed after the caller was told no; one that was answered before gets that answer.
    Raises SaleRace where a twin is on its way: what this call found taken is the twin's, whose answer is this one's.
    """
    if not refusal.storable or refusal.reason == REQUEST_ID_REUSED:
        raise refusal

    async def refuse(connection: Connection) -> Placed:
        if await known_sales.is_under_way(connection, once.call.tenant_id, key_of(once), once.fingerprint):
            raise SaleRace
        raise refusal

    return await once.run(shop.database, refuse)


async def _place(shop: Shop, call: Call, placing: Placing, once: Once[Placed]) -> bytes:
    basket = placing.basket
    order_id = order_id_of(call.tenant_id, call.client_id, FAMILY, once.request_id, sold_at=placing.occurred_at)

    async def prepare(connection: Connection) -> tuple[bool, KnownSale | None, Goods]:
        answered = await is_answered(connection, once)
        known = await known_sales.find(connection, call.tenant_id, order_id, request_key=key_of(once))
        goods = await goods_of(connection, call.tenant_id, basket, shop.open_stores)
        return answered, own_of(known, once), goods

    answered, known, goods = await shop.database.read(call.tenant_id, prepare, timeout_s=call.remaining_s())
    if answered:
        return await answer_of(shop, call, once, known)
    if known is None:
        priced = await priced_basket(shop, call, basket, goods, occurred_at=placing.occurred_at)
        if placing.expected_due_minor not in {None, priced.due_minor}:
            raise TotalChanged(
                expected_minor=placing.expected_due_minor or 0,
                due_minor=priced.due_minor,
                field=basket.beside("expected_due_minor"),
            )
        ttl_s = placing.payment_ttl_s or DEFAULT_PAYMENT_TTL_S
        now = shop.now()
        wanted = saga.steps_of(priced, order_id=order_id, payment_ttl_s=ttl_s, issued_at=now)
        order = order_from(priced, basket, order_id=order_id, expires_at=now + timedelta(seconds=ttl_s))
        order = saga.with_hold_ids(order, wanted)
        attempt = attempt_of(call, basket, once.fingerprint, priced.candidates)
        if wanted:
            attempt = replace(attempt, request_key=key_of(once))

        async def book(connection: Connection) -> Placed:
            if wanted and await is_answered(connection, once):
                raise SaleRace
            await _check_open_orders(connection, shop, call, order)
            await booking.place(connection, call, order, attempt=attempt, saga=wanted, placed_at=now)
            return Placed(order=order, candidates=priced.candidates)

        if not wanted:
            return await once.run(shop.database, book)
        await shop.database.run(call.tenant_id, book, timeout_s=call.remaining_s())
        return await _hold_and_answer(shop, call, order, wanted, once=once)
    stored, wanted = await saga_of(shop, call, known.order_id)
    check_same_request(stored, once.fingerprint)
    return await _hold_and_answer(shop, call, stored.order, wanted, once=once)


def key_of(once: Once[Placed]) -> str:
    """What claims the request for an order that is placed before the request is answered."""
    return request_key_of(once.call.tenant_id, once.call.client_id, once.family, once.request_id)


async def is_answered(connection: Connection, once: Once[Placed]) -> bool:
    """Whether the request id has an answer; then nothing is booked for it any more."""
    call = once.call
    return await requests.is_answered(
        connection, call.tenant_id, client_id=call.client_id, family=once.family, request_id=once.request_id
    )


def own_of(known: Sequence[KnownSale], once: Once[Placed]) -> KnownSale | None:
    """The order that the request made or began, that of the same body first; None if it has none."""
    own = [each for each in known if each.own]
    return next((each for each in own if each.fingerprint == once.fingerprint), own[0] if own else None)


async def answer_of(shop: Shop, call: Call, once: Once[Placed], own: KnownSale | None) -> bytes:
    """What the request id was answered; `own` is the order that it began, and is undone if the answer is a refusal."""

    async def forgotten(_connection: Connection) -> Placed:
        # a refusal whose time was over at this moment
        raise SaleRace

    if own is None or own.fingerprint != once.fingerprint:
        return await once.run(shop.database, forgotten)
    return await answered_or_undone(shop, call, once, forgotten, order_id=own.order_id)


async def answered_or_undone(
    shop: Shop, call: Call, once: Once[Placed], finish: Callable[[Connection], Awaitable[Placed]], *, order_id: OrderId
) -> bytes:
    """The answer to a request whose order is there; if it is refused after all, nothing stays held for it."""
    try:
        return await once.run(shop.database, finish)
    except DomainError as refusal:
        if saga.is_refusal(refusal):
            await undo(shop, call, order_id, refusal)
        raise


async def _check_open_orders(connection: Connection, shop: Shop, call: Call, order: Order) -> None:
    """Raises TooManyOpenOrders or TooManyOpenGuestOrders: nobody must reserve the whole shop, named or not."""
    if order.member_id:
        most = shop.max_open_orders
        if await open_orders.of_member(connection, call.tenant_id, order.member_id, most=most) >= most:
            raise TooManyOpenOrders(most=most)
        return
    most, store_id = shop.max_open_guest_orders, order.store_id
    number = await open_orders.of_guests(
        connection, call.tenant_id, client_id=call.client_id, store_id=store_id, most=most
    )
    if number >= most:
        raise TooManyOpenGuestOrders(store_id=store_id, most=most)


async def pay(shop: Shop, call: Call, order_id: OrderId, payments: Sequence[Payment], once: Once[Order]) -> bytes:
    """Pays a placed order in full; the encoded order, the same for a repeated request.

    Raises UnknownOrder (also for another store's), OrderNotPayable, PaymentMismatch.
    """

    async def work(connection: Connection) -> Order:
        stored = await booking.locked(connection, call.tenant_id, order_id)
        check_own_store(call, stored.order)
        if stored.order.state is OrderState.PENDING_PAYMENT:
            given = settle_payments(payments, due_minor=stored.order.due_minor, field="payments")
        else:
            given = ()
        return await booking.pay(connection, shop, call, stored, given, held=False)

    reply = await once.run(shop.database, work)
    await saga.settle_due(shop, call, order_id)
    return reply


async def cancel(shop: Shop, call: Call, order_id: OrderId, *, reason: str, once: Once[Order]) -> bytes:
    """Cancels an order that waits for payment; the encoded order, the same for a repeated request.

    Raises UnknownOrder (also for another store's), OrderNotCancellable.
    """

    async def work(connection: Connection) -> Order:
        stored = await booking.locked(connection, call.tenant_id, order_id)
        check_own_store(call, stored.order)
        refusal = OrderGivenUp(f"order {order_id} was cancelled: {reason}", subject=f"order/{order_id}")
        return await booking.give_up(connection, shop, call, stored, reason=reason, refusal=refusal)

    reply = await once.run(shop.database, work)
    await saga.settle_due(shop, call, order_id)
    return reply


async def expire(shop: Shop, call: Call, order_id: OrderId) -> bool:
    """Gives up an order whose time to be paid is over; False if somebody paid or cancelled it meanwhile."""

    async def work(connection: Connection) -> bool:
        stored = await booking.locked(connection, call.tenant_id, order_id)
        if not booking.is_waiting_past(stored.order, now=shop.now()):
            return False
        refusal = OrderGivenUp(
            f"order {order_id} was {GIVEN_UP}; place it again with a new request id", subject=f"order/{order_id}"
        )
        await booking.give_up(connection, shop, call, stored, reason=GIVEN_UP, refusal=refusal)
        return True

    gave_up = await shop.database.run(call.tenant_id, work)
    if gave_up:
        await saga.settle_due(shop, call, order_id)
    return gave_up


async def undo(shop: Shop, call: Call, order_id: OrderId, refusal: DomainError) -> None:
    """Compensates an order whose holds were refused: cancelled at once, voids tried at once."""

    async def work(connection: Connection) -> None:
        stored = await booking.locked(connection, call.tenant_id, order_id)
        if stored.order.state is OrderState.PENDING_PAYMENT:
            await booking.give_up(connection, shop, call, stored, reason=refusal.reason, refusal=refusal)

    await shop.database.run(call.tenant_id, work)
    await saga.settle_due(shop, call, order_id)


def check_own_store(call: Call, order: Order) -> None:
    """Raises UnknownOrder for another store's order: that it exists is not the caller's to know."""
    try:
        call.actor.check_store(order.store_id)
    except NotAllowed as other:
        raise UnknownOrder(order.order_id) from other


def check_same_request(stored: Stored, fingerprint: bytes) -> None:
    """Raises AlreadyExists (REQUEST_ID_REUSED) if the order was made by another body under the same id."""
    if stored.attempt.fingerprint != fingerprint:
        raise AlreadyExists("this request id was used with another body", reason=REQUEST_ID_REUSED)


def check_not_given_up(stored: Stored) -> None:
    """Raises the refusal that the attempt ended with."""
    if stored.order.state is OrderState.CANCELLED:
        assert stored.refusal is not None
        raise refusal_from_json(stored.refusal)


def attempt_of(call: Call, basket: Basket, fingerprint: bytes, candidates: tuple[Candidate, ...]) -> Attempt:
    """What a later duplicate of this request is compared with."""
    return Attempt(
        client_id=call.client_id,
        fingerprint=fingerprint,
        goods=goods_fingerprint((line.line_id, line.sku, line.quantity) for line in basket.lines),
        candidates=candidates,
    )


def order_from(priced: Priced, basket: Basket, *, order_id: OrderId, expires_at: datetime | None) -> Order:
    """A new order that waits for payment."""
    return Order(
        order_id=order_id,
        state=OrderState.PENDING_PAYMENT,
        version=1,
        store_id=basket.store_id,
        channel=basket.channel,
        member_id=priced.member_id,
        guide_id=basket.guide_id,
        currency_code=priced.currency_code,
        point_currency=priced.point_currency,
        discounts=priced.discounts,
        lines=priced.lines,
        payments=(),
        shelf_minor=priced.shelf_minor,
        discount_minor=priced.shelf_minor - priced.net_minor,
        net_minor=priced.net_minor,
        points_tender_minor=priced.tender.value_minor,
        burnt_points=priced.tender.points,
        quoted_points=priced.quoted_points,
        occurred_at=priced.occurred_at,
        expires_at=expires_at,
        closes_at=priced.closes_at,
    )


async def saga_of(shop: Shop, call: Call, order_id: OrderId) -> tuple[Stored, tuple[Step, ...]]:
    """The order and its steps as they stand."""

    async def read(connection: Connection) -> tuple[Stored, tuple[Step, ...]]:
        found = await orders.find(connection, call.tenant_id, [order_id])
        return found[order_id], await steps.of_order(connection, call.tenant_id, order_id)

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def _hold_and_answer(
    shop: Shop, call: Call, order: Order, wanted: Sequence[Step], *, once: Once[Placed]
) -> bytes:
    order_id = order.order_id
    if order.state is OrderState.PENDING_PAYMENT:
        try:
            await saga.hold_all(shop, call, wanted, order)
        except DomainError as failure:
            if saga.is_refusal(failure):
                await undo(shop, call, order_id, failure)
            raise

    async def finish(connection: Connection) -> Placed:
        now = await booking.locked(connection, call.tenant_id, order_id)
        check_not_given_up(now)
        moves = [
            (step.kind, step.state, advance(step.state, StepEvent.HOLD_MADE))
            for step in await steps.of_order(connection, call.tenant_id, order_id)
            if step.state is StepState.ASKED
        ]
        assert not (moves and now.order.state in PAID_STATES), "paid before its holds were made"
        await steps.move(connection, call.tenant_id, order_id, moves)
        return Placed(order=now.order, candidates=now.attempt.candidates)

    return await answered_or_undone(shop, call, once, finish, order_id=order_id)


def as_paid(order: Order, payments: Sequence[Payment], *, field: str) -> Order:
    """A new order that is paid in the same breath; `field` is where the request has the payments."""
    paid = booking.paid_with(order, settle_payments(payments, due_minor=order.due_minor, field=field))
    return replace(paid, state=OrderState.PAID, expires_at=None)
