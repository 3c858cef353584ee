"""What commerce does with events: identity's, and its own supplier orders; a block of one tenant's at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.commerce.convert import events as convert
from services.commerce.usecases import following, supplying
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.events import Event

SUPPLIER_ORDER_REQUESTED = "commerce.SupplierOrderRequested"
TENANT_CHANGED = "identity.TenantChanged"
STORE_CHANGED = "identity.StoreChanged"
MEMBER_MERGED = "identity.MemberMerged"


@dataclass(frozen=True, slots=True, kw_only=True)
class FulfilmentHandler:
    """Queue "fulfilment", over commerce's own events."""

    shop: Shop

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        """Hands paid supplier orders to their suppliers; other events ask for nothing."""
        for event in events:
            if event.type == SUPPLIER_ORDER_REQUESTED:
                await supplying.request(connection, self.shop, call, convert.supplier_order_requested(event.payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersHandler:
    """Queue "members", over identity's events."""

    async def handle(self, connection: Connection, events: Sequence[Event], call: Call) -> None:
        """Follows tenants, stores and merges."""
        await following.follow(
            connection,
            call,
            changed=[convert.tenant(event.payload) for event in events if event.type == TENANT_CHANGED],
            changed_stores=[convert.store(event.payload) for event in events if event.type == STORE_CHANGED],
            merges=[convert.merge(event.payload) for event in events if event.type == MEMBER_MERGED],
        )
