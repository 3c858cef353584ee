"""What time does to holds: those whose time is over go back, tombstones are forgotten."""

from dataclasses import dataclass
from typing import Final

import structlog

from services.campaign.store import holds
from services.campaign.usecases.holds import HoldBook
from services.runtime.call import Call
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.errors import Unavailable

MAX_TENANTS: Final = 500
MAX_STEPS: Final = 20
MAX_TOMBSTONES: Final = 1_000

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweeper:
    """Sweeps all tenants. `database` is on the system role; each tenant's holds are resolved in its own transaction."""

    database: Database
    book: HoldBook

    async def sweep(self, call: Call) -> int:
        """One bounded round; how many holds it resolved. What it leaves is the next round's.

        A tenant whose holds can't be resolved is told, and the others are swept. Raises Unavailable."""
        machine_now = self.book.clock.now()
        tenant_ids = await self.database.read(
            EVERY_TENANT, lambda c: holds.due_tenants(c, machine_now=machine_now, limit=MAX_TENANTS)
        )
        resolved = 0
        for tenant_id in tenant_ids:
            try:
                resolved += await self._sweep_tenant(call._replace(tenant_id=tenant_id, now=machine_now))
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - a broken hold must not end the process
                _log.error("a tenant's holds stay", tenant_id=tenant_id, exc_info=error)
        await self.database.run(
            EVERY_TENANT, lambda c: holds.forget_tombstones(c, machine_now=machine_now, limit=MAX_TOMBSTONES)
        )
        return resolved

    async def _sweep_tenant(self, call: Call) -> int:
        async def work(connection: Connection) -> int:
            return await self.book.give_back_due(connection, call)

        resolved = 0
        for _ in range(MAX_STEPS):
            step = await self.database.run(call.tenant_id, work)
            resolved += step
            if step < holds.MAX_DUE:
                break
        return resolved
