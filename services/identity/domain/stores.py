"""Stores: the touchpoints where members are met."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.domain.tenants import check_time_zone
from services.runtime.errors import Invalid
from services.runtime.ids import StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A store. An empty time zone is the brand's."""

    store_id: StoreId
    display_name: str
    time_zone: str
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """How many stores a batch made, and how many it changed."""

    created: int
    updated: int


def check_stores(stores: Sequence[Store]) -> None:
    """Raises Invalid for an id that stands twice in the batch, or a time zone that does not exist."""
    seen: set[str] = set()
    for at, store in enumerate(stores):
        if store.store_id in seen:
            raise Invalid(f"{store.store_id!r} stands twice in the request", field=f"stores[{at}].store_id")
        seen.add(store.store_id)
        if store.time_zone:
            check_time_zone(store.time_zone, field=f"stores[{at}].time_zone")
