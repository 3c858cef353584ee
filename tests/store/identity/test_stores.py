"""Stores: who makes them, who hears of them, who sees which."""

import pytest

from services.identity.domain.refusals import UnknownStore
from services.runtime.errors import Invalid, NotAllowed
from services.runtime.ids import new_id
from siyu.identity.v1 import events_pb2, store_pb2
from tests.store.identity.conftest import Brand, Identity


async def test_stores_are_made_changed_and_listed_page_by_page(identity: Identity, brand: Brand) -> None:
    async def upsert(stores: list[store_pb2.Store], request_id: str = "") -> tuple[int, int]:
        request = store_pb2.BatchUpsertStoresRequest(request_id=request_id or new_id(), stores=stores)
        reply = await identity.stores.batch_upsert_stores(request, brand.call())
        return reply.created, reply.updated

    five = [store_pb2.Store(store_id=f"S{number}", display_name="shop", active=True) for number in range(5)]
    assert await upsert(five, "r1") == (5, 0)
    assert await upsert(five) == (0, 0)
    five[2].display_name = "corner shop"
    assert await upsert([*five[:3], store_pb2.Store(store_id="T1", display_name="new", active=True)]) == (1, 1)
    listed, token = [], ""
    while True:
        page = await identity.stores.list_stores(
            store_pb2.ListStoresRequest(page_size=2, page_token=token), brand.call()
        )
        listed += [store.store_id for store in page.stores]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["S0", "S1", "S2", "S3", "S4", "T1"]
    with pytest.raises(Invalid):
        await identity.stores.list_stores(store_pb2.ListStoresRequest(page_token="mine"), brand.call())


async def test_who_follows_hears_of_each_store_that_changed(identity: Identity, brand: Brand) -> None:
    def store(store_id: str, name: str = "shop", *, active: bool = True) -> store_pb2.Store:
        return store_pb2.Store(store_id=store_id, display_name=name, active=active, version=9)

    async def upsert(*stores: store_pb2.Store, request_id: str) -> None:
        request = store_pb2.BatchUpsertStoresRequest(request_id=request_id, stores=stores)
        await identity.stores.batch_upsert_stores(request, brand.call())

    await upsert(store("S1"), store("S2"), request_id="r1")
    await upsert(store("S1"), store("S2"), request_id="r1")
    await upsert(store("S1"), store("S2", active=False), request_id="r2")
    with pytest.raises(Invalid):
        await upsert(store("S1", "new"), store("S1"), request_id="r3")
    envelopes = [each for each in await identity.events() if each.type == "identity.StoreChanged"]
    told = [events_pb2.StoreChanged.FromString(each.payload) for each in envelopes]
    assert [(each.store_id, each.active, each.version) for each in told] == [
        ("S1", True, 1),
        ("S2", True, 1),
        ("S2", False, 2),
    ]
    assert [(each.tenant_id, each.aggregate_id, each.aggregate_version) for each in envelopes] == [
        (brand.tenant_id, each.store_id, each.version) for each in told
    ]
    found = await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S2"), brand.call())
    assert (found.store.active, found.store.version) == (False, 2)


async def test_a_till_reads_its_own_store(identity: Identity, brand: Brand) -> None:
    await brand.add_stores("S1", "S2")
    assert (await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S1"), brand.till())).store.active
    with pytest.raises(NotAllowed):
        await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S2"), brand.till())
    page = await identity.stores.list_stores(store_pb2.ListStoresRequest(), brand.till())
    assert [store.store_id for store in page.stores] == ["S1"]
    with pytest.raises(UnknownStore):
        await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S3"), brand.call())
    other = await identity.brand()
    with pytest.raises(UnknownStore):
        await identity.stores.get_store(store_pb2.GetStoreRequest(store_id="S1"), other.call())


async def test_a_batch_of_stores_with_a_bad_one_makes_none(identity: Identity, brand: Brand) -> None:
    good = store_pb2.Store(store_id="S1", display_name="shop", active=True)
    for bad in (good, store_pb2.Store(store_id="S2", display_name="shop", time_zone="Nowhere")):
        with pytest.raises(Invalid):
            await identity.stores.batch_upsert_stores(
                store_pb2.BatchUpsertStoresRequest(request_id=new_id(), stores=[good, bad]), brand.call()
            )
    page = await identity.stores.list_stores(store_pb2.ListStoresRequest(), brand.call())
    assert not page.stores
