"""The supervisor over small children of its own, no server needed."""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.console.stack.program import Program, tail
from services.console.stack.refusals import DidNotStart
from services.console.stack.supervisor import Supervisor

SERVE = "import pathlib, time; pathlib.Path({flag!r}).touch(); print('serving', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SERVE


def child(directory: Path, name: str, *, code: str = SERVE, **more: object) -> Program:
    """A process that serves once its flag is there."""
    flag = directory / f"{name}.flag"

    async def is_ready() -> bool:
        return flag.exists()

    settings = {"ready_within_s": 5.0, "stop_by": ((signal.SIGTERM, 3.0),), **more}
    return Program(
        name=name,
        command=(sys.executable, "-c", code.format(flag=str(flag))),
        environment=dict(os.environ),
        log=directory / "log" / f"{name}.log",
        is_ready=is_ready,
        **settings,  # type: ignore[arg-type]
    )


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def until(condition, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


async def test_a_killed_process_comes_back_and_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(say=said.append) as supervisor:
        await supervisor.start(child(tmp_path, "till"))
        first = supervisor.kill("till")
        await supervisor.until_ready("till", timeout_s=5)
        assert supervisor.pids["till"] != first
        assert is_alive(supervisor.pids["till"])
        assert supervisor.restarts("till") == 1
        await until(lambda: len(said) == 2)
    assert said[0] == "till was killed by SIGKILL; restarting"
    assert said[1].startswith("till is back after ")


async def test_one_that_ends_before_it_serves_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(DidNotStart, match=r"till ended with code 3 before it served(.|\n)*no till here"):
            await supervisor.start(child(tmp_path, "till", code="print('no till here'); raise SystemExit(3)"))
        assert supervisor.pids == {}


async def test_one_that_never_serves_is_given_up_and_ended(tmp_path: Path) -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(DidNotStart, match="till was not ready within 0 s"):
            await supervisor.start(child(tmp_path, "till", code="import time; time.sleep(600)", ready_within_s=0.3))
        assert supervisor.pids == {}


async def test_a_failure_in_a_layer_leaves_no_process_behind(tmp_path: Path) -> None:
    layer = [child(tmp_path, "good"), child(tmp_path, "bad", code="raise SystemExit(1)")]
    async with Supervisor() as supervisor:
        await supervisor.start(child(tmp_path, "base"))
        with pytest.raises(DidNotStart):
            await supervisor.start_all(layer)
        pids = list(supervisor.pids.values())
    assert not any(is_alive(pid) for pid in pids)
    assert supervisor.pids == {}


async def test_start_is_repeated_while_the_leftovers_of_a_killed_one_may_stand_in_the_way(tmp_path: Path) -> None:
    third_time = (
        "import pathlib; n = pathlib.Path({flag!r} + '.n'); n.open('a').write('x'); len(n.read_text()) > 2 or exit(1); "
        + SERVE
    )
    async with Supervisor() as supervisor:
        await supervisor.start(child(tmp_path, "till", code=third_time, start_patience_s=5.0))
        assert is_alive(supervisor.pids["till"])


async def test_one_that_ignores_the_request_to_stop_is_killed(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(say=said.append) as supervisor:
        await supervisor.start(child(tmp_path, "till", code=STUBBORN, stop_by=((signal.SIGTERM, 0.3),)))
        pid = supervisor.pids["till"]
    assert not is_alive(pid)
    assert said == ["till did not stop within 0 s of SIGTERM"]


async def test_what_was_stopped_stays_stopped_until_it_is_started(tmp_path: Path) -> None:
    program = child(tmp_path, "till")
    async with Supervisor() as supervisor:
        await supervisor.start(program)
        await supervisor.stop("till")
        await asyncio.sleep(0.3)
        assert supervisor.pids == {}
        await supervisor.start(program)
        assert is_alive(supervisor.pids["till"])


async def test_stopping_amid_a_crash_loop_ends_it(tmp_path: Path) -> None:
    once = "import os, pathlib; f = pathlib.Path({flag!r}); f.exists() and exit(1); " + SERVE
    # a stop that waited for the loop would wait for ever
    async with asyncio.timeout(60), Supervisor() as supervisor:
        await supervisor.start(child(tmp_path, "till", code=once))
        supervisor.kill("till")
        await asyncio.sleep(0.5)
    assert supervisor.pids == {}


async def test_one_that_can_not_come_back_is_told_once_with_its_log(tmp_path: Path) -> None:
    once = (
        "import pathlib; f = pathlib.Path({flag!r} + '.once'); f.exists() and exit('the till is locked'); f.touch(); "
    )
    said: list[str] = []
    async with Supervisor(say=said.append) as supervisor:
        await supervisor.start(child(tmp_path, "till", code=once + SERVE))
        os.unlink(tmp_path / "till.flag")
        supervisor.kill("till")
        await until(lambda: len(said) == 2, within_s=10)
        await asyncio.sleep(1)
    assert said[0] == "till was killed by SIGKILL; restarting"
    assert said[1].endswith("the till is locked")
    assert len(said) == 2


@contextmanager
def no_file_handles() -> Iterator[None]:
    """The process may open nothing more: a child takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_one_that_can_not_be_spawned_is_told_once_and_comes_back(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(say=said.append) as supervisor:
        await supervisor.start(child(tmp_path, "till"))
        with no_file_handles():
            supervisor.kill("till")
            await until(lambda: len(said) == 2)
            await asyncio.sleep(1)
        await supervisor.until_ready("till", timeout_s=10)
        assert is_alive(supervisor.pids["till"])
        await until(lambda: len(said) == 3)
    assert said[0] == "till was killed by SIGKILL; restarting"
    assert said[1].startswith("till can't be started: [Errno 24] Too many open files")
    assert said[2].startswith("till is back after ")


async def test_a_stack_stops_though_one_can_not_be_spawned(tmp_path: Path) -> None:
    said: list[str] = []
    async with Supervisor(say=said.append) as supervisor:
        await supervisor.start(child(tmp_path, "base"))
        await supervisor.start(child(tmp_path, "till"))
        base = supervisor.pids["base"]
        with no_file_handles():
            supervisor.kill("till")
            await until(lambda: len(said) == 2)
            await supervisor.stop_all()
    assert not is_alive(base)
    assert supervisor.pids == {}


async def test_a_first_start_that_can_not_be_is_refused_in_a_line(tmp_path: Path) -> None:
    program = child(tmp_path, "till")
    program.log.parent.mkdir()
    async with Supervisor() as supervisor:
        with no_file_handles(), pytest.raises(DidNotStart, match=r"^till can't be started: .*Too many open files"):
            await supervisor.start(program)
        assert supervisor.pids == {}
        await supervisor.start(program)


async def test_a_failure_to_stop_one_leaves_no_other_running(tmp_path: Path) -> None:
    def say(line: str) -> None:
        if "restarting" in line:
            raise ValueError("nobody listens")

    supervisor = Supervisor(say=say)
    await supervisor.start(child(tmp_path, "base"))
    await supervisor.start(child(tmp_path, "till"))
    base = supervisor.pids["base"]
    supervisor.kill("till")
    await asyncio.sleep(0.3)
    with pytest.raises(ValueError, match="nobody listens"):
        await supervisor.stop_all()
    assert not is_alive(base)


async def test_the_last_started_layer_stops_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    tells = (
        "import signal, sys, pathlib\n"
        "def bye(*_):\n    open({order!r}, 'a').write({name!r} + ' '); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, bye)\n" + SERVE
    )
    async with Supervisor() as supervisor:
        for name in ("server", "role", "edge"):
            code = tells.replace("{order!r}", repr(str(order))).replace("{name!r}", repr(name))
            await supervisor.start(child(tmp_path, name, code=code))
    assert order.read_text().split() == ["edge", "role", "server"]


async def test_no_orphan_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "supervise.py"
    script.write_text(
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from services.console.stack.supervisor import Supervisor\n"
        "from tests.unit.console.test_supervisor import child\n"
        "async def main():\n"
        "    async with Supervisor() as supervisor:\n"
        "        await supervisor.start(child(Path(sys.argv[1]), 'till'))\n"
        "        print(supervisor.pids['till'], flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, str(script), str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(pid))


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "till.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert tail(log).splitlines()[-1] == "line 9999"
    assert len(tail(log).splitlines()) == 12
    assert tail(tmp_path / "none.log") == ""


async def test_each_start_begins_a_new_log_and_keeps_three_old_ones(tmp_path: Path) -> None:
    program = child(tmp_path, "till")
    async with Supervisor() as supervisor:
        for _ in range(5):
            (tmp_path / "till.flag").unlink(missing_ok=True)
            await supervisor.start(program)
            await supervisor.stop("till")
    assert sorted(log.name for log in (tmp_path / "log").iterdir()) == [
        "till.log", "till.log.1", "till.log.2", "till.log.3",
    ]  # fmt: skip
