"""`make bench`: runs the measurements, prints a table and writes build/bench.json."""

import asyncio
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import points
from tests.bench.installation import installed
from tests.bench.replay import replay
from tests.bench.rounds import Result, write

OUT = Path(__file__).resolve().parents[2] / "build" / "bench.json"


def main(*, only: str = "") -> int:
    """Runs all, or the one of that name. Returns 0 if every target holds, 1 if not, 2 for an unknown name."""
    console = Console(highlight=False)
    names = [bench.__name__ for bench in (*points.BENCHES, replay)]
    if only and only not in names:
        console.print(f"no bench {only!r}; there are {', '.join(names)}")
        return 2
    chosen = {only} if only else set(names)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(_run(chosen, console))
    write(results, OUT)
    console.print(_table(results))
    return 0 if all(result.holds for result in results) else 1


async def _run(chosen: set[str], console: Console) -> list[Result]:
    results: list[Result] = []

    def tell(result: Result) -> None:
        for note in result.notes:
            console.print(f"  {note}")
        results.append(result)

    on_points = [bench for bench in points.BENCHES if bench.__name__ in chosen]
    if on_points:
        async with installed() as here:
            for bench in on_points:
                console.print(_intent(bench))
                await here.renew()
                tell(await bench(here))
    if replay.__name__ in chosen:
        console.print(_intent(replay))
        tell(await replay())
    return results


def _intent(bench: Callable[..., object]) -> str:
    return f"{bench.__name__}: {(bench.__doc__ or '').strip().splitlines()[0]}"


def _table(results: list[Result]) -> Table:
    table = Table("bench", "ratio", "target", "range", "holds", "load", title=f"{os.cpu_count()} cores")
    for result in results:
        entry = result.entry()
        holds = "yes" if result.holds else "NO" if result.peer_is_sound else "NO: the peer was uneven"
        table.add_row(
            result.name,
            f"{statistics.median(result.ratios):.2f}",
            "-" if result.target is None else f"{result.target:g}",
            " - ".join(f"{value:.2f}" for value in entry["spread"]),
            holds,
            f"{entry['load']:.1f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main(only=sys.argv[1] if len(sys.argv) > 1 else ""))
