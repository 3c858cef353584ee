"""Keeps processes running: starts them, waits until they serve, restarts the dead, stops all in reverse order."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from services.console.stack.program import Program, rotate, spawn, tail
from services.console.stack.refusals import DidNotStart, NotSpawned

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 5.0
# One that lived this long and then died starts again with the shortest delay.
STEADY_AFTER_S = 10.0
# The first starts in vain are silent; this one is told, with the end of the log; then it is known.
TELL_FAILURE = 4
PROBE_EVERY_S = 0.1
KILL_TIMEOUT_S = 10.0

Say = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Supervised:
    """A program, its process of the moment, and whether it is meant to run."""

    program: Program
    process: asyncio.subprocess.Process
    started_at_s: float
    layer: int
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    restarts: int = 0
    watch: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether it is to be started again if it ends."""
        return not self.unwanted.is_set()


class Supervisor:
    """The parent of a stack's processes. `say` gets one line for each thing a person would want to know."""

    def __init__(self, *, say: Say = lambda _line: None) -> None:
        """Starts nothing yet."""
        self._say = say
        self._running: dict[str, Supervised] = {}
        self._layer = 0

    async def __aenter__(self) -> Self:
        """Nothing to do before the first start."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything, whatever happened."""
        await self.stop_all()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each program that is up or coming up."""
        return {name: each.process.pid for name, each in self._running.items() if each.wanted}

    @property
    def programs(self) -> dict[str, Program]:
        """The programs under supervision, in the order they were started."""
        return {name: each.program for name, each in self._running.items()}

    def restarts(self, name: str) -> int:
        """How often the program was started again after it died."""
        return self._running[name].restarts

    async def start_all(self, programs: Iterable[Program]) -> None:
        """Starts the programs at once and returns when all are ready. They form a layer, and are stopped together too.

        Raises DidNotStart for the first that isn't ready."""
        self._layer += 1
        tasks = [asyncio.create_task(self._start(program)) for program in programs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start(self, program: Program) -> None:
        """Starts the program, returns when it is ready, and keeps it running from then on.

        Raises DidNotStart with the end of its log if it ends or is not ready in time."""
        await self.start_all([program])

    async def _start(self, program: Program) -> None:
        before = self._running.get(program.name)
        # One that is started anew stays where it was: roles still stop before their database.
        layer = before.layer if before else self._layer
        assert before is None or not before.wanted, f"{program.name} runs"
        rotate(program.log)
        patience_ends_s = time.monotonic() + program.start_patience_s
        while True:
            process = await spawn(program)
            each = Supervised(program=program, process=process, started_at_s=time.monotonic(), layer=layer)
            self._running[program.name] = each
            try:
                await _until_ready(each)
                break
            except DidNotStart:
                if each.process.returncode is None or time.monotonic() > patience_ends_s:
                    await self._end(each)
                    raise
            await asyncio.sleep(FIRST_BACKOFF_S)
        each.ready.set()
        each.watch = asyncio.create_task(self._keep(each), name=f"keep {program.name}")

    async def _keep(self, each: Supervised) -> None:
        """Waits for the process to end and starts it again, for as long as it is wanted."""
        while True:
            code = await each.process.wait()
            if not each.wanted:
                return
            each.ready.clear()
            died_at_s = time.monotonic()
            self._say(f"{each.program.name} {_how(code)}; restarting")
            if not await self._revived(each, lived_s=died_at_s - each.started_at_s):
                return
            each.ready.set()
            self._say(f"{each.program.name} is back after {time.monotonic() - died_at_s:.1f} s")

    async def _revived(self, each: Supervised, *, lived_s: float) -> bool:
        """Starts the process again, as often as it takes. False if it was stopped meanwhile."""
        backoff_s = FIRST_BACKOFF_S if lived_s > STEADY_AFTER_S or each.restarts == 0 else FIRST_BACKOFF_S * 4
        failures, told = 0, False
        while not await _set_within(each.unwanted, backoff_s):
            try:
                each.process = await spawn(each.program)
                each.started_at_s = time.monotonic()
                each.restarts += 1
                await _until_ready(each)
            except DidNotStart as failure:
                # An orphan of the killed process may stand in the way for a moment: not worth a line.
                failures += 1
                if not told and (failures >= TELL_FAILURE or isinstance(failure, NotSpawned)):
                    self._say(f"{failure}; trying on" if isinstance(failure, NotSpawned) else str(failure))
                    told = True
                await _kill(each.process)
                backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)
            else:
                return each.wanted
        return False

    async def until_ready(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Returns when the program serves, which after a kill takes until its restart."""
        await asyncio.wait_for(self._running[name].ready.wait(), timeout_s)

    def kill(self, name: str, *, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """Sends the signal to the program's process, as an accident would, and returns the process id it hit."""
        each = self._running[name]
        if with_signal == signal.SIGKILL:
            each.ready.clear()
        each.process.send_signal(with_signal)
        return each.process.pid

    async def stop(self, name: str) -> None:
        """Stops the program in order and leaves it stopped."""
        await self._end(self._running[name])

    async def stop_all(self) -> None:
        """Stops all programs, the last started layer first. What fails for one is raised when all are stopped."""
        failures: list[BaseException] = []
        for layer in sorted({each.layer for each in self._running.values()}, reverse=True):
            ends = (self._end(each) for each in self._running.values() if each.layer == layer)
            ended = await asyncio.gather(*ends, return_exceptions=True)
            failures += [failure for failure in ended if failure is not None]
        self._running.clear()
        if failures:
            raise failures[0]

    async def _end(self, each: Supervised) -> None:
        each.unwanted.set()
        each.ready.clear()
        await self._ask_to_stop(each)
        if each.watch is not None:
            await each.watch
            # A restart that was under way may have made one more process.
            await self._ask_to_stop(each)

    async def _ask_to_stop(self, each: Supervised) -> None:
        for with_signal, within_s in each.program.stop_by:
            if each.process.returncode is not None:
                break
            each.process.send_signal(with_signal)
            try:
                await asyncio.wait_for(each.process.wait(), within_s)
            except TimeoutError:
                self._say(f"{each.program.name} did not stop within {within_s:.0f} s of {with_signal.name}")
        await _kill(each.process)


async def _until_ready(each: Supervised) -> None:
    deadline_s = time.monotonic() + each.program.ready_within_s
    while True:
        answers = await each.program.is_ready()
        # The process first: if it has ended, what answers is a stranger.
        if each.process.returncode is not None:
            raise DidNotStart(
                f"{each.program.name} {_how(each.process.returncode)} before it served; its log "
                f"{each.program.log} ends so:\n{tail(each.program.log)}"
            )
        if answers or not each.wanted:
            return
        if time.monotonic() > deadline_s:
            raise DidNotStart(
                f"{each.program.name} was not ready within {each.program.ready_within_s:.0f} s; its log "
                f"{each.program.log} ends so:\n{tail(each.program.log)}"
            )
        await asyncio.sleep(PROBE_EVERY_S)


async def _set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await asyncio.wait_for(process.wait(), KILL_TIMEOUT_S)


def _how(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"
