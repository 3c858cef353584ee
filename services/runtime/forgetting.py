"""Deletes what need not be kept any more: in bounded transactions, and as many of them as it takes.

One transaction a round would fall behind for ever where more comes than it takes, and then the log only grows: a
thousand brands make more blocks in half a minute than one transaction should delete.
"""

from collections.abc import Awaitable, Callable

from services.runtime.database import EVERY_TENANT, Connection, Database

MAX_STEPS = 200


async def until_done(database: Database, step: Callable[[Connection], Awaitable[int]], *, at_once: int) -> int:
    """Runs `step` until it deletes fewer than `at_once`; how many it deleted. What 200 steps leave is the next round's.

    `database` is on the system role; each step is a transaction of its own.
    """
    deleted = 0
    for _ in range(MAX_STEPS):
        count = await database.run(EVERY_TENANT, step)
        deleted += count
        if count < at_once:
            break
    return deleted
