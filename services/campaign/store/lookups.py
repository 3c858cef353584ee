"""What a quote needs to know of this moment, in one round trip: many quotes of a tenant share one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.campaign.domain.coupons import Coupon
from services.campaign.store.coupons import coupon_of
from services.runtime.database import Lane

LOOKUP_TIMEOUT_S = 2.0
_LOOKUP = """
    SELECT what, name, promotion_id, amount, version, state, member_id::text, code, starts_at, ends_at, held_until
    FROM quote_lookup($1::uuid, $2::text[], $3::bytea[], $4::uuid[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What one quote asks for: SKUs, hashed codes, and its member (empty: none)."""

    skus: frozenset[str]
    codes: tuple[bytes, ...]
    member_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found for a batch of quotes: more than each asked for, by keys that each looks up its own by.

    `catalogue_version` 0: no promotion was ever made. Budgets are what is left, in minor units.
    """

    catalogue_version: int = 0
    member_prices: Mapping[tuple[str, str], int] = field(default_factory=dict)
    budgets_left: Mapping[str, int] = field(default_factory=dict)
    coupons: Mapping[bytes, Coupon] = field(default_factory=dict)
    survivors: Mapping[str, str] = field(default_factory=dict)


async def find(lane: Lane, tenant_id: str, lookups: Sequence[Lookup]) -> Sequence[Found]:
    """One answer for all: they are of one tenant and read the same moment."""
    rows = await lane.fetch(
        _LOOKUP,
        tenant_id,
        sorted({sku for lookup in lookups for sku in lookup.skus}),
        list({code for lookup in lookups for code in lookup.codes}),
        list({lookup.member_id for lookup in lookups if lookup.member_id}),
        timeout_s=LOOKUP_TIMEOUT_S,
    )
    version = 0
    prices: dict[tuple[str, str], int] = {}
    budgets: dict[str, int] = {}
    coupons: dict[bytes, Coupon] = {}
    survivors: dict[str, str] = {}
    for row in rows:
        match row["what"]:
            case "catalogue":
                version = row["version"]
            case "price":
                prices[row["promotion_id"], row["name"]] = row["amount"]
            case "budget":
                budgets[row["promotion_id"]] = row["amount"]
            case "coupon":
                coupons[row["code"]] = coupon_of(
                    {
                        "coupon_id": row["name"],
                        "template_id": row["promotion_id"],
                        "template_version": row["version"],
                        "member_id": row["member_id"],
                        "state": row["state"],
                        "valid_from": row["starts_at"],
                        "valid_until": row["ends_at"],
                        "held_until": row["held_until"],
                    }
                )
            case "alias":
                survivors[row["name"]] = row["member_id"]
            case other:
                raise AssertionError(f"quote_lookup tells {other!r}")
    found = Found(
        catalogue_version=version,
        member_prices=prices,
        budgets_left=budgets,
        coupons=coupons,
        survivors=survivors,
    )
    return [found] * len(lookups)
