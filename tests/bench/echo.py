"""The peer for the transport: an empty unary RPC with the accrual's messages, on grpc.aio in a process of its own.

It decodes the request and answers a reply of like size; it does nothing else. It is scheduled as our services are.
"""

import asyncio
import signal
import sys

import grpc
import uvloop

from services.runtime.process import prefer_throughput
from siyu.loyalty.v1 import points_pb2

METHODS = {
    "/siyu.bench.Echo/Accrue": (
        points_pb2.AccrueRequest,
        points_pb2.AccrueResponse(entry_id="01890a5d-ac96-774b-bcce-b302099a8057", available_points=1_000),
    ),
    "/siyu.bench.Echo/GetBalance": (
        points_pb2.GetBalanceRequest,
        points_pb2.GetBalanceResponse(available_points=1_000, posted_points=1_000, next_expiry_points=10),
    ),
}


class _Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details):
        found = METHODS.get(handler_call_details.method)
        if found is None:
            return None
        request_class, reply = found

        async def answer(_request, _context):
            return reply

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request_class.FromString, response_serializer=lambda it: it.SerializeToString()
        )


async def serve(address: str) -> None:
    """Serves until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server(options=(("grpc.max_concurrent_streams", 1024),))
    server.add_generic_rpc_handlers((_Echo(),))
    server.add_insecure_port(address)
    await server.start()
    print("serving", flush=True)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    prefer_throughput()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
