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


def check_known(named: Mapping[StoreId, str], known: Mapping[StoreId, Store]) -> None:
    """Raises UnknownStore for the first store that takes no goods and no prices: one that the brand does not have.

    `named` are the stores with the field that names each.
    """
    for store_id, field in named.items():
        if store_id not in known:
            raise UnknownStore(store_id, field=field)


def check_open(store: Store | None, store_id: StoreId, *, field: str) -> None:
    """Raises UnknownStore or StoreInactive for a store, named by `field`, that sells nothing on-line."""
    if store is None:
        raise UnknownStore(store_id, field=field)
    if not store.active:
        raise StoreInactive(store_id, field=field)
