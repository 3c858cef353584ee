"""The `siyu` command: one role of a service, or the whole of Siyu on this machine."""

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from services.console import audit as audits
from services.console import bringup, tenants
from services.console.stack.refusals import StackRefused
from services.console.stack.roles import ROLES, needed
from services.console.stack.settings import StackSettings
from services.runtime.migrations import PartitionsChangedError
from services.runtime.migrations import migrate as migrate_service
from services.runtime.settings import SERVICES, Settings, WrongSettingsError, from_environment
from siyu.identity.v1 import tenant_pb2

INTERRUPTED = 130
WRONG_CALL = 2
WIDTH_OF_A_FILE = 160

app = typer.Typer(
    name="siyu",
    help="Siyu: a retail chain's own members, points, campaigns and orders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
gate = typer.Typer(help="What a rollout would break.", no_args_is_help=True)
app.add_typer(gate, name="gate")
tenant_app = typer.Typer(help="Brands in the running stack.", no_args_is_help=True)
app.add_typer(tenant_app, name="tenant")
# Into a file or a pipe, tables are as wide as they need, and not as a terminal that isn't there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)


@app.command()
def run(
    service: Annotated[str, typer.Argument(help=f"one of {', '.join(ROLES)}")],
    role: Annotated[str, typer.Argument(help="api, relay, sweeper, worker (with --queue), or edge")] = "",
    queue: Annotated[str, typer.Option(help="the queue of a worker, such as accrual")] = "",
    roles: Annotated[str, typer.Option(help="several roles in one process, such as api,relay,worker:accrual")] = "",
) -> None:
    """Run one role of a service, or several in this process; settings come from the environment."""
    chosen = chosen_roles(service, role=role, queue=queue, roles=roles)
    _require(needed(service, chosen), whose=f"{service} {','.join(chosen)}")
    package = "gateway" if service == "gateway" else f"services.{service}"
    module = importlib.import_module(f"{package}.main")
    process = importlib.import_module("services.runtime.process")
    try:
        code = process.main(module, chosen, from_environment(Settings))
    except WrongSettingsError as wrong:
        _refuse(str(wrong))
    sys.exit(code)


@app.command()
def migrate(service: Annotated[str, typer.Argument(help="a service, or all")] = "all") -> None:
    """Bring the schemas in DATABASE_URL to this build's revision; safe to repeat, and to run twice at once."""
    if service not in {*SERVICES, "all"}:
        raise typer.BadParameter(f"no service {service!r}: {', '.join(SERVICES)} or all")
    _require(("DATABASE_URL",), whose="migrate")
    try:
        settings = from_environment(Settings)
    except WrongSettingsError as wrong:
        _refuse(str(wrong))
    for each in SERVICES if service == "all" else (service,):
        try:
            asyncio.run(migrate_service(settings, each))
        except PartitionsChangedError as changed:
            console.print(f"[red]siyu:[/red] {escape(str(changed))}", soft_wrap=True)
            sys.exit(1)
        console.print(f"{each}: up to date")


@app.command()
def stack() -> None:
    """Start all of Siyu on this machine and stay up, without any data of its own.

    README.md lists the environment variables that move its ports, its data and its servers.
    """
    _to_completion(lambda: bringup.stay_up(StackSettings.from_environment(), console=console))


@app.command()
def demo(
    weeks: Annotated[
        str, typer.Option(help="such as 33,34 or 30-35 or all; without it the fortnight with the most coupons")
    ] = bringup.DEFAULT_WEEKS,
    *,
    leave: Annotated[
        bool, typer.Option("--exit", help="stop at the end, with the audit's verdict as exit code")
    ] = False,
) -> None:
    """Start all of Siyu, replay a grocery chain's sales, report, audit, and stay up.

    README.md lists the environment variables that move its ports, its data and its servers.
    """
    _to_completion(
        lambda: bringup.demonstrate(StackSettings.from_environment(), weeks=weeks, stay=not leave, console=console)
    )


@app.command()
def audit(
    tenant: Annotated[
        list[str] | None, typer.Option(help="a tenant's id; without it, all that this machine's stack knows")
    ] = None,
    wait_s: Annotated[float, typer.Option(help="how long consumers may take to catch up")] = audits.WAIT_S,
) -> None:
    """Check the books of the running stack, service by service and across them; exit 0 only if all agree."""
    _to_completion(
        lambda: audits.audit_running(
            StackSettings.from_environment(), tenants=tuple(tenant or ()), wait_s=wait_s, console=console
        )
    )


@app.command()
def bench(only: Annotated[str, typer.Option(help="the name of one measurement")] = "") -> None:
    """Measure, print a table and write build/bench.json."""
    sys.exit(importlib.import_module("tests.bench.main").main(only=only))


@tenant_app.command("create")
def tenant_create(
    code: Annotated[str, typer.Option(help="unique in the installation, such as tea")],
    name: Annotated[str, typer.Option(help="what people call the brand")],
    time_zone: Annotated[str, typer.Option(help="days, weeks and expiry dates are in it")] = "Asia/Shanghai",
    currency: Annotated[str, typer.Option(help="ISO 4217, of the brand's prices")] = "CNY",
    region: Annotated[str, typer.Option(help="ISO 3166-1: phone numbers without a country code are of it")] = "CN",
) -> None:
    """Make a brand of your own in the running stack; prints its first client, and its secret."""
    asked = tenant_pb2.Tenant(
        code=code, display_name=name, time_zone=time_zone, currency_code=currency, region_code=region
    )
    _to_completion(lambda: tenants.create_tenant(StackSettings.from_environment(), tenant=asked, console=console))


@gate.command("check")
def gate_check(
    files: Annotated[
        Path | None, typer.Option(help="a kustomization, or rendered manifests, instead of the cluster")
    ] = None,
    namespace: Annotated[str, typer.Option(help="the namespace that Siyu runs in")] = "siyu",
) -> None:
    """Say what a rollout would break: roles missing, ports and probes off, no headroom, migrations not run."""
    sys.exit(importlib.import_module("k8s.gate.main").main(files=files, namespace=namespace))


def chosen_roles(service: str, *, role: str, queue: str, roles: str) -> tuple[str, ...]:
    """The roles to run; all of the service's if none is named. Raises BadParameter with the names there are."""
    if service not in ROLES:
        raise typer.BadParameter(f"no service {service!r}: {', '.join(ROLES)}")
    named = f"{role}:{queue}" if queue else role
    chosen = tuple(part for part in (roles or named).split(",") if part) or ROLES[service]
    for each in chosen:
        if each not in ROLES[service]:
            raise typer.BadParameter(f"{service} has no role {each!r}: {', '.join(ROLES[service])}")
    return chosen


def _require(names: Iterable[str], *, whose: str) -> None:
    """Exits with 2 and a line that names what the environment lacks: a default would be somebody else's server."""
    if missing := [name for name in names if not os.environ.get(name)]:
        _refuse(
            f"{whose} needs {', '.join(missing)} in its environment; on one machine `siyu stack` sets all that "
            "each role needs, for a cluster k8s/README.md does"
        )


def _refuse(why: str) -> NoReturn:
    typer.echo(f"siyu: {why}", err=True)
    sys.exit(WRONG_CALL)


def _to_completion(work: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Runs the work and exits with its code. SIGINT, SIGTERM and SIGHUP cancel it, which stops
    in order all that it started."""

    async def until_signal() -> int:
        task = asyncio.current_task()
        assert task is not None, "asyncio.run runs tasks"
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Under nohup a hang-up is ignored, and stays so.
            if signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await work()

    try:
        code = asyncio.run(until_signal())
    except StackRefused as refused:
        console.print(f"[red]siyu:[/red] {escape(str(refused))}", soft_wrap=True)
        code = 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = INTERRUPTED
    sys.exit(code)


def main() -> None:
    """The entry point."""
    app(prog_name="siyu")
