"""The main job over a sample of the busiest fortnight: replayed through every service and the edge, and judged."""

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

    pasted = first_calls(stack)
    assert re.search(r"/v1/members/[0-9a-f-]{36}/points/points", pasted)
