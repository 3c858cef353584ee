"""Posting what is due by the passing of time. Nothing waits for it: a call that touches an account settles it first."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from services.loyalty.store import sweeps
from services.loyalty.usecases.tiers import JUDGED_AT_ONCE, TierEnding
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import Clock
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.errors import Unavailable
from services.runtime.events import reason_of, stack_of
from services.runtime.forgetting import until_done
from services.runtime.tenants import Tenant

ACCOUNTS_AT_ONCE = 200
HOLDS_AT_ONCE = 100
FORGOTTEN_AT_ONCE = 1000
# what a round leaves is the next round's: one tenant must not keep the others waiting
MAX_STEPS = 50
STEP_TIMEOUT_S = 20.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """Matures, expires, ends holds and tiers, for every tenant by its own business time. On the system role."""

    database: Database
    tiers: TierEnding
    clock: Clock

    async def sweep(self) -> int:
        """One round; how many accounts, holds and standings were due. What fails is told and tried again next round.

        Raises Unavailable."""
        machine_now = self.clock.now()

        async def due(connection: Connection) -> list[Tenant]:
            return await sweeps.tenants_due(connection, machine_now)

        done = 0
        for tenant in await self.database.read(EVERY_TENANT, due):
            done += await self._tenant(tenant, machine_now)
        return done

    async def forget(self) -> None:
        """Drops what need not be remembered any more."""
        machine_now = self.clock.now()

        async def work(connection: Connection) -> int:
            return await sweeps.forget(connection, machine_now, limit=FORGOTTEN_AT_ONCE)

        await until_done(self.database, work, at_once=FORGOTTEN_AT_ONCE)

    async def _tenant(self, tenant: Tenant, machine_now: datetime) -> int:
        now = tenant.test_clock_at or machine_now

        async def settle(connection: Connection) -> int:
            return await sweeps.settle(connection, tenant.id, now, limit=ACCOUNTS_AT_ONCE)

        async def holds(connection: Connection) -> int:
            return await sweeps.expire_holds(connection, tenant.id, now, machine_now=machine_now, limit=HOLDS_AT_ONCE)

        async def tiers(connection: Connection) -> int:
            return await self.tiers.judge(connection, _call(tenant, now))

        done = 0
        for step, full in ((settle, ACCOUNTS_AT_ONCE), (holds, HOLDS_AT_ONCE), (tiers, JUDGED_AT_ONCE)):
            try:
                done += await self._steps(tenant.id, step, full=full)
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the other tenants' points are due as well
                known = {"tenant_id": tenant.id, "step": step.__name__}
                _log.error("what is due stays", reason=reason_of(error), stack=stack_of(error), **known)
        return done

    async def _steps(self, tenant_id: str, step: Callable[[Connection], Awaitable[int]], *, full: int) -> int:
        done = 0
        for _ in range(MAX_STEPS):
            count = await self.database.run(tenant_id, step, timeout_s=STEP_TIMEOUT_S)
            done += count
            if count < full:
                break
        return done


def _call(tenant: Tenant, now: datetime) -> Call:
    return Call(
        tenant_id=tenant.id,
        client_id="loyalty.sweeper",
        actor=Actor(kind=ActorKind.SERVICE, id="loyalty"),
        now=now,
        time_zone=tenant.time_zone,
        deadline_at=deadline_in(STEP_TIMEOUT_S),
    )
