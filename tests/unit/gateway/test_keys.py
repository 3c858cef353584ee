"""API keys: who may ask identity, how often, and what is remembered."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from gateway.jwks import Jwks
from gateway.keys import KEPT_S, REFUSED_FOR_S, ApiKey, ApiKeys
from services.runtime.auth import JsonWebKeys
from services.runtime.errors import DomainError, Exhausted, Unauthenticated, Unavailable

CLIENT = "0199a3c4-7d1e-7000-8000-0000000000c1"


class Identity:
    """Knows one secret, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.now_s = 0.0

    async def issue(self, client_id: str, client_secret: str) -> str:
        self.asked += 1
        await asyncio.sleep(0)
        if client_secret == "away":
            raise Unavailable("away")
        if client_secret != "right":
            raise Unauthenticated("no")
        return f"token of {client_id}"

    def keys(self) -> "Guarded":
        return Guarded(keys=ApiKeys(issue=self.issue, now_s=lambda: self.now_s))


@dataclass(slots=True, kw_only=True)
class Guarded:
    """Keys whose guesses are counted: `room` of them may be open or wrong."""

    keys: ApiKeys
    room: int = 1_000
    counted: int = 0

    async def token(self, key: ApiKey) -> str:
        return await self.keys.token(key, guess=self._guess)

    @asynccontextmanager
    async def _guess(self) -> AsyncIterator[None]:
        if self.room == 0:
            raise Exhausted("too many guesses", subject="address", reason="RATE_LIMITED", retry_after_s=1)
        self.counted += 1
        self.room -= 1
        yield
        self.room += 1


def key(secret: str) -> ApiKey:
    return ApiKey(client_id=CLIENT, client_secret=secret)


async def test_a_token_is_kept_for_a_minute_and_asked_for_once() -> None:
    identity = Identity()
    keys = identity.keys()
    tokens = await asyncio.gather(*(keys.token(key("right")) for _ in range(50)))
    assert (set(tokens), identity.asked) == ({f"token of {CLIENT}"}, 1)
    identity.now_s = KEPT_S - 1
    await keys.token(key("right"))
    assert identity.asked == 1
    identity.now_s = KEPT_S + 1
    await keys.token(key("right"))
    assert identity.asked == 2


async def test_a_wrong_key_is_not_asked_about_each_time() -> None:
    identity = Identity()
    keys = identity.keys()
    for _ in range(5):
        with pytest.raises(Unauthenticated) as refused:
            await keys.token(key("wrong"))
        assert refused.value.reason == "BAD_CREDENTIALS"
    assert identity.asked == 1
    identity.now_s = REFUSED_FOR_S + 1
    with pytest.raises(Unauthenticated):
        await keys.token(key("wrong"))
    assert identity.asked == 2


async def test_identity_is_not_asked_about_guesses_that_are_too_many() -> None:
    identity = Identity()
    keys = identity.keys()
    keys.room = 5
    told = [await reason_of(keys.token(key(f"guess-{number}"))) for number in range(20)]
    assert told == ["BAD_CREDENTIALS"] * 5 + ["RATE_LIMITED"] * 15
    assert identity.asked == 5


async def test_a_wrong_key_is_counted_each_time() -> None:
    keys = Identity().keys()
    keys.room = 3
    told = [await reason_of(keys.token(key("wrong"))) for _ in range(4)]
    assert told == ["BAD_CREDENTIALS"] * 3 + ["RATE_LIMITED"]


async def test_a_good_key_takes_no_room_and_is_known_when_there_is_none() -> None:
    identity = Identity()
    keys = identity.keys()
    keys.room = 1
    await asyncio.gather(*(keys.token(key("right")) for _ in range(50)))
    assert (keys.counted, keys.room) == (1, 1), "one question, and it was no guess"
    await reason_of(keys.token(key("wrong")))
    assert keys.room == 0
    for identity.now_s in (1, KEPT_S + 1, 2 * KEPT_S + 2):
        await keys.token(key("right"))
    assert identity.asked == 4, "its token was renewed beside the guesses of others at the same address"


async def test_of_too_many_keys_the_least_used_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.keys.MAX_KEPT", 10)
    identity = Identity()
    keys = identity.keys()
    await keys.token(key("right"))
    for number in range(30):
        await reason_of(keys.token(key(f"guess-{number}")))
        await keys.token(key("right"))
    assert identity.asked == 31, "the key in use is still known"


async def reason_of(asking: Awaitable[str]) -> str:
    with pytest.raises(DomainError) as refused:
        await asking
    return refused.value.reason


async def test_identity_away_is_no_verdict() -> None:
    identity = Identity()
    keys = identity.keys()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await keys.token(key("away"))
    assert identity.asked == 2


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(CLIENT, id="no secret"),
        pytest.param(f"{CLIENT}.", id="an empty secret"),
        pytest.param("service:loyalty.secret", id="a service"),
        pytest.param("platform:operator.secret", id="the operator"),
        pytest.param(f"{CLIENT}.a b", id="a blank"),
        pytest.param(f"{CLIENT.upper()}.secret", id="another spelling"),
        pytest.param(f"{CLIENT}." + "x" * 1000, id="too long"),
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        ApiKey.parse(text)
    assert refused.value.reason == "BAD_CREDENTIALS"


def test_a_secret_may_have_dots_and_stays_out_of_print() -> None:
    parsed = ApiKey.parse(f"{CLIENT}.a.b.c")
    assert parsed.client_secret == "a.b.c"
    assert "a.b.c" not in repr(parsed)


async def test_keys_outlive_identity() -> None:
    now_s, away = 0.0, False

    async def fetch() -> JsonWebKeys:
        if away:
            raise Unavailable("away")
        return [{"kid": "1"}]

    jwks = Jwks(fetch=fetch, now_s=lambda: now_s)
    assert await jwks.document() == b'{"keys":[{"kid":"1"}]}'
    now_s, away = 1000.0, True
    assert await jwks.document() == b'{"keys":[{"kid":"1"}]}'
    with pytest.raises(Unavailable):
        await Jwks(fetch=fetch, now_s=lambda: now_s).document()


async def test_old_keys_are_told_at_once_while_new_ones_are_asked_for() -> None:
    """Whether the edge is ready, which a probe asks with a second's patience, must not hang on identity."""
    now_s, answered, asked = 0.0, asyncio.Event(), 0
    answered.set()

    async def fetch() -> JsonWebKeys:
        nonlocal asked
        asked += 1
        await answered.wait()
        return [{"kid": str(asked)}]

    jwks = Jwks(fetch=fetch, now_s=lambda: now_s)
    assert await jwks.document() == b'{"keys":[{"kid":"1"}]}'
    now_s = 1000.0
    answered.clear()
    for _ in range(3):
        assert await asyncio.wait_for(jwks.document(), 0.2) == b'{"keys":[{"kid":"1"}]}'
    assert asked == 2, "one question at a time"
    answered.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await jwks.document() == b'{"keys":[{"kid":"2"}]}'
    assert asked == 2
