"""The main job over a sample of the busiest fortnight: replayed through every service and the edge, and judged."""

import asyncio
import contextlib
import json
import re
from collections.abc import Collection, Sequence
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from services.console import audit
from services.console.demo.main import first_calls, run
from services.console.stack.local import LocalStack
from services.console.stack.settings import REPOSITORY
from services.console.tenants import create_tenant, known_tenants, replayed_now
from services.runtime.ids import new_id
from siyu.identity.v1 import tenant_pb2

WEEKS = "33,34"
ONE_HOUSEHOLD_IN = 24
FEW_HOUSEHOLDS = 240


@pytest.mark.timeout(600)
async def test_a_fortnight_is_replayed_and_the_books_agree(stack: LocalStack) -> None:
    written = StringIO()
    console = Console(file=written, width=200, color_system=None)
    failed = await run(stack, weeks=WEEKS, one_in=ONE_HOUSEHOLD_IN, console=console)
    assert failed == 0, written.getvalue()
    assert differing(await audit.findings_of(stack)) == []
    assert "simulated data, based on real shopping patterns" in written.getvalue()

    # a second run finds the brand, replays nothing, and judges the same books
    again = StringIO()
    console = Console(file=again, width=200, color_system=None)
    assert await run(stack, weeks=WEEKS, one_in=ONE_HOUSEHOLD_IN, console=console) == 0
    assert "is here since the last run" in again.getvalue()
    assert "seeded" not in again.getvalue()

    # the first calls work as they are pasted, and what a person sells does not turn the books red
    pasted = re.sub(r"(?m)^  The .*$", "", first_calls(stack).split("in this folder:", 1)[1])
    balance, sold = await _pasted(pasted)
    assert int(balance["availablePoints"]) > 0
    assert sold["order"]["state"] == "ORDER_STATE_PAID"
    after = StringIO()
    console = Console(file=after, width=200, color_system=None)
    assert await run(stack, weeks=WEEKS, one_in=ONE_HOUSEHOLD_IN, console=console) == 0, after.getvalue()
    assert "1 sale of yours is not in the files; 1 member with sales or points of yours" in after.getvalue()
    charged = int(sold["order"]["netMinor"])
    assert f"1, charged {charged // 100}.{charged % 100:02d} USD: not in the figures above" in after.getvalue()
    assert differing(await audit.findings_of(stack)) == []


@pytest.mark.timeout(300)
async def test_the_brand_of_an_interrupted_replay_stays_in_the_audit(stack: LocalStack) -> None:
    before = known_tenants(stack.directory)
    written = StringIO()
    console = Console(file=written, width=200, color_system=None)
    replay = asyncio.create_task(run(stack, weeks=WEEKS, one_in=FEW_HOUSEHOLDS, seed="interrupted", console=console))
    async with asyncio.timeout(120):
        while not await _sales_of(stack, set(known_tenants(stack.directory)) - set(before)):
            assert not replay.done(), written.getvalue()
            await asyncio.sleep(0.1)
    (half,) = set(known_tenants(stack.directory)) - set(before)
    assert replayed_now(stack.directory) == half
    replay.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await replay
    assert replayed_now(stack.directory) == ""

    assert await run(stack, weeks=WEEKS, one_in=FEW_HOUSEHOLDS, seed="interrupted", console=console) == 0
    assert "was not finished; it stays, and the audit checks it too: a new one begins" in written.getvalue()
    (whole,) = set(known_tenants(stack.directory)) - {*before, half}
    found = await audit.findings_of(stack)
    assert differing(found) == []
    named = {each.tenant_id: str(each) for each in found}
    assert re.fullmatch(rf"journey-\S+ \(tenant {half}\), whose replay was not finished", named[half])
    assert re.fullmatch(rf"journey-\S+ \(tenant {whole}\)", named[whole])


def differing(found: Sequence[audit.Audited]) -> list[audit.Finding]:
    """The findings that do not hold; at least one is there to hold."""
    findings = [finding for each in found for finding in each.findings]
    assert findings
    return [finding for finding in findings if not finding.ok]


async def _sales_of(stack: LocalStack, tenants: Collection[str]) -> int:
    """How many orders the tenants have, as commerce tells its auditor."""
    auditor = audit.Auditor(addresses=stack.addresses, client_secret=stack.client_secret(audit.AUDITOR))
    findings = [finding for each in tenants for finding in await auditor.audit(each, wait_s=0)]
    return sum(finding.examined for finding in findings if finding.check == "commerce.lines_sum_to_orders")


async def test_a_brand_of_ones_own_is_made_as_the_readme_says(stack: LocalStack) -> None:
    written = StringIO()
    console = Console(file=written, width=200, color_system=None)
    asked = tenant_pb2.Tenant(code=f"tea-{new_id()}", display_name="Tea house")
    assert await create_tenant(stack.settings, tenant=asked, console=console) == 0
    readme = (REPOSITORY / "README.md").read_text()
    commands = readme.split("## Your own brand")[1].split("```\n")[3]
    assert "call pos:sell" in commands
    exported = re.search(r"(?m)^  export SIYU=.*\\\n.*$", written.getvalue())
    assert exported is not None
    *made, sold = await _pasted(f"{exported[0]}\n{commands}")
    assert [answer for answer in made if "code" in answer] == [], "none is refused"
    assert (sold["order"]["netMinor"], sold["order"]["quotedPoints"]) == ("8600", "86")


async def _pasted(commands: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", commands, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return [json.loads(line) for line in said.decode().splitlines()]
