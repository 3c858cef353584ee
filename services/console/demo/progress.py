"""A progress bar where there is a terminal, and a line now and then where there is none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 5.0
# busy hours and nights take turns: what is left is told from more than the last moments
ESTIMATE_FROM_S = 120.0


class Bar(Protocol):
    """What is told while work goes on."""

    def advance(self, steps: int = 1) -> None:
        """Some steps more are done."""
        ...

    def say(self, what: str) -> None:
        """What is being done now."""
        ...


class _RichBar:
    def __init__(self, progress: Progress, *, title: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, what="")

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._task, steps)

    def say(self, what: str) -> None:
        self._progress.update(self._task, what=escape(what))


class _PlainBar:
    """Says how far it is every few seconds, so that a log stays a log."""

    def __init__(self, console: Console, *, title: str, total: int) -> None:
        self._console = console
        self._title = title
        self._total = total
        self._done = 0
        self._what = ""
        self._began_at = self._said_at = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if time.monotonic() - self._said_at >= LINE_EVERY_S:
            self._said_at = time.monotonic()
            told = told_times(self._said_at - self._began_at, done=self._done, total=self._total)
            self._console.print(
                f"{self._title}: {self._done:,} of {self._total:,}, {told} {self._what}", soft_wrap=True
            )

    def say(self, what: str) -> None:
        self._what = what


def told_times(took_s: float, *, done: int, total: int) -> str:
    """The time that it took so far, and about what is left if it goes on like this."""
    left = f"about {took_s * (total - done) / done:.0f} s" if done else "not known yet"
    return f"took {took_s:.0f} s, left {left};"


@contextmanager
def bar(console: Console, *, title: str, total: int) -> Iterator[Bar]:
    """A bar for the time of the block; at its end a line with the time that it took."""
    started = time.monotonic()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("took"),
            TimeElapsedColumn(),
            TextColumn("left about"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[what]}"),
        )
        with Progress(*columns, console=console, transient=True, speed_estimate_period=ESTIMATE_FROM_S) as progress:
            yield _RichBar(progress, title=title, total=total)
    else:
        yield _PlainBar(console, title=title, total=total)
    console.print(f"{title}: {total:,} in {time.monotonic() - started:.1f} s", soft_wrap=True)
