"""StoreService."""

from dataclasses import dataclass

from services.identity import convert
from services.identity.usecases.stores import StoreDesk
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from siyu.identity.v1 import store_pb2

SERVICE = store_pb2.DESCRIPTOR.services_by_name["StoreService"]
_FAMILY = rule_of(SERVICE.methods_by_name["BatchUpsertStores"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreServicer:
    """Serves StoreService."""

    desk: StoreDesk

    async def batch_upsert_stores(
        self, request: store_pb2.BatchUpsertStoresRequest, call: Call
    ) -> store_pb2.BatchUpsertStoresResponse:
        """Makes or changes stores, all or none."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.upserted_reply)
        stored = await self.desk.upsert(call, once, [convert.store(told) for told in request.stores])
        return store_pb2.BatchUpsertStoresResponse.FromString(stored)

    async def get_store(self, request: store_pb2.GetStoreRequest, call: Call) -> store_pb2.GetStoreResponse:
        """Reads a store."""
        return store_pb2.GetStoreResponse(store=convert.store_message(await self.desk.get(call, request.store_id)))

    async def list_stores(self, request: store_pb2.ListStoresRequest, call: Call) -> store_pb2.ListStoresResponse:
        """A page of stores."""
        found, following = await self.desk.list(call, page_size=request.page_size, page_token=request.page_token)
        return store_pb2.ListStoresResponse(
            stores=[convert.store_message(told) for told in found], next_page_token=following
        )
