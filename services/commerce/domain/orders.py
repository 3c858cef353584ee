"""An order as it was sold: states, and every share frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Final

from services.commerce.domain.refusals import OrderNotCancellable, OrderNotPaid, OrderNotPayable
from services.runtime.errors import Refused
from services.runtime.ids import MemberId, OrderId, Sku, StoreId, SupplierId

NO_SUPPLIER: Final = SupplierId("")
DEFAULT_POINT_CURRENCY: Final = "points"
DEFAULT_PAYMENT_TTL_S: Final = 900
DEFAULT_RETURN_WINDOW_DAYS: Final = 14
MAX_OPEN_GUEST_ORDERS: Final = 1000
"""Placed orders of nobody in particular that wait for payment, of one client in one store."""


class OrderState(IntEnum):
    """The numbers stand in the database and in the contract."""

    PENDING_PAYMENT = 1
    PAID = 2
    FULFILLING = 3
    FULFILLED = 4
    CLOSED = 5
    CANCELLED = 6


class OrderEvent(StrEnum):
    """What happens to an order. Refunds are their own records and move no state."""

    PAY = "pay"
    CANCEL = "cancel"
    REFUND = "refund"
    ASK_SUPPLIER = "ask supplier"
    HAND_OVER = "hand over"
    CLOSE = "close"


PAID_STATES: Final = frozenset({OrderState.PAID, OrderState.FULFILLING, OrderState.FULFILLED, OrderState.CLOSED})

TRANSITIONS: Mapping[tuple[OrderState, OrderEvent], OrderState] = {
    (OrderState.PENDING_PAYMENT, OrderEvent.PAY): OrderState.PAID,
    (OrderState.PENDING_PAYMENT, OrderEvent.CANCEL): OrderState.CANCELLED,
    (OrderState.PAID, OrderEvent.ASK_SUPPLIER): OrderState.FULFILLING,
    (OrderState.FULFILLING, OrderEvent.ASK_SUPPLIER): OrderState.FULFILLING,
    # every unit of the supplier may be refunded before it was asked
    (OrderState.PAID, OrderEvent.HAND_OVER): OrderState.FULFILLED,
    (OrderState.FULFILLING, OrderEvent.HAND_OVER): OrderState.FULFILLED,
    # goods sold at a till, or picked from the store's own stock, are handed over without a further call
    (OrderState.PAID, OrderEvent.CLOSE): OrderState.CLOSED,
    (OrderState.FULFILLED, OrderEvent.CLOSE): OrderState.CLOSED,
    **{(state, OrderEvent.REFUND): state for state in PAID_STATES},
}

_REFUSALS: Mapping[OrderEvent, type[Refused]] = {
    OrderEvent.PAY: OrderNotPayable,
    OrderEvent.CANCEL: OrderNotCancellable,
    OrderEvent.REFUND: OrderNotPaid,
}


def advance(state: OrderState, event: OrderEvent, *, order_id: str) -> OrderState:
    """The state after the event.

    Raises OrderNotPayable, OrderNotCancellable or OrderNotPaid where a caller asks for what the state forbids; for
    events that no caller sends, a forbidden one is a bug.
    """
    after = TRANSITIONS.get((state, event))
    if after is not None:
        return after
    refusal = _REFUSALS.get(event)
    assert refusal is not None, f"{event} of order {order_id} in {state.name}"
    raise refusal(f"order {order_id} is {state.name.lower()}", subject=f"order/{order_id}")


class PriceSource(IntEnum):
    """Who set a line's price."""

    LIST = 1
    POS = 2


class Tender(IntEnum):
    """How a customer pays."""

    CASH = 1
    CARD = 2
    WECHAT_PAY = 3
    ALIPAY = 4
    POINTS = 5
    OTHER = 6


class DiscountSource(IntEnum):
    """Where a discount comes from."""

    LINE_PROMOTION = 1
    ORDER_PROMOTION = 2
    COUPON = 3
    TILL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Discount:
    """One discount of an order; its shares stand in the lines, at the same place in `discounts_minor`."""

    source: DiscountSource
    source_id: str
    coupon_id: str = ""
    funder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line as it was sold. `discounts_minor` and `tenders_minor` follow the order's discounts and payments."""

    line_no: int
    line_id: str
    sku: Sku
    category: str
    quantity: int
    price_source: PriceSource
    shelf_minor: int
    discounts_minor: tuple[int, ...]
    net_minor: int
    points_tender_minor: int
    burnt_points: int
    tenders_minor: tuple[int, ...] = ()
    refunded_quantity: int = 0
    refunded_minor: int = 0
    supplier_id: SupplierId = NO_SUPPLIER
    rule_version: int = 0
    from_stock: bool = True

    @property
    def accrual_base_minor(self) -> int:
        """What earns points: net less points as tender."""
        return self.net_minor - self.points_tender_minor


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A tender's share of an order, in minor units."""

    tender: Tender
    amount_minor: int
    reference: str = ""
    refunded_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order. `points_hold_id` and `benefits_hold_id` name what loyalty and campaign hold for it; empty: nothing."""

    order_id: OrderId
    state: OrderState
    version: int
    store_id: StoreId
    channel: str
    member_id: MemberId
    guide_id: str
    currency_code: str
    point_currency: str
    discounts: tuple[Discount, ...]
    lines: tuple[Line, ...]
    payments: tuple[Payment, ...]
    shelf_minor: int
    discount_minor: int
    net_minor: int
    points_tender_minor: int
    burnt_points: int
    quoted_points: int
    occurred_at: datetime
    points_hold_id: str = ""
    benefits_hold_id: str = ""
    expires_at: datetime | None = None
    closes_at: datetime | None = None
    till_id: str = ""
    sale_number: str = ""
    offline: bool = False
    offline_burnt_points: int = 0
    refunded_minor: int = 0
    refund_count: int = 0

    @property
    def due_minor(self) -> int:
        """What is paid otherwise than with points."""
        return self.net_minor - self.points_tender_minor

    @property
    def wholly_refunded(self) -> bool:
        """Whether no unit is left."""
        return all(line.refunded_quantity == line.quantity for line in self.lines)


def closing_after(order: Order, moment: datetime) -> Order:
    """The order, which ends after the moment at which a supplier refused units of it (business time).

    So no statement up to then pays a share that has been reversed, or moved to the next source, only since.
    """
    assert order.closes_at is not None, f"order {order.order_id} is paid and has no end"
    # what happens at a moment is on no statement that ends with it
    return replace(order, closes_at=max(order.closes_at, moment + timedelta(microseconds=1)))
