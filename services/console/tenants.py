"""Tenants of this machine's stack: those that the console made, and how a person makes one."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from services.console.demo.brand import PLATFORM_CLIENT
from services.console.demo.calls import Caller, Wire, reason_of
from services.console.stack.local import running_edge, running_stack
from services.console.stack.lock import held_lock, holder
from services.console.stack.refusals import StackRefused
from services.console.stack.secrets import installation_secret, load_secrets
from services.console.stack.settings import StackSettings
from services.runtime.errors import AlreadyExists, DomainError, Invalid
from siyu.identity.v1 import tenant_pb2, tenant_pb2_grpc


def remember_tenant(directory: Path, tenant_id: str, *, unfinished: bool = False) -> None:
    """Adds the tenant to those that `siyu audit` checks by itself; it is `unfinished` until its replay ends."""
    known = known_tenants(directory) | {tenant_id: unfinished}
    (directory / "tenants.json").write_text(json.dumps(known))


def known_tenants(directory: Path) -> dict[str, bool]:
    """The tenants that were remembered, oldest first, and whether a replay of theirs has not come to its end."""
    file = directory / "tenants.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    # older builds wrote a list, of finished ones only
    return dict(found) if isinstance(found, dict) else dict.fromkeys(found, False)


def replaying(directory: Path) -> AbstractContextManager[bool]:
    """While it is held, the tenant that was remembered last as unfinished is being replayed."""
    folder = _replay_folder(directory)
    folder.mkdir(parents=True, exist_ok=True)
    return held_lock(folder, say=lambda _line: None)


def replayed_now(directory: Path) -> str:
    """The tenant that a process is replaying; empty if none is."""
    unfinished = [tenant_id for tenant_id, is_unfinished in known_tenants(directory).items() if is_unfinished]
    return unfinished[-1] if unfinished and holder(_replay_folder(directory)) is not None else ""


def _replay_folder(directory: Path) -> Path:
    return directory / "demo"


async def create_tenant(settings: StackSettings, *, tenant: tenant_pb2.Tenant, console: Console) -> int:
    """Makes a tenant in the running stack and prints its first client; the same code and name answer the same.

    Raises StackRefused if no stack runs here, or if identity refuses the tenant."""
    directory = settings.state_directory
    environment = running_stack(directory)
    if environment is None:
        raise StackRefused("no stack runs here: `siyu stack` or `make run` starts one")
    secret = installation_secret(load_secrets(directory)["root_secret"], PLATFORM_CLIENT)
    wire = Wire({"identity": environment["SIYU_IDENTITY_ADDRESS"]})
    request = tenant_pb2.CreateTenantRequest(
        request_id=f"tenant-{tenant.code}",
        code=tenant.code,
        display_name=tenant.display_name,
        time_zone=tenant.time_zone,
        currency_code=tenant.currency_code,
        region_code=tenant.region_code,
    )
    try:
        stub = wire.stub(tenant_pb2_grpc.TenantServiceStub)
        caller = Caller(client_id=PLATFORM_CLIENT, secret=secret)
        made = await wire.call(stub.CreateTenant, request, caller=caller)
    except DomainError as refused:
        raise StackRefused(refusal_of(refused, code=tenant.code)) from refused
    finally:
        await wire.close()
    remember_tenant(directory, made.tenant.tenant_id)
    console.print(escape(introduction(made, edge=running_edge(directory))), soft_wrap=True)
    return 0


def refusal_of(error: DomainError, *, code: str) -> str:
    """Why the tenant was not made, in the words of `siyu tenant create`: its request id is made of the code."""
    if isinstance(error, AlreadyExists):
        return f"the code {code!r} is taken: choose another, or repeat all that it was made with"
    if isinstance(error, Invalid):
        violations = tuple((field, why) for field, why in error.violations if field != "request_id")
        if violations != error.violations:
            error = Invalid(violations=violations, reason=error.reason, metadata=error.metadata)
    return reason_of(error)


def introduction(made: tenant_pb2.CreateTenantResponse, *, edge: str) -> str:
    """The tenant and its first client, to paste; the secret is there as long as identity tells it again."""
    told = made.tenant
    return f"""
tenant {told.tenant_id}: {told.display_name}, in {told.time_zone}, {told.currency_code}, region {told.region_code}
its first client may do everything in this brand, and makes the others; keep its secret, which this command tells again
for 24 hours and nobody after that:

  export SIYU={edge} CLIENT_ID={made.admin_client_id} \\
    CLIENT_SECRET={made.admin_client_secret or "(told for 24 hours, which are over)"}

  # the brand, as it sees itself
  curl -sS -w '\\n' -H "x-api-key: $CLIENT_ID.$CLIENT_SECRET" http://$SIYU/v1/tenant
"""
