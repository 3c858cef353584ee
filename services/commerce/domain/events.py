"""What commerce tells the other services and itself."""

from dataclasses import dataclass
from datetime import datetime

from services.commerce.domain.orders import Order
from services.commerce.domain.refunds import Refund
from services.commerce.domain.suppliers import SupplierOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPaid:
    """An order was paid."""

    order: Order


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRefunded:
    """Lines of an order were refunded; `order` is the order after it."""

    order: Order
    refund: Refund


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCancelled:
    """A placed order was not paid; `occurred_at` is when it was given up, in business time."""

    order: Order
    reason: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierOrderRequested:
    """A supplier must be asked to ship; `occurred_at` is business time."""

    supplier_order: SupplierOrder
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierOrderChanged:
    """A supplier order moved on; `occurred_at` is business time."""

    supplier_order: SupplierOrder
    occurred_at: datetime


Event = OrderPaid | LineRefunded | OrderCancelled | SupplierOrderRequested | SupplierOrderChanged
