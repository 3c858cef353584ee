"""Following identity: its tenants, and its merges of members."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.loyalty.domain import tiers as tier_rules
from services.loyalty.domain.events import LoyaltyEvent
from services.loyalty.domain.programme import in_force
from services.loyalty.domain.tiers import Standing
from services.loyalty.store import members, programmes, tiers
from services.loyalty.store.tiers import Account
from services.loyalty.usecases.tiers import tier_changed
from services.runtime import tenants
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.outbox import Outbox
from services.runtime.tenants import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedMembers:
    """`alias_id` is another name of `member_id` from now on."""

    merge_id: str
    member_id: str
    alias_id: str


Told = Tenant | MergedMembers


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFollowing:
    """Keeps loyalty in step with identity."""

    outbox: Outbox[LoyaltyEvent]

    async def follow(self, connection: Connection, call: Call, told: Sequence[Told]) -> None:
        """Applies what identity told, in its order."""
        merges = [each for each in told if isinstance(each, MergedMembers)]
        if len(merges) > 1:
            # all in one order: a later merge would lock accounts behind those that an earlier one has
            concerned = [member_id for merge in merges for member_id in (merge.member_id, merge.alias_id)]
            await members.enter(connection, call.tenant_id, call.now, concerned)
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
        # whose the points are now: a merge of the survivor itself, told in another partition, may have come before
        survivors = await members.survivors(connection, call.tenant_id, [merge.alias_id])
        survivor = survivors.get(merge.alias_id)
        if survivor is None:
            return
        concerned = await tiers.merge(connection, call.tenant_id, alias_id=merge.alias_id, member_id=survivor)
        for point_currency, standing in concerned.items():
            await self._unite(connection, call, Account(survivor, point_currency), standing)

    async def _unite(self, connection: Connection, call: Call, account: Account, other: Standing | None) -> None:
        """Gives the survivor the tier that both have or reach together."""
        versions = await programmes.versions(connection, call.tenant_id, account.point_currency)
        version = in_force(versions, call.now)
        if version is None or not version.programme.tiers:
            return
        window = tier_rules.window_at(version.programme, call.now, call.time_zone)
        lowest = tier_rules.lowest(version.programme)
        after, change = tier_rules.after_merge(
            version.programme,
            (await tiers.standings(connection, call.tenant_id, [account], lock=True)).get(account, lowest),
            other or lowest,
            (await tiers.counters(connection, call.tenant_id, {account: window}))[account],
            now=call.now,
            time_zone=call.time_zone,
        )
        if after.since is not None:
            changes = [] if change is None else [(account, after.version, change)]
            await tiers.store(connection, call.tenant_id, {account: after}, changes)
            await self.outbox.append(connection, call, *(tier_changed(*each) for each in changes))
