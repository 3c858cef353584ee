"""How tills, suppliers and head office call Siyu: one channel a service, short tokens, patience, and a stop-watch."""

import asyncio
import random
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from services.runtime import status
from services.runtime.errors import DomainError
from siyu.identity.v1 import client_pb2, client_pb2_grpc

RENEW_BEFORE_S = 60.0
CALL_TIMEOUT_S = 20.0
GIVE_UP_AFTER_S = 120.0
"""So long a till repeats a call whose outcome it does not know: what restarts meanwhile is back by then."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_CHANNEL = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# the answer was not heard, or somebody else was faster: the same request id finds out
_REPEATABLE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
    }
)

Stub = TypeVar("Stub")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One RPC as its callers saw it, retries included."""

    rpc: str
    calls: int
    p50_ms: float
    p99_ms: float
    refused: int
    repeated: int


@dataclass(slots=True)
class StopWatch:
    """Durations by RPC; eight bytes a call, so that a year fits."""

    durations_ms: dict[str, "array[float]"] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    refused: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)

    def latencies(self) -> list[Latency]:
        """Every RPC, the most frequent first."""
        found = [
            Latency(
                rpc=rpc,
                calls=len(durations),
                p50_ms=percentile(durations, 0.50),
                p99_ms=percentile(durations, 0.99),
                refused=self.refused[rpc],
                repeated=self.repeated[rpc],
            )
            for rpc, durations in self.durations_ms.items()
        ]
        return sorted(found, key=lambda latency: (-latency.calls, latency.rpc))

    @property
    def calls(self) -> int:
        """All calls."""
        return sum(map(len, self.durations_ms.values()))


def percentile(durations: "array[float]", share: float) -> float:
    """The duration that `share` of all did not exceed (nearest rank); 0 without any."""
    ranked = sorted(durations)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0


@dataclass(slots=True, kw_only=True)
class Caller:
    """A client with its secret, and its token while it lasts."""

    client_id: str
    secret: str
    tenant_id: str = ""
    token: str = ""
    renew_at: float = 0.0
    _asking: "asyncio.Task[None] | None" = None


class Wire:
    """The channels to an installation. `addresses` by service; the edge's address for all of them is as good."""

    def __init__(self, addresses: Mapping[str, str], *, watch: StopWatch | None = None) -> None:
        """Opens nothing yet."""
        self.watch = watch or StopWatch()
        self._addresses = addresses
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, make: Callable[[grpc.aio.Channel], Stub], *, service: str = "") -> Stub:
        """A stub, on the channel of the service that its contract belongs to; a common contract needs its `service`."""
        address = self._addresses[service or make.__module__.split(".")[1]]
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=_CHANNEL)
        return make(self._channels[address])

    async def call(
        self, method: Callable[..., Any], request: Any, *, caller: Caller | None, timeout_s: float = CALL_TIMEOUT_S
    ) -> Any:
        """The reply. Repeats what may be repeated with the same request id, and once what was refused for its token.

        Raises the DomainError of a refusal."""
        rpc = method._method.decode().rsplit("/", 1)[1]  # type: ignore[attr-defined]  # noqa: SLF001 -- its own name
        started = time.perf_counter()
        pause_s, renewed = FIRST_PAUSE_S, False
        while True:
            try:
                token = await self.token(caller) if caller else ""
                metadata = (("authorization", f"Bearer {token}"),) if token else ()
                reply = await method(request, timeout=timeout_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAUTHENTICATED and caller is not None:
                    # another call of the same caller may have renewed it meanwhile
                    caller.token = "" if caller.token == token else caller.token
                    if not renewed:
                        renewed = True
                        self.watch.repeated[rpc] += 1
                        continue
                waited_s = time.perf_counter() - started
                if error.code() not in _REPEATABLE or waited_s > GIVE_UP_AFTER_S:
                    self.watch.refused[rpc] += 1
                    raise status.from_rpc(error) from error
                self.watch.repeated[rpc] += 1
                # jitter: tills that were cut off together must not come back together
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self.watch.durations_ms[rpc].append((time.perf_counter() - started) * 1000)
                return reply

    async def token(self, caller: Caller) -> str:
        """The caller's token, renewed in time; callers that share it wait for one renewal."""
        if caller.token and caller.renew_at > time.monotonic():
            return caller.token
        if caller._asking is None:  # noqa: SLF001 -- a caller is this module's record
            caller._asking = asyncio.create_task(self._log_in(caller))  # noqa: SLF001
        try:
            await asyncio.shield(caller._asking)  # noqa: SLF001
        finally:
            caller._asking = None  # noqa: SLF001
        return caller.token

    async def _log_in(self, caller: Caller) -> None:
        request = client_pb2.IssueTokenRequest(
            client_id=caller.client_id, client_secret=caller.secret, tenant_id=caller.tenant_id
        )
        stub = self.stub(client_pb2_grpc.TokenServiceStub)
        reply = await self.call(stub.IssueToken, request, caller=None)
        caller.token = reply.access_token
        caller.renew_at = time.monotonic() + max(1.0, reply.expires_in_s - RENEW_BEFORE_S)

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))
        self._channels.clear()


def reason_of(error: DomainError) -> str:
    """A refusal in one line, for people."""
    extra = " ".join(f"{name}={value}" for name, value in error.metadata.items())
    return f"{error.reason}: {error.message}{f' ({extra})' if extra else ''}"
