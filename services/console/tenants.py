"""Which tenants the console made on this machine: those that `siyu audit` checks without being told."""

import json
from pathlib import Path


def remember_tenant(directory: Path, tenant_id: str) -> None:
    """Adds the tenant to those that `siyu audit` checks without being told which."""
    known = known_tenants(directory)
    if tenant_id not in known:
        (directory / "tenants.json").write_text(json.dumps([*known, tenant_id]))


def known_tenants(directory: Path) -> tuple[str, ...]:
    """The tenants that were remembered, oldest first."""
    file = directory / "tenants.json"
    return tuple(json.loads(file.read_text())) if file.exists() else ()
