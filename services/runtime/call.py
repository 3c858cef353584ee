"""Who asks, for which tenant, at which business time, and until when: what every use case is given."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from services.runtime.errors import NotAllowed

OUT_OF_SCOPE = "OUT_OF_SCOPE"


class ActorKind(StrEnum):
    """What kind of caller a credential stands for."""

    POS = "pos"
    BACKEND = "backend"
    SUPPLIER = "supplier"
    PARTNER = "partner"
    STAFF = "staff"
    SERVICE = "service"
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The caller. `store_id` and `supplier_id` bind it to one of them; empty is unbound."""

    kind: ActorKind
    id: str
    scopes: frozenset[str] = frozenset()
    store_id: str = ""
    supplier_id: str = ""

    def check_store(self, store_id: str, *, field: str = "") -> None:
        """Raises NotAllowed (OUT_OF_SCOPE) unless the caller may act for this store; a till only for its own.

        `field` is where the request names the store; empty where it does not."""
        bound = self.store_id or self.kind is ActorKind.POS
        if bound and self.store_id != store_id:
            message = _out_of_scope("store", bound_to=self.store_id, asked=store_id)
            raise out_of_scope(message, field=field, metadata={"store_id": store_id})

    def check_supplier(self, supplier_id: str, *, field: str = "") -> None:
        """Raises NotAllowed (OUT_OF_SCOPE) unless the caller may act for this supplier; a supplier only for itself.

        `field` is where the request names the supplier; empty where it does not."""
        bound = self.supplier_id or self.kind is ActorKind.SUPPLIER
        if bound and self.supplier_id != supplier_id:
            message = _out_of_scope("supplier", bound_to=self.supplier_id, asked=supplier_id)
            raise out_of_scope(message, field=field, metadata={"supplier_id": supplier_id})


def out_of_scope(message: str, *, field: str, metadata: Mapping[str, str] | None = None) -> NotAllowed:
    """The refusal of a caller who is bound to another object than the request names at `field`, where it names one."""
    if not field:
        return NotAllowed(message, reason=OUT_OF_SCOPE, metadata=metadata)
    return NotAllowed(f"{field}: {message}", reason=OUT_OF_SCOPE, metadata={**(metadata or {}), "field": field})


def _out_of_scope(what: str, *, bound_to: str, asked: str) -> str:
    if not bound_to:
        return f"this caller is bound to no {what}"
    # a misspelt field leaves the id empty: who reads of "another store" would look in the wrong place
    named = f"{what} {asked!r}" if asked else f"no {what}"
    return f"this caller acts for {what} {bound_to!r} alone; the request names {named}"


# A named tuple, since each call makes one: a frozen dataclass takes four times as long to make.
class Call(NamedTuple):
    """One call. `now` is business time in UTC; `deadline_at` is machine time on the scale of `time.monotonic()`.

    `trace` is the W3C traceparent, carried into events so that a consumer continues the trace. `peer` is the caller's
    network address where the transport knows it: for limits, never for authorisation.
    """

    tenant_id: str
    client_id: str
    actor: Actor
    now: datetime
    time_zone: str
    deadline_at: float
    trace_id: str = ""
    trace: str = ""
    peer: str = ""

    def remaining_s(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, self.deadline_at - time.monotonic())


def deadline_in(timeout_s: float) -> float:
    """The `deadline_at` of a call that has `timeout_s` seconds from now."""
    return time.monotonic() + timeout_s
