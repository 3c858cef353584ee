"""Stores as far as commerce goes. identity owns them, tells of each change, and is asked where nobody has heard."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.commerce.domain.refusals import StoreInactive, UnknownStore
from services.runtime.ids import StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A store; of two tales of it the one with the higher `version` is true."""

    store_id: StoreId
    active: bool
    version: int


def check_open(named: Mapping[StoreId, str], known: Mapping[StoreId, Store]) -> None:
    """Raises UnknownStore or StoreInactive for the first store that takes no goods, prices or sales.

    `named` are the stores with the field that names each.
    """
    for store_id, field in named.items():
        store = known.get(store_id)
        if store is None:
            raise UnknownStore(store_id, field=field)
        if not store.active:
            raise StoreInactive(store_id, field=field)
