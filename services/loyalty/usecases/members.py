"""Following identity: its tenants, and its merges of members."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.loyalty.domain import tiers as tier_rules
from services.loyalty.domain.programme import Programme, in_force
from services.loyalty.domain.tiers import Standing
from services.loyalty.store import members, programmes, tiers
from services.loyalty.store.tiers import Account
from services.runtime import tenants
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedMembers:
    """`alias_id` is another name of `member_id` from now on."""

    merge_id: str
    member_id: str
    alias_id: str


Told = Tenant | MergedMembers


@dataclass(frozen=True, slots=True)
class MemberFollowing:
    """Keeps loyalty in step with identity."""

    async def follow(self, connection: Connection, call: Call, told: Sequence[Told]) -> None:
        """Applies what identity told, in its order."""
        for each in told:
            if isinstance(each, Tenant):
                await tenants.apply(connection, each)
            else:
                await self._merge(connection, call, each)

    async def _merge(self, connection: Connection, call: Call, merge: MergedMembers) -> None:
        await members.merge(
            connection,
            call.tenant_id,
            call.now,
            merge_id=merge.merge_id,
            member_id=merge.member_id,
            alias_id=merge.alias_id,
        )
        dropped = await tiers.merge(connection, call.tenant_id, alias_id=merge.alias_id, member_id=merge.member_id)
        kept: dict[Account, Standing] = {}
        for point_currency, standing in dropped.items():
            version = in_force(await programmes.versions(connection, call.tenant_id, point_currency), call.now)
            if version is not None:
                account = Account(merge.member_id, point_currency)
                own = (await tiers.standings(connection, call.tenant_id, [account])).get(account)
                kept[account] = better(version.programme, own, standing)
        await tiers.store(connection, call.tenant_id, kept, [])


def better(programme: Programme, own: Standing | None, other: Standing) -> Standing:
    """The higher of two standings for the survivor; of equal ones the longer. Its version stays the survivor's."""
    if own is None:
        return other

    def rank(standing: Standing) -> tuple[int, float]:
        tier = tier_rules.tier_of(programme, standing)
        until = standing.until.timestamp() if standing.until else 0.0
        return (programme.tiers.index(tier) if tier else 0, until)

    best = max(own, other, key=rank)
    return Standing(tier_id=best.tier_id, since=best.since, until=best.until, version=max(own.version, other.version))
