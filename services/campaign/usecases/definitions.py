"""Definitions of promotions and templates, kept in the process.

Nothing here decides about money. Promotions are kept as long as the tenant's catalogue version stands still, which
every quote reads anew; versions of templates never change. Budgets and coupons are never kept, and a hold checks both
again under their locks.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from services.campaign.domain.coupons import Template
from services.campaign.domain.promotions import Promotion
from services.campaign.store import promotions, templates
from services.runtime.database import Connection, Database

MAX_TENANTS: Final = 1_000
MAX_TEMPLATES: Final = 20_000


@dataclass(frozen=True, slots=True)
class _Catalogue:
    version: int
    promotions: tuple[Promotion, ...]


@dataclass(slots=True)
class Definitions:
    """What this process knows of every tenant's promotions and templates; the least used are forgotten first."""

    database: Database
    _catalogues: OrderedDict[str, _Catalogue] = field(default_factory=OrderedDict)
    _templates: OrderedDict[tuple[str, str, int], Template] = field(default_factory=OrderedDict)
    _loading: dict[str, asyncio.Lock] = field(default_factory=dict)

    async def promotions(self, tenant_id: str, *, version: int) -> tuple[Promotion, ...]:
        """The tenant's promotions, at least as new as `version`."""
        if version == 0:
            return ()
        known = self._catalogues.get(tenant_id)
        if known is not None and known.version >= version:
            self._catalogues.move_to_end(tenant_id)
            return known.promotions
        # one load, however many quotes see the change first
        async with self._loading.setdefault(tenant_id, asyncio.Lock()):
            known = self._catalogues.get(tenant_id)
            if known is None or known.version < version:
                known = await self._load(tenant_id)
        return known.promotions

    async def templates(self, tenant_id: str, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], Template]:
        """Templates by id and version; those that do not exist are left out."""
        found: dict[tuple[str, int], Template] = {}
        missing: list[tuple[str, int]] = []
        for template_id, version in wanted:
            key = (tenant_id, template_id, version)
            template = self._templates.get(key)
            if template is None:
                missing.append((template_id, version))
            else:
                self._templates.move_to_end(key)
                found[template_id, version] = template
        if missing:
            loaded = await self.database.read(tenant_id, lambda c: templates.versions(c, tenant_id, missing))
            for (template_id, version), template in loaded.items():
                self._templates[tenant_id, template_id, version] = template
            while len(self._templates) > MAX_TEMPLATES:
                self._templates.popitem(last=False)
            found |= loaded
        return found

    async def _load(self, tenant_id: str) -> _Catalogue:
        async def work(connection: Connection) -> _Catalogue:
            return _Catalogue(*await promotions.current(connection, tenant_id))

        catalogue = await self.database.read(tenant_id, work)
        self._catalogues[tenant_id] = catalogue
        self._catalogues.move_to_end(tenant_id)
        while len(self._catalogues) > MAX_TENANTS:
            forgotten, _ = self._catalogues.popitem(last=False)
            self._loading.pop(forgotten, None)
        return catalogue
