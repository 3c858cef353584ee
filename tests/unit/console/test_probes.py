"""Who is asked whether it serves, where several processes listen at one port."""

import asyncio
from datetime import UTC, datetime

from services.console.stack import ports
from services.console.stack.probes import grpc_serves
from services.runtime.auth import TokenVerifier
from services.runtime.server import GrpcServer


class Time:
    """Nobody's."""

    async def business_now(self, _tenant_id: str) -> datetime:
        """Never asked."""
        return datetime.now(UTC)


async def no_keys() -> list[dict[str, str]]:
    return []


async def test_a_neighbour_at_the_port_does_not_answer_for_a_process_that_starts() -> None:
    address = f"{ports.LOOPBACK}:{ports.pick(1)[0]}"
    first, second = (
        GrpcServer(address, TokenVerifier(no_keys), Time(), process=name) for name in ("loyalty", "loyalty/api-2")
    )
    for server in (first, second):
        await server.start()
    await first.ready()
    serves = grpc_serves(address, process="loyalty/api-2")
    assert not any([await serves() for _ in range(20)])
    await second.ready()
    async with asyncio.timeout(10):
        while not await serves():
            await asyncio.sleep(0.01)
    await first.drain(drain_s=0)
    assert await serves()
    await second.drain(drain_s=0)
