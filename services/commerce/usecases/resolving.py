"""Exceptions of sales: a person says what was found out or done about one, once."""

from services.commerce.domain import offline as rules
from services.commerce.domain.offline import Resolution, SaleException
from services.commerce.domain.refusals import UnknownException
from services.commerce.store import order_lists
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.errors import Conflict, NotAllowed
from services.runtime.idempotency import Once


async def resolve(shop: Shop, call: Call, exception_id: str, *, note: str, once: Once[SaleException]) -> bytes:
    """Resolves an exception; the encoded reply. Who did is the credential's actor.

    Raises UnknownException (also for another store's), ExceptionResolved.
    """

    async def work(connection: Connection) -> SaleException:
        found = await order_lists.exception(connection, call.tenant_id, exception_id)
        if found is None:
            raise UnknownException(exception_id)
        store_id, exception = found
        try:
            call.actor.check_store(store_id)
        except NotAllowed as other:
            # that it exists is not the caller's to know
            raise UnknownException(exception_id) from other
        resolution = Resolution(note=note, resolved_by=call.actor.id, resolved_at=shop.now())
        resolved = rules.resolve(exception, resolution)
        if not await order_lists.resolve_exception(connection, call.tenant_id, exception_id, resolution):
            # somebody else did at this moment
            raise Conflict(f"exception {exception_id} is being resolved; look again")
        return resolved

    return await once.run(shop.database, work)
