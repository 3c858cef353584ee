"""Stores: the touchpoints where members are met."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.domain.tenants import check_time_zone
from services.runtime.errors import Invalid
from services.runtime.ids import StoreId


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A store. An empty time zone is the brand's; `version` 0 is that of a store as it was asked for."""

    store_id: StoreId
    display_name: str
    time_zone: str
    active: bool
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upserted:
    """The stores that a batch made or changed, as they are now, and how many of them it made."""

    stores: tuple[Store, ...]
    created: int

    @property
    def updated(self) -> int:
        """How many it changed."""
        return len(self.stores) - self.created


def check_stores(stores: Sequence[Store]) -> None:
    """Raises Invalid for an id that stands twice in the batch, or a time zone that does not exist."""
    seen: set[str] = set()
    for at, store in enumerate(stores):
        if store.store_id in seen:
            raise Invalid(f"{store.store_id!r} stands twice in the request", field=f"stores[{at}].store_id")
        seen.add(store.store_id)
        if store.time_zone:
            check_time_zone(store.time_zone, field=f"stores[{at}].time_zone")
