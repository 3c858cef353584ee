"""Suppliers and their orders. The customer's order is locked before its supplier orders, by whoever changes both."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.commerce.domain.suppliers import (
    Parcel,
    Supplier,
    SupplierLine,
    SupplierOrder,
    SupplierOrderState,
)
from services.commerce.store.bounds import FIRST_ID
from services.runtime.database import Connection, raw
from services.runtime.ids import OrderId, SupplierId, SupplierOrderId

_PUT = """
    INSERT INTO suppliers (tenant_id, supplier_id, display_name, accept_within_s, deliver_within_s, ship_within_s)
    VALUES ($1::uuid, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant_id, supplier_id) DO UPDATE
    SET display_name = excluded.display_name, accept_within_s = excluded.accept_within_s,
        deliver_within_s = excluded.deliver_within_s, ship_within_s = excluded.ship_within_s, changed_at = now()
"""
_FIND_SUPPLIERS = """
    SELECT s.supplier_id, s.display_name, s.accept_within_s, s.deliver_within_s, s.ship_within_s
    FROM suppliers AS s
    WHERE s.tenant_id = $1::uuid AND s.supplier_id = ANY($2::text[])
"""
_INSERT = """
    WITH lines AS (
        INSERT INTO supplier_order_lines (tenant_id, supplier_order_id, line_no, line_id, sku, quantity, cost_minor)
        SELECT $1::uuid, l.supplier_order_id, l.line_no, l.line_id, l.sku, l.quantity, l.cost_minor
        FROM unnest($6::uuid[], $7::smallint[], $8::text[], $9::text[], $10::bigint[], $11::bigint[])
             AS l(supplier_order_id, line_no, line_id, sku, quantity, cost_minor)
    )
    INSERT INTO supplier_orders (tenant_id, supplier_order_id, order_id, supplier_id, state, version, replaces)
    SELECT $1::uuid, n.supplier_order_id, $2::uuid, n.supplier_id, n.state, 1, nullif(n.replaces, '')::uuid
    FROM unnest($3::uuid[], $4::text[], $5::smallint[], $12::text[])
         AS n(supplier_order_id, supplier_id, state, replaces)
"""
_COLUMNS = """
    s.supplier_order_id::text, s.order_id::text, s.supplier_id, s.state, s.version, s.requested_at, s.accept_by,
    s.deliver_within_s, s.deliver_by, coalesce(s.replaces::text, '') AS replaces, s.ship_within_s, s.ship_by
"""
_FIND = f"""
    SELECT {_COLUMNS}
    FROM supplier_orders AS s
    WHERE s.tenant_id = $1::uuid AND s.supplier_order_id = ANY($2::uuid[])
"""
_LOCK_OF_ORDER = f"""
    SELECT {_COLUMNS}
    FROM supplier_orders AS s
    WHERE s.tenant_id = $1::uuid AND s.order_id = $2::uuid
    ORDER BY s.supplier_order_id
    FOR NO KEY UPDATE
"""
_PAGE = f"""
    SELECT {_COLUMNS}
    FROM supplier_orders AS s
    WHERE s.tenant_id = $1::uuid AND s.supplier_id = $2 AND s.supplier_order_id > $3::uuid
    ORDER BY s.supplier_order_id
    LIMIT $4
"""
# along an index of its own: among a supplier's whole history those that wait for an answer are few
_PAGE_IN_STATE = f"""
    SELECT {_COLUMNS}
    FROM supplier_orders AS s
    WHERE s.tenant_id = $1::uuid AND s.supplier_id = $2 AND s.supplier_order_id > $3::uuid AND s.state = $5
    ORDER BY s.supplier_order_id
    LIMIT $4
"""
_LINES = """
    SELECT l.supplier_order_id::text, l.line_no, l.line_id, l.sku, l.quantity, l.accepted_quantity,
           l.shipped_quantity, l.refunded_quantity, l.rerouted_quantity, l.returned_quantity, l.cost_minor
    FROM supplier_order_lines AS l
    WHERE l.tenant_id = $1::uuid AND l.supplier_order_id = ANY($2::uuid[])
    ORDER BY l.supplier_order_id, l.line_no
"""
_WRITE = """
    WITH lines AS (
        UPDATE supplier_order_lines AS l
        SET accepted_quantity = n.accepted, shipped_quantity = n.shipped, refunded_quantity = n.refunded,
            rerouted_quantity = n.rerouted, returned_quantity = n.returned
        FROM unnest($8::smallint[], $9::bigint[], $10::bigint[], $11::bigint[], $14::bigint[], $15::bigint[])
             AS n(line_no, accepted, shipped, refunded, rerouted, returned)
        WHERE l.tenant_id = $1::uuid AND l.supplier_order_id = $2::uuid AND l.line_no = n.line_no
    )
    UPDATE supplier_orders
    SET state = $3, version = $4, requested_at = $5, accept_by = $6, reason = coalesce(nullif($7, ''), reason),
        deliver_within_s = $12, deliver_by = $13, ship_within_s = $16, ship_by = $17
    WHERE tenant_id = $1::uuid AND supplier_order_id = $2::uuid
"""
_SHIP = """
    INSERT INTO parcels (tenant_id, supplier_order_id, parcel_no, carrier, tracking_number, line_nos, quantities,
                         shipped_at)
    VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6::smallint[], $7::bigint[], $8)
"""
_PARCELS = """
    SELECT p.supplier_order_id::text, p.parcel_no, p.carrier, p.tracking_number, p.line_nos, p.quantities, p.shipped_at,
           d.delivered_at
    FROM parcels AS p
    LEFT JOIN parcel_deliveries AS d
      ON d.tenant_id = p.tenant_id AND d.supplier_order_id = p.supplier_order_id AND d.parcel_no = p.parcel_no
    WHERE p.tenant_id = $1::uuid AND p.supplier_order_id = ANY($2::uuid[])
    ORDER BY p.supplier_order_id, p.parcel_no
"""
_DELIVER = """
    INSERT INTO parcel_deliveries (tenant_id, supplier_order_id, parcel_no, delivered_at, told_by)
    SELECT $1::uuid, $2::uuid, p.parcel_no, $4, $5
    FROM unnest($3::bigint[]) AS p(parcel_no)
"""
_OPEN = """
    SELECT count(*)
    FROM supplier_orders AS s
    WHERE s.tenant_id = $1::uuid AND s.order_id = $2::uuid AND s.state = 1
"""
# whoever marks it tells of it; a parcel that comes meanwhile has changed the state
_MARK_LATE = """
    UPDATE supplier_orders
    SET late_told = true
    WHERE tenant_id = $1::uuid AND supplier_order_id = $2::uuid AND state IN (3, 4) AND NOT late_told AND ship_by <= $3
"""


async def put(connection: Connection, tenant_id: str, supplier: Supplier) -> None:
    """Makes or changes a supplier."""
    await raw(connection).execute(
        _PUT,
        tenant_id,
        supplier.supplier_id,
        supplier.display_name,
        supplier.accept_within_s,
        supplier.deliver_within_s,
        supplier.ship_within_s,
    )


async def find_suppliers(
    connection: Connection, tenant_id: str, supplier_ids: Sequence[str]
) -> dict[SupplierId, Supplier]:
    """Suppliers by id; unknown ones are left out."""
    rows = await raw(connection).fetch(_FIND_SUPPLIERS, tenant_id, sorted(set(supplier_ids)))
    return {
        row["supplier_id"]: Supplier(
            supplier_id=row["supplier_id"],
            display_name=row["display_name"],
            accept_within_s=row["accept_within_s"],
            deliver_within_s=row["deliver_within_s"],
            ship_within_s=row["ship_within_s"],
        )
        for row in rows
    }


async def insert(connection: Connection, tenant_id: str, order_id: OrderId, orders: Sequence[SupplierOrder]) -> None:
    """Writes the new supplier orders of one order."""
    lines = [(order.supplier_order_id, line) for order in orders for line in order.lines]
    await raw(connection).execute(
        _INSERT,
        tenant_id,
        order_id,
        [order.supplier_order_id for order in orders],
        [order.supplier_id for order in orders],
        [order.state for order in orders],
        [supplier_order_id for supplier_order_id, _ in lines],
        [line.line_no for _, line in lines],
        [line.line_id for _, line in lines],
        [line.sku for _, line in lines],
        [line.quantity for _, line in lines],
        [line.cost_minor for _, line in lines],
        [order.replaces for order in orders],
    )


async def find(connection: Connection, tenant_id: str, supplier_order_id: SupplierOrderId) -> SupplierOrder | None:
    """One supplier order as it stands, not locked."""
    rows = await raw(connection).fetch(_FIND, tenant_id, [supplier_order_id])
    return next(iter(await _loaded(connection, tenant_id, rows)), None)


async def lock_of_order(connection: Connection, tenant_id: str, order_id: OrderId) -> tuple[SupplierOrder, ...]:
    """The supplier orders of an order that is locked already."""
    return await _loaded(connection, tenant_id, await raw(connection).fetch(_LOCK_OF_ORDER, tenant_id, order_id))


async def page(
    connection: Connection, tenant_id: str, *, supplier_id: str, state: int, after: str, limit: int
) -> tuple[SupplierOrder, ...]:
    """A supplier's orders, oldest first, above an id (empty: all); state 0 is every one."""
    given = (tenant_id, supplier_id, after or FIRST_ID, limit)
    if state:
        rows = await raw(connection).fetch(_PAGE_IN_STATE, *given, state)
    else:
        rows = await raw(connection).fetch(_PAGE, *given)
    return await _loaded(connection, tenant_id, rows)


async def write(connection: Connection, tenant_id: str, order: SupplierOrder, *, reason: str = "") -> None:
    """Writes a locked supplier order with its lines."""
    await raw(connection).execute(
        _WRITE,
        tenant_id,
        order.supplier_order_id,
        order.state,
        order.version,
        order.requested_at,
        order.accept_by,
        reason,
        [line.line_no for line in order.lines],
        [line.accepted_quantity for line in order.lines],
        [line.shipped_quantity for line in order.lines],
        [line.refunded_quantity for line in order.lines],
        order.deliver_within_s,
        order.deliver_by,
        [line.rerouted_quantity for line in order.lines],
        [line.returned_quantity for line in order.lines],
        order.ship_within_s,
        order.ship_by,
    )


async def ship(connection: Connection, tenant_id: str, order: SupplierOrder, parcel: Parcel) -> None:
    """Writes a parcel of the supplier order."""
    await raw(connection).execute(
        _SHIP,
        tenant_id,
        order.supplier_order_id,
        parcel.parcel_no,
        parcel.carrier,
        parcel.tracking_number,
        [line_no for line_no, _ in parcel.units],
        [quantity for _, quantity in parcel.units],
        parcel.shipped_at,
    )


async def deliver(
    connection: Connection,
    tenant_id: str,
    order: SupplierOrder,
    parcels: Sequence[Parcel],
    *,
    delivered_at: datetime,
    told_by: str,
) -> None:
    """Writes that parcels of a locked supplier order arrived; each once."""
    await raw(connection).execute(
        _DELIVER, tenant_id, order.supplier_order_id, [each.parcel_no for each in parcels], delivered_at, told_by
    )


async def not_requested(connection: Connection, tenant_id: str, order_id: OrderId) -> int:
    """How many supplier orders of the order nobody has handed to their supplier yet."""
    found: int = await raw(connection).fetchval(_OPEN, tenant_id, order_id)
    return found


async def mark_late(
    connection: Connection, tenant_id: str, supplier_order_id: SupplierOrderId, *, now: datetime
) -> bool:
    """Notes that people are told that it is not shipped in time; False if they were, or it is (business time)."""
    status = await raw(connection).execute(_MARK_LATE, tenant_id, supplier_order_id, now)
    return status.endswith(" 1")


async def _loaded(connection: Connection, tenant_id: str, rows: Sequence[Any]) -> tuple[SupplierOrder, ...]:
    if not rows:
        return ()
    lines: dict[str, list[SupplierLine]] = {}
    for row in await raw(connection).fetch(_LINES, tenant_id, [row["supplier_order_id"] for row in rows]):
        lines.setdefault(row["supplier_order_id"], []).append(
            SupplierLine(
                line_no=row["line_no"],
                line_id=row["line_id"],
                sku=row["sku"],
                quantity=row["quantity"],
                accepted_quantity=row["accepted_quantity"],
                shipped_quantity=row["shipped_quantity"],
                refunded_quantity=row["refunded_quantity"],
                rerouted_quantity=row["rerouted_quantity"],
                returned_quantity=row["returned_quantity"],
                cost_minor=row["cost_minor"],
            )
        )
    parcels: dict[str, list[Parcel]] = {}
    sent = [row["supplier_order_id"] for row in rows if row["deliver_by"] is not None]
    if sent:
        for row in await raw(connection).fetch(_PARCELS, tenant_id, sent):
            parcels.setdefault(row["supplier_order_id"], []).append(_parcel(row))
    return tuple(
        SupplierOrder(
            supplier_order_id=row["supplier_order_id"],
            order_id=row["order_id"],
            supplier_id=row["supplier_id"],
            state=SupplierOrderState(row["state"]),
            version=row["version"],
            lines=tuple(lines.get(row["supplier_order_id"], ())),
            requested_at=row["requested_at"],
            accept_by=row["accept_by"],
            deliver_within_s=row["deliver_within_s"],
            deliver_by=row["deliver_by"],
            ship_within_s=row["ship_within_s"],
            ship_by=row["ship_by"],
            parcels=tuple(parcels.get(row["supplier_order_id"], ())),
            replaces=SupplierOrderId(row["replaces"]),
        )
        for row in rows
    )


def _parcel(row: Any) -> Parcel:
    return Parcel(
        parcel_no=row["parcel_no"],
        units=tuple(zip(row["line_nos"], row["quantities"], strict=True)),
        carrier=row["carrier"],
        tracking_number=row["tracking_number"],
        shipped_at=row["shipped_at"],
        delivered_at=row["delivered_at"],
    )
