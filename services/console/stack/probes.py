"""One look each at whether a process can serve."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2

from services.console.stack.program import Probe

PROBE_TIMEOUT_S = 2.0


def grpc_serves(address: str, *, process: str = "") -> Probe:
    """Ready when the standard gRPC health service says SERVING; of this process, where several are at the address."""
    asked = health_pb2.HealthCheckRequest(service=process)

    async def probe() -> bool:
        # A fresh channel each time: a kept one would wait out its reconnection delay.
        async with grpc.aio.insecure_channel(address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            try:
                reply = await check(asked, timeout=PROBE_TIMEOUT_S)
            except grpc.aio.AioRpcError:
                return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    return probe


def http_answers(address: str, path: str) -> Probe:
    """Ready when GET `path` answers 200."""

    async def probe() -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                return await _status(address, path) == 200
        except (OSError, TimeoutError, ValueError, IndexError):
            return False

    return probe


async def _status(address: str, path: str) -> int:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
