"""All of Siyu for the end-to-end tests: one stack per run, on free ports, with every service and the edge."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from services.console.stack.local import LocalStack
from services.console.stack.settings import REPOSITORY, StackSettings
from tests.e2e.collector import Collector, collecting


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the stack sends its spans: none but those of calls that a test samples."""
    with collecting() as collector:
        yield collector


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(run_directory: Path, collector: Collector, request: pytest.FixtureRequest) -> AsyncIterator[LocalStack]:
    """The running stack. Its logs are kept in build/logs when a test has failed."""
    directory = run_directory / "stack"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "SIYU_TRACE_RATIO": "0"}
    try:
        async with LocalStack(StackSettings.for_tests(directory), environment=environment, say=print) as stack:
            yield stack
    finally:
        if request.session.testsfailed and (directory / "log").exists():
            shutil.copytree(directory / "log", REPOSITORY / "build" / "logs" / "e2e", dirs_exist_ok=True)
