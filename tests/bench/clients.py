"""How the benches call as a backend in Python does; `wire` is the client that costs next to nothing."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import grpc

from tests.bench.wire import Metadata, Send

Connect = Callable[..., AbstractAsyncContextManager[Send]]
"""What connects to a server's method: `by_grpc`, or `wire.connected`, by the same arguments."""


@asynccontextmanager
async def by_grpc(
    address: str, path: str, *, metadata: Metadata, timeout_s: int, connections: int = 1
) -> AsyncIterator[Send]:
    """What sends requests to one method by grpc.aio, by each connection in turn."""
    async with AsyncExitStack() as closing:
        calls = []
        for _ in range(connections):
            # channels to one address would share a connection
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = await closing.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            await channel.channel_ready()
            calls.append(channel.unary_unary(path))
        turn = itertools.cycle(calls)
        yield lambda request: next(turn)(request, timeout=timeout_s, metadata=metadata)
