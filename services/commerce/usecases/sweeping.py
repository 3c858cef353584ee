"""What time does: unpaid orders expire (machine time); suppliers time out, people are told of what they do not ship,
parcels count as delivered and orders close (business time).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.commerce.store import sweeps
from services.commerce.usecases import lateness, placing, supplying
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.call import Call
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.errors import DomainError
from services.runtime.ids import OrderId, SupplierOrderId

MAX_DUE: Final = 200
MAX_LEFT_OUT: Final = 10_000
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chore:
    """What is done with each that is due; `stays` is told of one that can't be helped now."""

    find: Callable[..., Awaitable[tuple[sweeps.Due, ...]]]
    do: Callable[[Shop, Call, str], Awaitable[bool]]
    stays: str


_EXPIRE: Final = _Chore(
    find=sweeps.expired,
    do=lambda shop, call, due: placing.expire(shop, call, OrderId(due)),
    stays="an unpaid order stays",
)
_TIME_OUT: Final = _Chore(
    find=sweeps.unanswered,
    do=lambda shop, call, due: supplying.time_out(shop, call, SupplierOrderId(due)),
    stays="a late supplier order stays",
)
_TELL_UNSHIPPED: Final = _Chore(
    find=sweeps.unshipped,
    do=lambda shop, call, due: lateness.tell_unshipped(shop, call, SupplierOrderId(due)),
    stays="an unshipped supplier order is not told",
)
_PRESUME_DELIVERED: Final = _Chore(
    find=sweeps.presumed_delivered,
    do=lambda shop, call, due: supplying.presume_delivered(shop, call, SupplierOrderId(due)),
    stays="a shipped supplier order stays",
)


@dataclass(slots=True, kw_only=True)
class Sweeper:
    """Sweeps over all tenants, a bounded round at a time.

    `system` is on the system role; what it finds is changed on the app role. What a round could not help, the next one
    leaves out, until one has seen all the others: else as many broken ones as a round takes would hide them for ever.
    """

    shop: Shop
    system: Database
    max_due: int = MAX_DUE
    left_out: dict[str, set[str]] = field(default_factory=dict)

    async def round(self) -> Swept:
        """One round; how much it did."""
        return Swept(
            expired=await self._each(_EXPIRE),
            timed_out=await self._each(_TIME_OUT),
            unshipped=await self._each(_TELL_UNSHIPPED),
            delivered=await self._each(_PRESUME_DELIVERED),
            closed=await self.system.run(EVERY_TENANT, _close),
            forgotten=await self.system.run(EVERY_TENANT, idempotency.forget_expired),
        )

    async def _each(self, chore: _Chore) -> int:
        left_out = self.left_out.setdefault(chore.stays, set())

        async def find(connection: Connection) -> tuple[sweeps.Due, ...]:
            return await chore.find(connection, left_out=sorted(left_out), limit=self.max_due)

        found = await self.system.read(EVERY_TENANT, find)
        stay = {each.id for each in found if not await self._done(chore, each)}
        left_out |= stay
        if len(found) < self.max_due or len(left_out) > MAX_LEFT_OUT:
            left_out.clear()
        return len(found) - len(stay)

    async def _done(self, chore: _Chore, due: sweeps.Due) -> bool:
        try:
            call = await self.shop.own_call(due.tenant_id, timeout_s=OWN_CALL_S)
            return await chore.do(self.shop, call, due.id)
        except DomainError as error:
            _log.warning(chore.stays, id=due.id, reason=error.reason)
        except Exception as error:  # noqa: BLE001 - a broken one must not keep the others waiting, or end the process
            _log.error(chore.stays, id=due.id, exc_info=error)
        return False


async def _close(connection: Connection) -> int:
    return await sweeps.close_orders(connection, limit=MAX_CLOSED)
