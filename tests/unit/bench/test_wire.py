"""The client of the benches against a server of grpc.aio: what it says of a call is what happened."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from tests.bench.wire import CallFailedError, connected

METADATA = (("authorization", "Bearer token"),)


class _Shop(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        async def answer(request: bytes, context) -> bytes:
            sent = dict(context.invocation_metadata())
            assert sent["authorization"] == "Bearer token"
            if request == b"refuse":
                refusal = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="no: sold out")
                await context.abort_with_status(rpc_status.to_status(refusal))
            if request == b"wait":
                await asyncio.sleep(60)
            await asyncio.sleep(int.from_bytes(request[:1], "big") / 10_000)
            return request

        return grpc.unary_unary_rpc_method_handler(answer) if handler_call_details.method == "/shop/Ask" else None


@pytest.fixture
async def server() -> AsyncIterator[grpc.aio.Server]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Shop(),))
    yield server
    await server.stop(0)


@pytest.fixture
async def address(server: grpc.aio.Server) -> str:
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("size", "calls"),
    [
        pytest.param(100, 1, id="one"),
        pytest.param(200, 900, id="many at once, more than the connection's window takes"),
        pytest.param(40_000, 20, id="in several frames"),
        pytest.param(0, 3, id="empty"),
    ],
)
async def test_each_call_gets_its_own_reply(address: str, size: int, calls: int) -> None:
    requests = [bytes((number % 256,)) * size for number in range(calls)]
    async with connected(address, "/shop/Ask", metadata=METADATA, timeout_s=20, connections=2) as send:
        assert await asyncio.gather(*map(send, requests)) == requests


async def test_a_refusal_is_told_with_its_details(address: str) -> None:
    async with connected(address, "/shop/Ask", metadata=METADATA, timeout_s=20) as send:
        with pytest.raises(CallFailedError, match="9: no: sold out") as refused:
            await send(b"refuse")
        assert status_pb2.Status.FromString(refused.value.details).message == "no: sold out"
        assert await send(b"\0again") == b"\0again"


async def test_a_method_that_is_not_there_is_told(address: str) -> None:
    async with connected(address, "/shop/Other", metadata=METADATA, timeout_s=20) as send:
        with pytest.raises(CallFailedError, match=r"^12: "):
            await send(b"x")


async def test_calls_in_flight_fail_when_the_server_goes(server: grpc.aio.Server, address: str) -> None:
    async with connected(address, "/shop/Ask", metadata=METADATA, timeout_s=20) as send:
        waiting = asyncio.ensure_future(send(b"wait"))
        assert await send(b"\0") == b"\0"
        await server.stop(0)
        with pytest.raises(CallFailedError):
            await waiting
