"""The kill drill: every role, Postgres, Valkey and Envoy are killed at random moments of running trade; Valkey is
flushed. Nothing that was acknowledged is lost, and the books agree."""

import asyncio
import random

import pytest
import redis.asyncio

from services.console.stack.local import LocalStack
from tests.e2e.shop import open_shop
from tests.faults.trade import Trade

BETWEEN_S = (0.1, 0.8)
DOWN_AT_ONCE = 3


@pytest.mark.timeout(280)
async def test_nothing_acknowledged_is_lost_whoever_is_killed(breakable: LocalStack, seed: str) -> None:
    chance = random.Random(seed)
    trade = Trade(await open_shop(breakable), seed)
    await trade.open()
    running = asyncio.create_task(trade.run())
    victims = list(breakable.pids)
    chance.shuffle(victims)
    down: set[asyncio.Task[None]] = set()
    for number, victim in enumerate(victims):
        await asyncio.sleep(chance.uniform(*BETWEEN_S))
        if running.done():
            break
        # some at once, but never everything: trade has to go on for the next to be killed in its middle
        while len(down) >= DOWN_AT_ONCE:
            _, down = await asyncio.wait(down, return_when=asyncio.FIRST_COMPLETED)
        print(f"kill -9 {victim} after {len(trade.orders)} sales")
        breakable.kill(victim)
        down.add(asyncio.create_task(breakable.until_ready(victim)))
        if number == len(victims) // 2:
            print("flush valkey")
            await _flush(breakable)
    await asyncio.gather(*down)
    await breakable.until_all_ready()
    await asyncio.sleep(1)
    trade.stop()
    await running
    assert len(trade.orders) > len(victims), "trade went on"
    print(f"{len(trade.orders)} sales and {len(trade.refunds)} refunds were acknowledged")
    assert await trade.verify(breakable) == []
    await trade.shop.wire.close()


async def _flush(stack: LocalStack) -> None:
    client = redis.asyncio.Redis.from_url(stack.redis_url, socket_timeout=2)
    try:
        await client.flushall()
    except redis.exceptions.RedisError as error:
        print(f"valkey was down already: {error}")
    finally:
        await client.aclose()
