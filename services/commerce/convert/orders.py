"""Baskets and orders: requests to the domain, the domain to replies."""

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.commerce.domain.offline import SaleException
from services.commerce.domain.orders import Discount, Line, Order, Payment, PriceSource, Tender
from services.commerce.domain.refunds import Refund, UnitsToRefund
from services.commerce.usecases.peers import Candidate, Identifier
from services.commerce.usecases.placing import Placed, Placing
from services.commerce.usecases.pricing import NOBODY, Basket, BasketLine, Priced
from services.commerce.usecases.refunding import Refunded, Refunding
from services.commerce.usecases.selling import TillSale
from services.runtime.ids import MemberId, OrderId, Sku, StoreId
from siyu.campaign.v1 import promotion_pb2
from siyu.commerce.v1 import order_pb2


def stamp(at: datetime) -> Timestamp:
    """A moment as the contract has it."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def moment(at: Timestamp) -> datetime:
    """A moment of the contract, in UTC."""
    return at.ToDatetime(UTC)


def occurred(
    request: order_pb2.QuoteOrderRequest | order_pb2.PlaceOrderRequest | order_pb2.RefundOrderRequest | order_pb2.Sale,
) -> datetime | None:
    """When it happened, if the caller tells."""
    return moment(request.occurred_at) if request.HasField("occurred_at") else None


def basket(message: order_pb2.Basket, *, sale_path: str = "") -> Basket:
    """What is sold, to whom, where; `sale_path` is where the request has the sale, if it is not one itself."""
    identifier = None
    if message.HasField("identifier"):
        given = message.identifier
        identifier = Identifier(type=given.type, issuer=given.issuer, value=given.value)
    return Basket(
        sale_path=sale_path,
        store_id=StoreId(message.store_id),
        channel=message.channel,
        lines=tuple(
            BasketLine(
                line_id=line.line_id,
                sku=Sku(line.sku),
                quantity=line.quantity,
                price_source=PriceSource(line.price_source or PriceSource.LIST),
                shelf_minor=line.shelf_minor,
            )
            for line in message.lines
        ),
        coupon_codes=tuple(message.coupon_codes),
        burn_points=message.burn_points,
        point_currency=message.point_currency,
        guide_id=message.guide_id,
        currency_code=message.currency_code,
        member_id=MemberId(message.member_id.lower()) if message.member_id else NOBODY,
        identifier=identifier,
    )


def payments(messages: Iterable[order_pb2.Payment]) -> tuple[Payment, ...]:
    """What the customer gave."""
    return tuple(
        Payment(tender=Tender(message.tender), amount_minor=message.amount_minor, reference=message.reference)
        for message in messages
    )


def placing(request: order_pb2.PlaceOrderRequest) -> Placing:
    """An order to place."""
    return Placing(
        basket=basket(request.basket),
        occurred_at=occurred(request),
        payment_ttl_s=request.payment_ttl_s,
        expected_due_minor=request.expected_due_minor if request.HasField("expected_due_minor") else None,
    )


def till_sale(message: order_pb2.Sale) -> TillSale:
    """A till's sale, which every request that has one calls `sale`."""
    return TillSale(
        till_id=message.till_id,
        sale_number=message.sale_number,
        occurred_at=occurred(message),
        basket=basket(message.basket, sale_path="sale"),
        payments=payments(message.payments),
    )


def refunding(request: order_pb2.RefundOrderRequest) -> Refunding:
    """Units to refund."""
    return Refunding(
        order_id=OrderId(request.order_id.lower()),
        lines=tuple(
            UnitsToRefund(line_id=line.line_id, quantity=line.quantity, restock=line.restock) for line in request.lines
        ),
        reason=request.reason,
        occurred_at=occurred(request),
    )


def order_message(order: Order) -> order_pb2.Order:
    """An order as it stands."""
    message = order_pb2.Order(
        order_id=order.order_id,
        state=_state(order),
        version=order.version,
        store_id=order.store_id,
        channel=order.channel,
        member_id=order.member_id,
        currency_code=order.currency_code,
        lines=[_line(line, order.discounts) for line in order.lines],
        payments=[_payment(payment) for payment in order.payments],
        shelf_minor=order.shelf_minor,
        discount_minor=order.discount_minor,
        net_minor=order.net_minor,
        burnt_points=order.burnt_points,
        quoted_points=order.quoted_points,
        occurred_at=stamp(order.occurred_at),
        till_id=order.till_id,
        sale_number=order.sale_number,
        refunded_minor=order.refunded_minor,
    )
    if order.expires_at is not None:
        message.expires_at.CopyFrom(stamp(order.expires_at))
    return message


def discounts_of(discounts: Iterable[Discount], shares: Iterable[int]) -> list[promotion_pb2.LineDiscount]:
    """A line's shares of the order's discounts; nothing for a discount that it has no share of."""
    return [
        promotion_pb2.LineDiscount(
            source=promotion_pb2.DiscountSource.ValueType(discount.source),
            source_id=discount.source_id,
            coupon_id=discount.coupon_id,
            amount_minor=share,
            funder=discount.funder,
        )
        for discount, share in zip(discounts, shares, strict=True)
        if share
    ]


def refund_message(refund: Refund, payments_of_order: tuple[Payment, ...]) -> order_pb2.Refund:
    """A refund, by line and by tender."""
    return order_pb2.Refund(
        refund_id=refund.refund_id,
        order_id=refund.order_id,
        lines=[
            order_pb2.RefundedLine(
                line_id=line.line_id,
                quantity=line.quantity,
                amount_minor=line.amount_minor,
                points_tender_minor=line.points_tender_minor,
                returned_points=line.returned_points,
            )
            for line in refund.lines
        ],
        tenders=[
            order_pb2.OrderPayment(
                tender=order_pb2.Tender.ValueType(payment.tender), amount_minor=back, reference=payment.reference
            )
            for payment, back in zip(payments_of_order, refund.tenders_minor, strict=False)
            if back
        ],
        amount_minor=refund.amount_minor,
        returned_points=refund.returned_points,
        occurred_at=stamp(refund.occurred_at),
    )


def quoted(priced: Priced) -> order_pb2.QuoteOrderResponse:
    """A priced basket."""
    return order_pb2.QuoteOrderResponse(
        quote=promotion_pb2.QuoteResponse(
            lines=[
                promotion_pb2.QuotedLine(
                    line_id=line.line_id,
                    shelf_minor=line.shelf_minor,
                    discounts=discounts_of(priced.discounts, line.discounts_minor),
                    net_minor=line.net_minor,
                )
                for line in priced.lines
            ],
            candidates=candidate_messages(priced.candidates),
            shelf_minor=priced.shelf_minor,
            discount_minor=priced.shelf_minor - priced.net_minor,
            net_minor=priced.net_minor,
            coupons=[
                promotion_pb2.CouponUse(coupon_id=use.coupon_id, amount_minor=use.amount_minor)
                for use in priced.coupons
            ],
            budgets=[
                promotion_pb2.BudgetUse(promotion_id=use.promotion_id, amount_minor=use.amount_minor)
                for use in priced.budgets
            ],
        ),
        quoted_points=priced.quoted_points,
        burnt_points=priced.tender.points,
        points_tender_minor=priced.tender.value_minor,
        due_minor=priced.due_minor,
        member_id=priced.member_id,
    )


def candidate_messages(candidates: Iterable[Candidate]) -> list[promotion_pb2.Candidate]:
    """What became of every candidate."""
    return [
        promotion_pb2.Candidate(
            source=promotion_pb2.DiscountSource.ValueType(source),
            source_id=source_id,
            amount_minor=amount_minor,
            rejection_reason=reason,
        )
        for source, source_id, amount_minor, reason in candidates
    ]


def exception_message(exception: SaleException) -> order_pb2.SaleException:
    """A difference between a sale and the books."""
    message = order_pb2.SaleException(
        exception_id=exception.exception_id,
        reason=exception.reason.value,
        order_id=exception.order_id,
        line_id=exception.line_id,
        difference=exception.difference,
        detail=exception.detail,
        posted_at=stamp(exception.posted_at),
    )
    if exception.resolution is not None:
        message.resolved_at.CopyFrom(stamp(exception.resolution.resolved_at))
        message.resolved_by = exception.resolution.resolved_by
        message.resolution_note = exception.resolution.note
    return message


def resolved_reply(exception: SaleException) -> bytes:
    """ResolveException's stored reply."""
    return order_pb2.ResolveExceptionResponse(exception=exception_message(exception)).SerializeToString()


def placed_reply(placed: Placed) -> bytes:
    """PlaceOrder's stored reply."""
    return order_pb2.PlaceOrderResponse(
        order=order_message(placed.order), candidates=candidate_messages(placed.candidates)
    ).SerializeToString()


def sold_reply(placed: Placed) -> bytes:
    """Sell's stored reply."""
    return order_pb2.SellResponse(
        order=order_message(placed.order), candidates=candidate_messages(placed.candidates)
    ).SerializeToString()


def paid_reply(order: Order) -> bytes:
    """PayOrder's stored reply."""
    return order_pb2.PayOrderResponse(order=order_message(order)).SerializeToString()


def cancelled_reply(order: Order) -> bytes:
    """CancelOrder's stored reply."""
    return order_pb2.CancelOrderResponse(order=order_message(order)).SerializeToString()


def refunded_reply(refunded: Refunded) -> bytes:
    """RefundOrder's stored reply."""
    return order_pb2.RefundOrderResponse(
        refund=refund_message(refunded.refund, refunded.order.payments), order=order_message(refunded.order)
    ).SerializeToString()


def _state(order: Order) -> order_pb2.OrderState.ValueType:
    return order_pb2.OrderState.ValueType(order.state)


def _line(line: Line, discounts: tuple[Discount, ...]) -> order_pb2.OrderLine:
    return order_pb2.OrderLine(
        line_id=line.line_id,
        sku=line.sku,
        quantity=line.quantity,
        shelf_minor=line.shelf_minor,
        discounts=discounts_of(discounts, line.discounts_minor),
        net_minor=line.net_minor,
        points_tender_minor=line.points_tender_minor,
        burnt_points=line.burnt_points,
        refunded_quantity=line.refunded_quantity,
        refunded_minor=line.refunded_minor,
        price_source=order_pb2.PriceSource.ValueType(line.price_source),
        supplier_id=line.supplier_id,
    )


def _payment(payment: Payment) -> order_pb2.OrderPayment:
    return order_pb2.OrderPayment(
        tender=order_pb2.Tender.ValueType(payment.tender),
        amount_minor=payment.amount_minor,
        reference=payment.reference,
        refunded_minor=payment.refunded_minor,
    )
