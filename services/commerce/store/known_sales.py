"""Sales that are known: by the request that made or began them, or by the till's own number."""

from dataclasses import dataclass

from services.commerce.domain.orders import OrderState
from services.runtime.database import Connection, raw
from services.runtime.ids import OrderId

# ways to know a sale again: the order that its request claims or makes, and the till's own number
_FIND_SALE = """
    SELECT o.order_id::text, o.fingerprint, o.goods, o.state, true AS own
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND o.request_key = $6::uuid
    UNION ALL
    SELECT o.order_id::text, o.fingerprint, o.goods, o.state, true
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND o.order_id = $2::uuid AND o.request_key IS DISTINCT FROM $6::uuid
    UNION ALL
    SELECT o.order_id::text, o.fingerprint, o.goods, o.state, false
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND o.store_id = $3 AND o.till_id = $4 AND o.sale_number = $5
      AND o.till_id <> '' AND o.state <> 6 AND o.order_id <> $2::uuid AND o.request_key IS DISTINCT FROM $6::uuid
"""
_IS_UNDER_WAY = """
    SELECT true
    FROM orders AS o
    WHERE o.tenant_id = $1::uuid AND o.request_key = $2::uuid AND o.state = 1 AND o.fingerprint = $3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSale:
    """An order that stands for the same request (`own`) or under the same sale number."""

    order_id: OrderId
    fingerprint: bytes
    goods: bytes
    state: OrderState
    own: bool


async def find(
    connection: Connection,
    tenant_id: str,
    order_id: OrderId,
    *,
    request_key: str,
    store_id: str = "",
    till_id: str = "",
    sale_number: str = "",
) -> tuple[KnownSale, ...]:
    """What is known of a sale: the order of this very request, and the one that has the till's number."""
    rows = await raw(connection).fetch(_FIND_SALE, tenant_id, order_id, store_id, till_id, sale_number, request_key)
    return tuple(
        KnownSale(
            order_id=row["order_id"],
            fingerprint=row["fingerprint"],
            goods=row["goods"],
            state=OrderState(row["state"]),
            own=row["own"],
        )
        for row in rows
    )


async def is_under_way(connection: Connection, tenant_id: str, request_key: str, fingerprint: bytes) -> bool:
    """Whether an order of this request and body waits for payment."""
    return await raw(connection).fetchval(_IS_UNDER_WAY, tenant_id, request_key, fingerprint) is not None
