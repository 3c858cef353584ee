"""Brings Siyu up on this machine for a person, shows what runs and how to speak to it."""

import asyncio
import contextlib
import importlib
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from services.console import audit
from services.console.stack.local import LocalStack
from services.console.stack.program import Program
from services.console.stack.settings import StackSettings
from services.console.stack.supervisor import Say

# The demonstration then takes the two adjacent weeks with the most coupon redemptions.
DEFAULT_WEEKS = ""


async def stay_up(settings: StackSettings, *, console: Console) -> int:
    """Starts the stack and keeps it until a signal comes; 0 once it was stopped in order."""
    async with LocalStack(settings, say=_sayer(console)) as stack:
        show(stack, console=console)
        console.print(escape(next_steps(stack.addresses["edge"])), soft_wrap=True)
        return await until_stopped(console)


async def demonstrate(settings: StackSettings, *, weeks: str, stay: bool, console: Console) -> int:
    """Starts the stack, replays sales, reports and audits; 0 only if the books agree (and it was stopped in order).

    Raises StackRefused, before anything is started, for weeks that are none."""
    demo = importlib.import_module("services.console.demo.main")
    demo.require_weeks(weeks)
    async with LocalStack(settings, say=_sayer(console)) as stack:
        show(stack, console=console)
        checks = [(check.name, check.ok) for check in await demo.checks(stack, weeks=weeks, console=console)]
        replayed = len(checks)
        for audited in await audit.findings_of(stack):
            tell = audit.summarise if all(finding.ok for finding in audited.findings) else audit.show
            tell(audited, console=console)
            checks += [(f"{finding.where}: {finding.check}", finding.ok) for finding in audited.findings]
        sum_of = f"{replayed} of coverage and engine, {len(checks) - replayed} of the audit"
        verdict = audit.show_verdict(checks, console=console, sum_of=sum_of)
        if stay:
            show_first_calls(stack, console=console)
            await until_stopped(console)
    return verdict


async def until_stopped(console: Console) -> int:
    """Waits for a signal."""
    console.print("[bold]Siyu is up.[/bold] Ctrl-C stops it; the data stay for the next time.")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        # An orderly stop is what was asked for, and no failure.
        task = asyncio.current_task()
        assert task is not None, "it was cancelled, so it is a task"
        task.uncancel()
    return 0


def show(stack: LocalStack, *, console: Console) -> None:
    """Prints what runs."""
    console.print(escape(processes(stack.programs, stack.pids)), soft_wrap=True)


def processes(programs: Mapping[str, Program], pids: Mapping[str, int]) -> str:
    """A line per process, the log's path at its end: a table would break the path where the terminal ends."""
    rows = [("process", "pid", "address", "log")]
    rows += [(name, str(pids[name]), program.address, str(program.log)) for name, program in programs.items()]
    names, numbers, addresses, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = (f"  {name:<{names}}  {pid:>{numbers}}  {address:<{addresses}}  {log}" for name, pid, address, log in rows)
    return "\n".join(["Siyu on this machine", *lines])


def next_steps(edge: str) -> str:
    """What a person does with a stack that holds no brand of theirs yet."""
    return f"""
The edge, REST and gRPC: {edge}
The API as a page: http://{edge}/docs    its description: http://{edge}/openapi.json
Next, in another terminal, in this folder: a brand of your own, with its first client.

  .venv/bin/siyu tenant create --code tea --name Tea

What to do with it: README.md, "Your own brand". `make run` instead fills a brand with a grocery chain's sales.
"""


def show_first_calls(stack: LocalStack, *, console: Console) -> None:
    """Prints what a person pastes first: a log-in, a REST call, a gRPC call."""
    demo = importlib.import_module("services.console.demo.main")
    console.print(escape(demo.first_calls(stack)), soft_wrap=True)


def _sayer(console: Console) -> Say:
    def say(line: str) -> None:
        # The terminal may be gone already: that must not keep the stack from being stopped in order.
        with contextlib.suppress(OSError):
            console.print(f"[dim]siyu:[/dim] {escape(line)}", soft_wrap=True)

    return say
