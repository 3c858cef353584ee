"""The main job over a sample of the busiest fortnight: replayed through every service and the edge, and judged."""

import asyncio
import json
import re
from io import StringIO

import pytest
from rich.console import Console

from services.console import audit
from services.console.demo.main import first_calls, run
from services.console.stack.local import LocalStack

WEEKS = "33,34"
ONE_HOUSEHOLD_IN = 24


@pytest.mark.timeout(600)
async def test_a_fortnight_is_replayed_and_the_books_agree(stack: LocalStack) -> None:
    written = StringIO()
    console = Console(file=written, width=200, color_system=None)
    failed = await run(stack, weeks=WEEKS, one_in=ONE_HOUSEHOLD_IN, console=console)
    assert failed == 0, written.getvalue()
    assert await audit.audit_stack(stack, console=console) == 0, written.getvalue()
    assert "simulated data, based on real shopping patterns" in written.getvalue()

    # a second run finds the brand, replays nothing, and judges the same books
    again = StringIO()
    console = Console(file=again, width=200, color_system=None)
    assert await run(stack, weeks=WEEKS, one_in=ONE_HOUSEHOLD_IN, console=console) == 0
    assert "is here since the last run" in again.getvalue()
    assert "seeded" not in again.getvalue()

    # the first calls work as they are pasted, and what a person sells does not turn the books red
    pasted = re.sub(r"(?m)^  The .*$", "", first_calls(stack).split("in this folder:", 1)[1])
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", pasted, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    balance, sold = (json.loads(line) for line in said.decode().splitlines())
    assert int(balance["availablePoints"]) > 0
    assert sold["order"]["state"] == "ORDER_STATE_PAID"
    after = StringIO()
    console = Console(file=after, width=200, color_system=None)
    assert await run(stack, weeks=WEEKS, one_in=ONE_HOUSEHOLD_IN, console=console) == 0, after.getvalue()
    assert "1 sale of yours is not in the files; 1 member with sales or points of yours" in after.getvalue()
    assert await audit.audit_stack(stack, console=console) == 0, after.getvalue()
