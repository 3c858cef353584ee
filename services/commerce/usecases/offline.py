"""Off-line sales: recorded as sold, exactly once; what differs from the books becomes an exception.

One transaction a sale. Nothing is held at the peers: loyalty draws the burnt points by event, and campaign counts the
coupons by event, each as the fact that it is.
"""

from dataclasses import dataclass, replace
from typing import Final

from services.commerce.domain import stock as stock_rules
from services.commerce.domain.freezing import (
    NO_POINTS,
    PointsTender,
    PricedLine,
    freeze,
    points_as_tender,
    settle_payments,
)
from services.commerce.domain.moments import check_fact
from services.commerce.domain.naming import order_id_of, request_key_of
from services.commerce.domain.offline import (
    TILL_DISCOUNT,
    Difference,
    Found,
    SaleException,
    as_charged,
    check_charges,
    without_coupons,
)
from services.commerce.domain.orders import (
    DEFAULT_POINT_CURRENCY,
    DEFAULT_RETURN_WINDOW_DAYS,
    DiscountSource,
    Order,
    OrderState,
)
from services.commerce.domain.refusals import OrderGivenUp, PaymentMismatch, SaleRace
from services.commerce.store import order_lists, orders, stock
from services.commerce.store.known_sales import KnownSale
from services.commerce.usecases import booking, placing, stores
from services.commerce.usecases.peers import Quote
from services.commerce.usecases.placing import MAX_ROUNDS
from services.commerce.usecases.pricing import (
    NOBODY,
    Basket,
    Goods,
    Priced,
    buyer_of,
    check_basket,
    goods_of,
    quote_discounts,
    window_end,
    with_quoted_points,
)
from services.commerce.usecases.selling import TillSale, find_sale, of_number
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Invalid, Missing
from services.runtime.idempotency import Once
from services.runtime.ids import MemberId, OrderId, Sku, new_id

FAMILY: Final = "commerce.pos.offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineSale:
    """A sale with what the till charged per line."""

    sale: TillSale
    charged_minor: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The order, and how it differs from the books."""

    order: Order
    exceptions: tuple[SaleException, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fact:
    priced: Priced
    has_burnt: int
    found: tuple[Found, ...]


async def record(shop: Shop, call: Call, offline: OfflineSale, once: Once[Recorded]) -> tuple[bytes, bool]:
    """Records the sale; the encoded answer, and whether it was recorded before.

    Raises NotAllowed, Invalid, CurrencyDiffers and SaleNumberReused, and nothing else that is the sale's fault;
    Unavailable and its like where a peer does not answer: the sale is sent again then.
    """
    sale = offline.sale
    if sale.occurred_at is None:
        raise Invalid("an off-line sale tells when it happened", field=sale.basket.beside("occurred_at"))
    check_basket(call, sale.basket)
    check_fact(sale.occurred_at, now=call.now, field=sale.basket.beside("occurred_at"))
    for _ in range(MAX_ROUNDS):
        try:
            return await _record(shop, call, offline, once)
        except SaleRace:
            # the same sale came twice at this moment; the other is there now
            continue
    raise SaleRace


async def _record(shop: Shop, call: Call, offline: OfflineSale, once: Once[Recorded]) -> tuple[bytes, bool]:
    sale, basket = offline.sale, offline.sale.basket
    order_id = order_id_of(call.tenant_id, call.client_id, FAMILY, once.request_id, sold_at=sale.occurred_at)
    request_key = request_key_of(call.tenant_id, call.client_id, FAMILY, once.request_id)
    attempt = placing.attempt_of(call, basket, once.fingerprint, ())

    async def prepare(connection: Connection) -> tuple[KnownSale | None, Goods]:
        found = await find_sale(connection, call, sale, order_id=order_id, request_key=request_key)
        # an attempt that was never paid is no sale: it gives way, whatever its goods were
        known = next((each for each in found if each.own or each.state is OrderState.PENDING_PAYMENT), None)
        known = known or of_number(found, sale, attempt.goods)
        return known, await goods_of(connection, call.tenant_id, basket, shop.open_stores)

    known, goods = await shop.database.read(call.tenant_id, prepare, timeout_s=call.remaining_s())
    if known is not None and known.state is OrderState.PENDING_PAYMENT:
        # the till lost its link in the middle of an on-line sale, and then sold off-line: that is the fact
        gone = OrderGivenUp(f"order {known.order_id} was sold off-line instead", subject=f"order/{known.order_id}")
        await placing.undo(shop, call, known.order_id, gone)
        raise SaleRace
    if known is not None:
        known_id = known.order_id

        async def again(connection: Connection) -> Recorded:
            found = await orders.find(connection, call.tenant_id, [known_id])
            exceptions = await order_lists.exceptions_of(connection, call.tenant_id, known_id)
            return Recorded(order=found[known_id].order, exceptions=exceptions)

        return await once.run(shop.database, again), True
    fact = await _price(shop, call, offline, goods)
    order = _order_of(fact, sale, order_id)

    async def book(connection: Connection) -> Recorded:
        await orders.insert(connection, call.tenant_id, order, attempt, now=shop.now())
        await booking.after_payment(connection, shop, call, order)
        short = await _take_stock(connection, call, order)
        exceptions = tuple(_exception(found, order_id, shop) for found in (*fact.found, *short))
        await order_lists.add_exceptions(connection, call.tenant_id, order.store_id, exceptions)
        return Recorded(order=order, exceptions=exceptions)

    return await once.run(shop.database, book), False


async def _price(shop: Shop, call: Call, offline: OfflineSale, goods: Goods) -> _Fact:
    sale, basket = offline.sale, offline.sale.basket
    assert sale.occurred_at is not None
    found: list[Found] = []
    currency_code = await shop.currency_for(call, basket.currency_code, field=basket.field("currency_code"))
    await _look_for_store(shop, call, basket, goods, found)
    member_id = await _member_of(shop, call, sale, found)
    lines, quote = await quote_discounts(
        call,
        basket,
        goods,
        shop.peers,
        member_id=member_id,
        occurred_at=sale.occurred_at,
        currency_code=currency_code,
    )
    check_charges(offline.charged_minor, lines)
    charged = _charged(lines, offline.charged_minor, quote, found)
    found += [
        Found(reason=Difference.PRODUCT_UNKNOWN, line_id=line.line_id, difference=line.quantity, detail=line.sku)
        for line in lines
        if line.sku not in goods.products
    ]
    point_currency = basket.point_currency or DEFAULT_POINT_CURRENCY
    programme = await shop.peers.points.programme(call, point_currency)
    tender = NO_POINTS
    if basket.burn_points and programme is not None:
        net_minor = sum(line.net_minor for line in charged)
        tender = points_as_tender(basket.burn_points, value=programme.value, net_minor=net_minor)
        tender = await _burnt(shop, call, member_id, point_currency, tender, found=found)
    discounts, frozen = freeze(charged, tender=tender)
    days = DEFAULT_RETURN_WINDOW_DAYS if programme is None else programme.return_window_days
    priced = Priced(
        member_id=member_id,
        occurred_at=sale.occurred_at,
        closes_at=window_end(call, sale.occurred_at, days=days),
        currency_code=currency_code,
        point_currency=point_currency,
        discounts=discounts,
        lines=frozen,
        tender=tender,
        quoted_points=0,
        candidates=quote.candidates,
        coupons=(),
        budgets=(),
    )
    priced = await with_quoted_points(
        call, priced, shop.peers, store_id=basket.store_id, has_programme=programme is not None
    )
    return _Fact(priced=priced, has_burnt=tender.points, found=tuple(found))


async def _look_for_store(shop: Shop, call: Call, basket: Basket, goods: Goods, found: list[Found]) -> None:
    """Finds a store that is not there. One that has closed is no difference: it may have been open when it sold."""
    # identity binds nobody to a store that it does not have
    if goods.store_is_open or call.actor.store_id:
        return
    if not await stores.is_of_brand(shop, call, basket.store_id):
        found.append(
            Found(
                reason=Difference.STORE_UNKNOWN,
                line_id="",
                difference=0,
                detail=f"the sale names store {basket.store_id!r}, which the brand does not have",
            )
        )


async def _member_of(shop: Shop, call: Call, sale: TillSale, found: list[Found]) -> MemberId:
    try:
        return await buyer_of(call, sale.basket, shop.peers)
    except Missing:
        found.append(
            Found(
                reason=Difference.MEMBER_UNKNOWN,
                line_id="",
                difference=0,
                detail="the till named a member that nobody knows",
            )
        )
        return NOBODY


def _charged(
    lines: tuple[PricedLine, ...], charged_minor: tuple[int, ...], quote: Quote, found: list[Found]
) -> tuple[PricedLine, ...]:
    """The lines as they were sold; a coupon counts as used only where the till took all of it off."""
    sold = []
    for line, charge in zip(lines, charged_minor, strict=True):
        as_sold, difference = as_charged(line, charge)
        sold.append(as_sold)
        if difference is not None:
            found.append(difference)
    kept: dict[str, int] = {}
    for line in sold:
        for discount, share_minor in line.shares:
            if discount.coupon_id:
                kept[discount.coupon_id] = kept.get(discount.coupon_id, 0) + share_minor
    partly = frozenset(use.coupon_id for use in quote.coupons if kept.get(use.coupon_id, 0) != use.amount_minor)
    settled = tuple(without_coupons(line, partly) for line in sold)
    own_minor = sum(share for line in settled for discount, share in line.shares if discount == TILL_DISCOUNT)
    rejected = [
        (code, reason) for source, code, _, reason in quote.candidates if source == DiscountSource.COUPON and reason
    ]
    if own_minor and rejected:
        code, reason = rejected[0]
        found.append(
            Found(
                reason=Difference.COUPON_EXCESS,
                line_id="",
                difference=own_minor,
                detail=f"coupon {code} was taken off-line: {reason}",
            )
        )
    return settled


async def _burnt(
    shop: Shop,
    call: Call,
    member_id: MemberId,
    point_currency: str,
    tender: PointsTender,
    *,
    found: list[Found],
) -> PointsTender:
    """What loyalty is to draw: the till took the points, whoever has them; a stranger's can't be drawn from anybody."""
    if not tender.points:
        return tender
    available = 0
    if member_id:
        available = await shop.peers.points.available(call, member_id=member_id, point_currency=point_currency)
    if available < tender.points:
        found.append(
            Found(
                reason=Difference.POINTS_SHORTFALL,
                line_id="",
                difference=tender.points - available,
                detail=f"{tender.points} points were burnt, {available} were there",
            )
        )
    return tender if member_id else replace(tender, points=0)


def _order_of(fact: _Fact, sale: TillSale, order_id: OrderId) -> Order:
    order = placing.order_from(fact.priced, sale.basket, order_id=order_id, expires_at=None)
    field = sale.basket.beside("payments")
    try:
        payments = settle_payments(sale.payments, due_minor=order.due_minor, field=field)
    except PaymentMismatch as mismatch:
        # what the till took must be what it charged: else its record is malformed
        raise Invalid(mismatch.message, field=field) from mismatch
    return replace(
        booking.paid_with(order, payments),
        state=OrderState.PAID,
        till_id=sale.till_id,
        sale_number=sale.sale_number,
        offline=True,
        offline_burnt_points=fact.has_burnt,
    )


async def _take_stock(connection: Connection, call: Call, order: Order) -> list[Found]:
    demand = stock_rules.demand_of(order.lines)
    if not demand:
        return []
    levels = await stock.lock(connection, call.tenant_id, order.store_id, list(demand), make=True)
    movement, missing = stock_rules.take_as_fact(levels, demand)
    cause = stock.Cause(order_id=order.order_id, occurred_at=order.occurred_at, reason="off-line sale")
    await stock.write(connection, call.tenant_id, order.store_id, movement, cause)
    first: dict[Sku, str] = {}
    for line in order.lines:
        first.setdefault(line.sku, line.line_id)
    return [
        Found(
            reason=Difference.STOCK_SHORTFALL,
            line_id=first[sku],
            difference=units,
            detail=f"{demand[sku]} units of {sku} were sold, {demand[sku] - units} were available",
        )
        for sku, units in missing.items()
    ]


def _exception(found: Found, order_id: OrderId, shop: Shop) -> SaleException:
    return SaleException(
        exception_id=new_id(),
        reason=found.reason,
        order_id=order_id,
        line_id=found.line_id,
        difference=found.difference,
        detail=found.detail,
        posted_at=shop.now(),
    )
