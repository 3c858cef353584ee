"""All of Siyu for the end-to-end tests: one stack per run, on free ports, with every service and the edge."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.console.stack.local import LocalStack
from services.console.stack.settings import REPOSITORY, StackSettings


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(run_directory: Path, request: pytest.FixtureRequest) -> AsyncIterator[LocalStack]:
    """The running stack. Its logs are kept in build/logs when a test has failed."""
    directory = run_directory / "stack"
    try:
        async with LocalStack(StackSettings.for_tests(directory), say=print) as stack:
            yield stack
    finally:
        if request.session.testsfailed and (directory / "log").exists():
            shutil.copytree(directory / "log", REPOSITORY / "build" / "logs" / "e2e", dirs_exist_ok=True)
