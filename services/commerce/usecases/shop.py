"""What every use case is given: the database, the outbox, the peers and the clocks."""

from dataclasses import dataclass, field
from datetime import datetime

from services.commerce.domain.events import Event
from services.commerce.domain.orders import MAX_OPEN_GUEST_ORDERS
from services.commerce.domain.refusals import CurrencyDiffers
from services.commerce.store.stores import OpenStores
from services.commerce.usecases.peers import Peers
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import Clock, SystemClock
from services.runtime.database import Database
from services.runtime.outbox import Outbox
from services.runtime.settings import MAX_OPEN_ORDERS
from services.runtime.tenants import Tenants

SERVICE = "commerce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """commerce at work. `clock` is machine time; business time comes with the call.

    `max_open_orders` is how many placed orders of one member may wait for payment at a time, `max_open_guest_orders` of
    one client in one store without a member.
    """

    database: Database
    outbox: Outbox[Event]
    peers: Peers
    tenants: Tenants
    max_open_orders: int = MAX_OPEN_ORDERS
    max_open_guest_orders: int = MAX_OPEN_GUEST_ORDERS
    clock: Clock = field(default_factory=SystemClock)
    open_stores: OpenStores = field(default_factory=OpenStores)

    def now(self) -> datetime:
        """Machine time: what holds and waits for payment run by."""
        return self.clock.now()

    async def currency_of(self, call: Call) -> str:
        """The tenant's currency (ISO 4217)."""
        return (await self.tenants.get(call.tenant_id)).currency_code

    async def currency_for(self, call: Call, asked: str, *, field: str) -> str:
        """The currency of a basket that asks, in `field`, for this one or for none. Raises CurrencyDiffers."""
        own = await self.currency_of(call)
        if asked not in {"", own}:
            raise CurrencyDiffers(asked, own=own, field=field)
        return own

    async def own_call(self, tenant_id: str, *, timeout_s: float) -> Call:
        """A call of the service's own, in the tenant's business time: what workers and sweepers act with."""
        tenant = await self.tenants.get(tenant_id)
        return Call(
            tenant_id=tenant_id,
            client_id=SERVICE,
            actor=Actor(kind=ActorKind.SERVICE, id=SERVICE),
            now=await self.tenants.business_now(tenant_id),
            time_zone=tenant.time_zone,
            deadline_at=deadline_in(timeout_s),
        )
