"""The scopes that a token can carry, and which kinds of client may carry which.

A test compares this catalogue with the `scopes` of every RPC's rule.
"""

from collections.abc import Iterable
from typing import Final

from services.identity.domain.refusals import ScopeNotGrantable
from services.runtime.call import ActorKind
from services.runtime.errors import Invalid

DESCRIPTIONS: Final[dict[str, str]] = {
    "identity.read": "read the tenant, its stores and clients",
    "identity.members.read": "read and resolve members",
    "identity.members.write": "register members and link identifiers",
    "identity.members.merge": "merge two members",
    "identity.stores.write": "make and change stores",
    "identity.clients.write": "make and revoke clients",
    "identity.clock.write": "move the tenant's test clock",
    "loyalty.points.read": "read balances and history, quote points",
    "loyalty.points.write": "earn, hold, burn and give back points",
    "loyalty.programme.read": "read programmes",
    "loyalty.programme.write": "publish programmes",
    "loyalty.tiers.read": "read tiers and their changes",
    "campaign.quote": "quote a basket",
    "campaign.coupons.read": "read coupons",
    "campaign.coupons.write": "make templates, issue, hold and use coupons",
    "campaign.promotions.read": "read promotions",
    "campaign.promotions.write": "publish promotions",
    "commerce.catalogue.read": "read products and prices",
    "commerce.catalogue.write": "make and change products",
    "commerce.prices.write": "set prices",
    "commerce.stock.read": "read stock and its documents",
    "commerce.stock.write": "receive, move and count stock",
    "commerce.orders.read": "read orders",
    "commerce.orders.write": "quote, place, pay and cancel orders",
    "commerce.pos.sell": "sell at a till, on-line and off-line",
    "commerce.refunds.write": "refund lines and units",
    "commerce.suppliers.write": "make and change suppliers and their rules",
    "commerce.supplier_orders.read": "read supplier orders",
    "commerce.supplier_orders.write": "accept, reject and ship supplier orders",
    "commerce.settlement.read": "read splits and statements",
    "commerce.settlement.write": "close statements and pay out",
    "events.read": "read the logs of events",
    "audit.read": "audit the books",
    "platform.tenants.write": "make tenants",
}

ALL: Final = frozenset(DESCRIPTIONS)
PLATFORM: Final = frozenset(scope for scope in ALL if scope.startswith("platform."))
TENANT: Final = ALL - PLATFORM
"""Every scope inside a tenant: what its first client has."""

SERVICE: Final = TENANT - {"identity.clients.write", "identity.members.merge", "identity.clock.write"}
"""What Siyu's own services have: all that a saga or a consumer may call, and nothing that makes credentials."""

_TILL: Final = frozenset(
    {
        "identity.read",
        "identity.members.read",
        "identity.members.write",
        "loyalty.points.read",
        "loyalty.programme.read",
        "loyalty.tiers.read",
        "campaign.quote",
        "campaign.coupons.read",
        "campaign.promotions.read",
        "commerce.catalogue.read",
        "commerce.stock.read",
        "commerce.orders.read",
        "commerce.orders.write",
        "commerce.pos.sell",
        "commerce.refunds.write",
    }
)
_SUPPLIER: Final = frozenset(
    {
        "commerce.supplier_orders.read",
        "commerce.supplier_orders.write",
        "commerce.settlement.read",
    }
)
_PARTNER: Final = frozenset(
    {
        "identity.members.read",
        "loyalty.points.read",
        "loyalty.tiers.read",
        "campaign.coupons.read",
        "commerce.catalogue.read",
        "commerce.stock.read",
        "commerce.orders.read",
    }
)
_STAFF: Final = frozenset({scope for scope in TENANT if scope.endswith(".read")}) | {
    "identity.members.write",
    "campaign.quote",
    "commerce.orders.write",
    "commerce.refunds.write",
}

USUAL: Final[dict[ActorKind, frozenset[str]]] = {
    ActorKind.POS: _TILL,
    ActorKind.BACKEND: TENANT,
    ActorKind.SUPPLIER: _SUPPLIER,
    ActorKind.PARTNER: _PARTNER,
    ActorKind.STAFF: _STAFF - {"audit.read", "events.read"},
}
"""What a client of the kind gets that asks for nothing in particular."""

GRANTABLE: Final[dict[ActorKind, frozenset[str]]] = {
    # a till that books points by itself (off-line batches) is allowed, but has to be asked for
    ActorKind.POS: _TILL | {"loyalty.points.write", "campaign.coupons.write"},
    ActorKind.BACKEND: TENANT,
    ActorKind.SUPPLIER: _SUPPLIER | {"commerce.catalogue.read", "commerce.stock.read", "commerce.stock.write"},
    ActorKind.PARTNER: TENANT - {"identity.clients.write", "identity.clock.write", "audit.read"},
    ActorKind.STAFF: TENANT - {"identity.clock.write"},
}
"""The most that a client of the kind can be given."""


def scopes_to_grant(kind: ActorKind, asked: Iterable[str], *, granter: frozenset[str]) -> tuple[str, ...]:
    """The new client's scopes, sorted; asking for none takes the usual ones of the kind.

    Raises Invalid for a scope that does not exist, ScopeNotGrantable for one that the kind can't carry or that the
    granter lacks: nobody makes a client that can do more than its maker.
    """
    wanted = frozenset(asked) or USUAL[kind]
    if unknown := wanted - ALL:
        raise Invalid(f"no such scope: {', '.join(sorted(unknown))}", field="scopes")
    if beyond := wanted - GRANTABLE[kind]:
        raise ScopeNotGrantable(beyond, why=f"a {kind} client can't have")
    if lacking := wanted - granter:
        raise ScopeNotGrantable(lacking, why="the caller itself lacks")
    return tuple(sorted(wanted))
