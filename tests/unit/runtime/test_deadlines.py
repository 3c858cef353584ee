"""Calls end by their deadline, and only then."""

import asyncio
import time

import pytest

from services.runtime.deadlines import Deadlines


async def _served(deadlines: Deadlines, deadline_at: float, work_s: float) -> str:
    task = asyncio.current_task()
    assert task is not None
    deadlines.enter(task, deadline_at)
    try:
        await asyncio.sleep(work_s)
    except asyncio.CancelledError:
        if deadlines.leave(task):
            return f"over, {task.cancelling()} cancellations left"
        raise
    finally:
        deadlines.leave(task)
    return "answered"


async def test_what_is_overdue_ends_and_the_others_go_on() -> None:
    deadlines = Deadlines()
    follower = asyncio.create_task(deadlines.follow())
    now = time.monotonic()
    found = await asyncio.gather(
        _served(deadlines, now + 0.05, 5),
        _served(deadlines, now + 5, 0.1),
        _served(deadlines, now + 0.01, 5),
        _served(deadlines, now + 5, 0),
    )
    over = "over, 0 cancellations left"
    assert list(found) == [over, "answered", over, "answered"]
    follower.cancel()


async def test_a_caller_who_goes_away_is_no_deadline() -> None:
    deadlines = Deadlines()
    call = asyncio.create_task(_served(deadlines, time.monotonic() + 5, 5))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_who_left_is_not_cancelled() -> None:
    deadlines = Deadlines()

    async def call() -> str:
        task = asyncio.current_task()
        assert task is not None
        deadlines.enter(task, 0.0)
        assert not deadlines.leave(task)
        await asyncio.sleep(0)
        return "answered"

    serving = asyncio.create_task(call())
    await asyncio.sleep(0)
    deadlines.look(time.monotonic())
    assert await serving == "answered"
