"""A stack of its own for what breaks things: each role a process, so that each can be killed by itself."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.console.stack.local import LocalStack
from services.console.stack.settings import REPOSITORY, StackSettings
from services.runtime.ids import new_id


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def breakable(run_directory: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalStack]:
    """The stack that may be hurt. Its logs are kept in build/logs when a test has failed."""
    directory = run_directory / "breakable"
    try:
        async with LocalStack(StackSettings.for_tests(directory, split="role"), say=print) as stack:
            yield stack
    finally:
        if request.session.testsfailed and (directory / "log").exists():
            shutil.copytree(directory / "log", REPOSITORY / "build" / "logs" / "faults", dirs_exist_ok=True)


@pytest.fixture
def seed() -> str:
    """What decides who is killed when; SIYU_FAULT_SEED repeats a run."""
    chosen = os.environ.get("SIYU_FAULT_SEED", new_id())
    print(f"\nSIYU_FAULT_SEED={chosen}")
    return chosen
