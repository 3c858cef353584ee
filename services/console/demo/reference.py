"""Starts the reference implementation (`tests/reference`) as a process of its own.

A process and not an import: nothing under `services` depends on the tests, not even by accident; it can't share state
with what it checks; and it computes on the second core while the shops are opened.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from services.console.stack.settings import REPOSITORY

MODULE = "tests.reference"


class ReferenceFailed(Exception):
    """The reference implementation ended without a result."""


async def expected_books(plan: Path, out: Path) -> dict[str, Any]:
    """Computes what must be in the books after the plan, writes it to `out` and returns it. Both paths are absolute."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", MODULE, "--plan", str(plan), "--out", str(out)),
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise ReferenceFailed(f"the reference implementation failed:\n{said.decode(errors='replace')}")
    found = json.loads(await asyncio.to_thread(out.read_text))
    assert isinstance(found, dict)
    return found
