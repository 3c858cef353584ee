"""Calls to the other services: what a token that has to be asked for leaves of a call's time."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, cast

import grpc
import pytest

from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.channels import Channels
from services.runtime.errors import TimedOut
from services.runtime.settings import Settings
from siyu.identity.v1 import client_pb2

ISSUING_S = 0.1


class Identity:
    """A channel to an identity that issues tokens slowly, or fails to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    def unary_unary(self, *_method: Any, **_told: Any) -> Callable[..., Awaitable[client_pb2.IssueTokenResponse]]:
        """Every method issues a token."""
        return self.issue

    async def issue(self, _request: Any, **_told: Any) -> client_pb2.IssueTokenResponse:
        """A token, after a while."""
        await asyncio.sleep(ISSUING_S)
        if self.fails:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        return client_pb2.IssueTokenResponse(access_token="a-token", expires_in_s=600)


class Peer:
    """A method of another service that remembers how long it was given."""

    def __init__(self) -> None:
        self.timeouts_s: list[float] = []

    async def __call__(self, _request: Any, *, timeout: float, metadata: Any) -> str:
        """Answers at once."""
        assert metadata
        self.timeouts_s.append(timeout)
        return "answer"


def channels(identity: Identity) -> Channels:
    """With a way to identity alone."""
    return Channels(Settings(), "commerce", {"identity": cast("grpc.aio.Channel", identity)})


def call(*, left_s: float) -> Call:
    """A call that has so long."""
    return Call(
        tenant_id="t",
        client_id="till-1",
        actor=Actor(kind=ActorKind.POS, id="till-1"),
        now=datetime(2026, 1, 1, tzinfo=UTC),
        time_zone="Asia/Shanghai",
        deadline_at=deadline_in(left_s),
    )


@pytest.mark.parametrize(
    ("left_s", "timeout_s"),
    [pytest.param(1.0, None, id="by the call's deadline"), pytest.param(30.0, 1.0, id="by a time of its own")],
)
async def test_a_token_that_was_asked_for_takes_its_part_of_the_time(left_s: float, timeout_s: float | None) -> None:
    peer = Peer()
    assert await channels(Identity()).invoke(peer, None, call(left_s=left_s), timeout_s=timeout_s) == "answer"
    assert peer.timeouts_s[0] <= 1.0 - ISSUING_S


async def test_no_peer_is_called_when_the_token_took_all_the_time() -> None:
    peer = Peer()
    with pytest.raises(TimedOut):
        await channels(Identity()).invoke(peer, None, call(left_s=ISSUING_S / 2))
    assert not peer.timeouts_s


async def test_a_token_that_nobody_waits_for_any_more_fails_in_silence() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: complaints.append(told))
    calling = channels(Identity(fails=True))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(calling.token("t"), ISSUING_S / 4)
    await asyncio.sleep(ISSUING_S * 1.5)
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)
    assert complaints == []
