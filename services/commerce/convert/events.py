"""Events as they are stored, and those that commerce's own workers consume."""

from datetime import UTC, datetime

from services.commerce.convert.orders import discounts_of, stamp
from services.commerce.domain.events import (
    Event,
    LineRefunded,
    OrderCancelled,
    OrderPaid,
    SupplierOrderChanged,
    SupplierOrderRequested,
)
from services.commerce.domain.orders import Order
from services.commerce.domain.stores import Store
from services.commerce.domain.suppliers import SupplierOrderState
from services.runtime.ids import StoreId, SupplierOrderId
from services.runtime.outbox import Recorded
from services.runtime.tenants import Tenant
from siyu.commerce.v1 import events_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2


def recorded(event: Event) -> Recorded:
    """The event as it is stored: an order's in its member's partition, a supplier order's in its own."""
    match event:
        case OrderPaid(order=order):
            return _of_order(order, "OrderPaid", _paid(order).SerializeToString(), at=order.occurred_at)
        case LineRefunded(order=order, refund=refund):
            return _of_order(order, "LineRefunded", _refunded(event).SerializeToString(), at=refund.occurred_at)
        case OrderCancelled(order=order):
            cancelled = events_pb2.OrderCancelled(
                order_id=order.order_id, member_id=order.member_id, reason=event.reason
            )
            return _of_order(order, "OrderCancelled", cancelled.SerializeToString(), at=event.occurred_at)
        case SupplierOrderRequested(supplier_order=asked):
            requested = events_pb2.SupplierOrderRequested(
                supplier_order_id=asked.supplier_order_id, order_id=asked.order_id, supplier_id=asked.supplier_id
            )
            return _of_supplier_order(event, "SupplierOrderRequested", requested.SerializeToString())
        case SupplierOrderChanged(supplier_order=moved):
            changed = events_pb2.SupplierOrderChanged(
                supplier_order_id=moved.supplier_order_id,
                order_id=moved.order_id,
                supplier_id=moved.supplier_id,
                state=state_name(moved.state),
            )
            return _of_supplier_order(event, "SupplierOrderChanged", changed.SerializeToString())


def state_name(state: SupplierOrderState) -> str:
    """The state's name in the contract."""
    return f"SUPPLIER_ORDER_STATE_{state.name}"


def supplier_order_requested(payload: bytes) -> SupplierOrderId:
    """Whom the fulfilment worker must ask."""
    return SupplierOrderId(events_pb2.SupplierOrderRequested.FromString(payload).supplier_order_id)


def tenant(payload: bytes) -> Tenant:
    """identity.TenantChanged."""
    message = identity_pb2.TenantChanged.FromString(payload)
    return Tenant(
        id=message.tenant_id,
        time_zone=message.time_zone,
        currency_code=message.currency_code,
        test_clock_at=message.test_clock_at.ToDatetime(UTC) if message.HasField("test_clock_at") else None,
        version=message.version,
    )


def store(payload: bytes) -> Store:
    """identity.StoreChanged."""
    message = identity_pb2.StoreChanged.FromString(payload)
    return Store(store_id=StoreId(message.store_id), active=message.active, version=message.version)


def merge(payload: bytes) -> tuple[str, str]:
    """identity.MemberMerged: the merged member, and who survives."""
    message = identity_pb2.MemberMerged.FromString(payload)
    return message.merged_member_id, message.member_id


def _paid(order: Order) -> events_pb2.OrderPaid:
    return events_pb2.OrderPaid(
        order_id=order.order_id,
        member_id=order.member_id,
        store_id=order.store_id,
        channel=order.channel,
        guide_id=order.guide_id,
        currency_code=order.currency_code,
        point_currency=order.point_currency,
        lines=[
            events_pb2.PaidLine(
                line_id=line.line_id,
                sku=line.sku,
                category=line.category,
                quantity=line.quantity,
                shelf_minor=line.shelf_minor,
                net_minor=line.net_minor,
                accrual_base_minor=line.accrual_base_minor,
                burnt_points=line.burnt_points,
                discounts=discounts_of(order.discounts, line.discounts_minor),
            )
            for line in order.lines
        ],
        shelf_minor=order.shelf_minor,
        net_minor=order.net_minor,
        points_tender_minor=order.points_tender_minor,
        burnt_points=order.burnt_points - order.offline_burnt_points,
        points_hold_id=order.points_hold_id,
        occurred_at=stamp(order.occurred_at),
        offline=order.offline,
        offline_burnt_points=order.offline_burnt_points,
    )


def _refunded(event: LineRefunded) -> events_pb2.LineRefunded:
    order, refund = event.order, event.refund
    return events_pb2.LineRefunded(
        order_id=order.order_id,
        refund_id=refund.refund_id,
        member_id=order.member_id,
        point_currency=order.point_currency,
        lines=[
            events_pb2.RefundedUnits(
                line_id=line.line_id,
                quantity=line.quantity,
                refunded_before=line.refunded_before,
                amount_minor=line.amount_minor,
                points_tender_minor=line.points_tender_minor,
                returned_points=line.returned_points,
                discounts=discounts_of(order.discounts, line.discounts_minor),
            )
            for line in refund.lines
        ],
        points_hold_id=order.points_hold_id,
        sold_at=stamp(order.occurred_at),
        occurred_at=stamp(refund.occurred_at),
        whole_order=refund.whole_order,
        store_id=order.store_id,
    )


def _of_order(order: Order, name: str, payload: bytes, *, at: datetime) -> Recorded:
    return Recorded(
        type=f"commerce.{name}",
        aggregate_type="order",
        aggregate_id=order.order_id,
        version=order.version,
        partition_key=order.member_id or order.order_id,
        payload=payload,
        occurred_at=at,
    )


def _of_supplier_order(event: SupplierOrderRequested | SupplierOrderChanged, name: str, payload: bytes) -> Recorded:
    supplier_order = event.supplier_order
    return Recorded(
        type=f"commerce.{name}",
        aggregate_type="supplier_order",
        aggregate_id=supplier_order.supplier_order_id,
        version=supplier_order.version,
        partition_key=supplier_order.supplier_order_id,
        payload=payload,
        occurred_at=event.occurred_at,
    )
