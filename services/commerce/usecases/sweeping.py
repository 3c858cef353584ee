"""What time does: unpaid orders expire (machine time); suppliers time out, people are told of what they do not ship,
parcels count as delivered and orders close (business time).
"""

from dataclasses import dataclass
from typing import Final

import structlog

from services.commerce.store import suppliers, sweeps
from services.commerce.usecases import lateness, placing, supplying
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.errors import DomainError

MAX_EXPIRED: Final = 200
MAX_OVERDUE: Final = 200
MAX_UNSHIPPED: Final = 200
MAX_PRESUMED: Final = 200
MAX_CLOSED: Final = 1000
OWN_CALL_S: Final = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How much one round did."""

    expired: int
    timed_out: int
    unshipped: int
    delivered: int
    closed: int
    forgotten: int

    @property
    def any(self) -> bool:
        """Whether another round may find more."""
        return any((self.expired, self.timed_out, self.unshipped, self.delivered, self.closed, self.forgotten))


async def sweep(shop: Shop, system: Database) -> Swept:
    """One round over all tenants, bounded. `system` is on the system role; what it finds is changed on the app role."""
    return Swept(
        expired=await _expire(shop, system),
        timed_out=await _time_out(shop, system),
        unshipped=await _tell_unshipped(shop, system),
        delivered=await _presume_delivered(shop, system),
        closed=await system.run(EVERY_TENANT, _close),
        forgotten=await system.run(EVERY_TENANT, idempotency.forget_expired),
    )


async def _close(connection: Connection) -> int:
    return await sweeps.close_orders(connection, limit=MAX_CLOSED)


async def _expire(shop: Shop, system: Database) -> int:
    async def find(connection: Connection) -> tuple[sweeps.Expired, ...]:
        return await sweeps.expired(connection, limit=MAX_EXPIRED)

    done = 0
    for each in await system.read(EVERY_TENANT, find):
        try:
            call = await shop.own_call(each.tenant_id, timeout_s=OWN_CALL_S)
            done += await placing.expire(shop, call, each.order_id)
        except Exception as error:  # noqa: BLE001 - see _stays
            _stays("an unpaid order stays", error, named=each.order_id)
    return done


async def _time_out(shop: Shop, system: Database) -> int:
    async def find(connection: Connection) -> tuple[suppliers.Overdue, ...]:
        return await suppliers.overdue(connection, limit=MAX_OVERDUE)

    done = 0
    for each in await system.read(EVERY_TENANT, find):
        try:
            call = await shop.own_call(each.tenant_id, timeout_s=OWN_CALL_S)
            done += await supplying.time_out(shop, call, each.supplier_order_id)
        except Exception as error:  # noqa: BLE001 - see _stays
            _stays("a late supplier order stays", error, named=each.supplier_order_id)
    return done


async def _tell_unshipped(shop: Shop, system: Database) -> int:
    async def find(connection: Connection) -> tuple[suppliers.Overdue, ...]:
        return await suppliers.unshipped(connection, limit=MAX_UNSHIPPED)

    done = 0
    for each in await system.read(EVERY_TENANT, find):
        try:
            call = await shop.own_call(each.tenant_id, timeout_s=OWN_CALL_S)
            done += await lateness.tell_unshipped(shop, call, each.supplier_order_id)
        except Exception as error:  # noqa: BLE001 - see _stays
            _stays("an unshipped supplier order is not told", error, named=each.supplier_order_id)
    return done


async def _presume_delivered(shop: Shop, system: Database) -> int:
    async def find(connection: Connection) -> tuple[suppliers.Overdue, ...]:
        return await suppliers.presumed_delivered(connection, limit=MAX_PRESUMED)

    done = 0
    for each in await system.read(EVERY_TENANT, find):
        try:
            call = await shop.own_call(each.tenant_id, timeout_s=OWN_CALL_S)
            done += await supplying.presume_delivered(shop, call, each.supplier_order_id)
        except Exception as error:  # noqa: BLE001 - see _stays
            _stays("a shipped supplier order stays", error, named=each.supplier_order_id)
    return done


def _stays(told: str, error: Exception, *, named: str) -> None:
    """Tells of one that can't be helped now, and the others go on: a broken one must not end the process."""
    if isinstance(error, DomainError):
        _log.warning(told, id=named, reason=error.reason)
    else:
        _log.error(told, id=named, exc_info=error)
