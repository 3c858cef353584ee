"""The main job, measured: a sample of the demonstration's fortnight through all four services and the edge."""

import json
import os
import tempfile
from pathlib import Path

from rich.console import Console

from services.console.bringup import DEFAULT_WEEKS
from services.console.demo import main as demo
from services.console.stack.local import LocalStack
from services.console.stack.settings import StackSettings
from tests.bench.rounds import Result

# one household in so many: about 1,200 sales, with every kind of refund, burn, upload and supplier order
ONE_IN = 5
LARGEST = 3


async def replay() -> Result:
    """Sales a second end to end, and what a sale costs each role and Postgres; each role is a process of its own."""
    with tempfile.TemporaryDirectory(prefix="siyu-bench-") as scratch:
        Path(scratch).chmod(0o755)
        settings = StackSettings.for_tests(Path(scratch) / "stack", split="role", shared_buffers_mb=512)
        async with LocalStack(settings) as stack:
            failed = await demo.run(stack, weeks=DEFAULT_WEEKS, console=Console(quiet=True), one_in=ONE_IN)
            if failed:
                raise RuntimeError("the replay's books did not agree, so that its speed means nothing")
            told = json.loads((stack.directory / "demo" / "result.json").read_text())
    sales, seconds = told["sales"], told["seconds"]
    costs = sorted(((1000 * cpu_s / sales, name) for name, cpu_s in told["cpu_s"].items()), reverse=True)
    return Result(
        name="replay",
        # no peer: the entry's figure is sales a second
        target=None,
        ratios=[sales / seconds],
        ours=[sales / seconds],
        peers=[],
        load=os.getloadavg()[0],
        notes=[
            f"{sales:,} sales in {seconds:.1f} s; {sum(ms for ms, _ in costs):.1f} ms of CPU a sale",
            "the largest costs: " + ", ".join(f"{name} {ms:.1f} ms" for ms, name in costs[:LARGEST]),
            "and: " + ", ".join(f"{name} {ms:.1f}" for ms, name in costs[LARGEST:] if ms >= 0.05),
        ],
    )
