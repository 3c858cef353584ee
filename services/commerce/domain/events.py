"""What commerce tells the other services and itself."""

from dataclasses import dataclass

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
    """A placed order was not paid."""

    order: Order
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierOrderRequested:
    """A supplier must be asked to ship."""

    supplier_order: SupplierOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierOrderChanged:
    """A supplier order moved on."""

    supplier_order: SupplierOrder


Event = OrderPaid | LineRefunded | OrderCancelled | SupplierOrderRequested | SupplierOrderChanged
