"""Constructs the edge's application and runs it: the role "edge"."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
import uvicorn

from gateway.app import Documents, Edge
from gateway.cursor import CursorSeal
from gateway.docs import documents
from gateway.feed import Feed, Logs
from gateway.jwks import Jwks
from gateway.keys import ApiKeys, IssueToken
from gateway.limits import Limits, Rate
from gateway.settings import EdgeSettings
from services.runtime import status
from services.runtime.call import Call
from services.runtime.channels import Channels
from services.runtime.clock import SystemClock
from services.runtime.process import Context, Role, Task, running
from services.runtime.settings import SERVICES, from_environment
from siyu.common.v1 import feed_pb2, feed_pb2_grpc
from siyu.identity.v1 import client_pb2, client_pb2_grpc

SERVICE = "gateway"
IDENTITY_TIMEOUT_S = 2.0
# A service that hangs is named in the page, which must leave time for the others.
READ_TIMEOUT_S = 3.0
# Longer than Envoy keeps an idle connection, so that it is never the application that closes one under a request.
KEEP_ALIVE_S = 620
BACKLOG = 2048
GRACE_S = 10


# Ours is the signal handling: the process drains first (services.runtime.process).
class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The application on its port."""

    edge: Edge
    server: uvicorn.Server
    task: Task
    drain_s: float

    async def stop(self) -> None:
        """Says not ready, serves on while callers turn away, then ends with grace."""
        self.edge.draining = True
        await asyncio.sleep(self.drain_s)
        self.server.should_exit = True
        await asyncio.wait({self.task.task}, timeout=GRACE_S + 1)
        await self.task.stop()


async def start(context: Context) -> Serving:
    """Opens the port and serves."""
    edge = build(context, from_environment(EdgeSettings))
    host, _, port = context.settings.listen.rpartition(":")
    server = _Server(
        uvicorn.Config(
            edge.app(),
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # Envoy's has it all
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            backlog=BACKLOG,
        )
    )
    # bound here: uvicorn would end the process without a word of ours if the port is taken
    listening = socket.create_server(
        (host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
    )
    # inherited by what is accepted: head and body are two writes, and the second would wait 40 ms for Envoy's ACK
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    task = running(context, server.serve(sockets=[listening]), name="edge")
    return Serving(edge=edge, server=server, task=task, drain_s=context.settings.drain_s)


def build(context: Context, settings: EdgeSettings) -> Edge:
    """The application with everything that it calls."""
    return Edge(
        keys=ApiKeys(issue=_issue(context.channels)),
        limits=Limits(redis=context.redis()),
        per_client=Rate(per_s=settings.client_rate_per_s, burst=settings.client_burst),
        per_address=Rate(per_s=settings.address_rate_per_s, burst=settings.address_burst),
        jwks=Jwks(fetch=context.channels.keys),
        verifier=context.server.verifier,
        feed=Feed(
            services=SERVICES,
            logs=_logs(context.channels),
            seal=CursorSeal.of(context.settings.service_secret, services=SERVICES),
        ),
        documents=Documents(by_path=documents()),
        clock=SystemClock(),
    )


def _issue(channels: Channels) -> IssueToken:
    stub = channels.stub("identity", client_pb2_grpc.TokenServiceStub)

    async def issue(client_id: str, client_secret: str) -> str:
        request = client_pb2.IssueTokenRequest(client_id=client_id, client_secret=client_secret)
        try:
            reply = await stub.IssueToken(request, timeout=IDENTITY_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from None
        return str(reply.access_token)

    return issue


def _logs(channels: Channels) -> Logs:
    stubs = {service: channels.stub(service, feed_pb2_grpc.FeedServiceStub) for service in SERVICES}

    async def heads(service: str, call: Call) -> feed_pb2.GetHeadsResponse:
        reply: feed_pb2.GetHeadsResponse = await channels.invoke(
            stubs[service].GetHeads, feed_pb2.GetHeadsRequest(), call, timeout_s=IDENTITY_TIMEOUT_S
        )
        return reply

    async def read(service: str, request: feed_pb2.ReadLogRequest, call: Call) -> feed_pb2.ReadLogResponse:
        reply: feed_pb2.ReadLogResponse = await channels.invoke(
            stubs[service].ReadLog, request, call, timeout_s=READ_TIMEOUT_S
        )
        return reply

    return Logs(heads=heads, read=read)


ROLES = (Role("edge", start),)
