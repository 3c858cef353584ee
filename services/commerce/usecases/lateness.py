"""Supplier orders that were accepted and not shipped in time: a person must see them, once.

Nothing is refunded or asked of another source by itself: a supplier that accepted may have the goods packed, and its
parcel would come besides.
"""

import structlog

from services.commerce.domain import suppliers as rules
from services.commerce.domain.offline import Difference, SaleException
from services.commerce.domain.suppliers import SupplierOrder
from services.commerce.store import order_lists, orders, suppliers
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.ids import SupplierOrderId, new_id

_log = structlog.get_logger(__name__)


async def tell_unshipped(shop: Shop, call: Call, supplier_order_id: SupplierOrderId) -> bool:
    """Makes an exception of a supplier order past its `ship_by`; False if it was told, or shipped, meanwhile."""

    async def work(connection: Connection) -> bool:
        if not await suppliers.mark_late(connection, call.tenant_id, supplier_order_id, now=call.now):
            return False
        late = await suppliers.find(connection, call.tenant_id, supplier_order_id)
        assert late is not None
        stored = (await orders.find(connection, call.tenant_id, [late.order_id]))[late.order_id]
        told = _exception(late, shop)
        await order_lists.add_exceptions(connection, call.tenant_id, stored.order.store_id, [told])
        return True

    told = await shop.database.run(call.tenant_id, work)
    if told:
        _log.warning("a supplier did not ship", supplier_order_id=supplier_order_id)
    return told


def _exception(late: SupplierOrder, shop: Shop) -> SaleException:
    assert late.ship_by is not None
    units = rules.open_units(late)
    return SaleException(
        exception_id=new_id(),
        reason=Difference.NOT_SHIPPED,
        order_id=late.order_id,
        line_id=late.lines[0].line_id if len(late.lines) == 1 else "",
        difference=-units,
        detail=f"supplier {late.supplier_id} accepted supplier order {late.supplier_order_id} and was to ship it until "
        f"{late.ship_by.isoformat()}; units not shipped: {units}",
        posted_at=shop.now(),
    )
