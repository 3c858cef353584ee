"""API clients: what a till, a backend, a supplier, a partner or a person of the brand signs in with."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.runtime.call import OUT_OF_SCOPE, Actor, ActorKind
from services.runtime.errors import Invalid, NotAllowed
from services.runtime.ids import ClientId

SECRET_TOLD_FOR: Final = timedelta(hours=24)
"""How long a repeated request to make a client tells its secret again."""

CLIENTS_WRITE: Final = "identity.clients.write"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client without its secret. Times are machine time; an empty store or supplier binds it to none."""

    client_id: ClientId
    display_name: str
    kind: ActorKind
    scopes: tuple[str, ...]
    store_id: str
    supplier_id: str
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def is_admin(self) -> bool:
        """Whether it can make and revoke clients of the whole tenant."""
        return CLIENTS_WRITE in self.scopes and not self.store_id and not self.supplier_id


def is_told(made_at: datetime, *, now: datetime) -> bool:
    """Whether a repeated request is still told the secret of the client that it made."""
    return now - made_at <= SECRET_TOLD_FOR


def check_bindings(kind: ActorKind, *, store_id: str, supplier_id: str, by: Actor) -> None:
    """Raises Invalid where the kind lacks its binding, NotAllowed where a bound caller reaches outside of its own."""
    if kind is ActorKind.POS and not store_id:
        raise Invalid("a POS client needs its store", field="store_id")
    if kind is ActorKind.SUPPLIER and not supplier_id:
        raise Invalid("a SUPPLIER client needs its supplier", field="supplier_id")
    if supplier_id and kind is not ActorKind.SUPPLIER:
        raise Invalid("only a SUPPLIER client is bound to a supplier", field="supplier_id")
    if by.store_id:
        by.check_store(store_id, field="store_id")
    if by.supplier_id:
        by.check_supplier(supplier_id, field="supplier_id")


def check_reach(client: Client, *, by: Actor) -> None:
    """Raises NotAllowed (OUT_OF_SCOPE) for a client that the caller could not have made: of another store or supplier
    than a bound caller's own, or with scopes that the caller lacks."""
    if by.store_id:
        by.check_store(client.store_id)
    if by.supplier_id:
        by.check_supplier(client.supplier_id)
    if lacking := frozenset(client.scopes) - by.scopes:
        named = ", ".join(sorted(lacking))
        raise NotAllowed(f"the caller itself lacks: {named}", reason=OUT_OF_SCOPE, metadata={"scopes": named})
