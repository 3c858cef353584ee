"""API keys: `x-api-key: <client_id>.<client_secret>` stands for a token that the edge gets from identity and keeps.

A key is looked up by a keyed hash, so that neither key nor secret stays in this process's memory longer than the call.
"""

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

from services.runtime.errors import Unauthenticated

# A token lives for ten minutes; asking each minute lets a revoked key die within one.
KEPT_S = 60.0
# A wrong key that a broken client sends at every call is not asked about at every call.
REFUSED_FOR_S = 10.0
MAX_KEPT = 20_000
MAX_KEY_CHARACTERS = 400

# The ids of clients that tenants make. The installation's own (service:…, platform:…) don't come with an API key.
_KEY = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.([\x21-\x7e]{1,256})")

Guess = Callable[[], AbstractAsyncContextManager[None]]
"""Around a key that is not known to be good: entering counts it or refuses; leaving without an error gives it back."""

IssueToken = Callable[[str, str], Awaitable[str]]
"""Client id and secret to a token; raises Unauthenticated for a pair that identity does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key that is well formed; whether it is a client's, identity knows."""

    client_id: str
    client_secret: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "ApiKey":
        """Reads the header. Raises Unauthenticated (BAD_CREDENTIALS)."""
        found = _KEY.fullmatch(text) if len(text) <= MAX_KEY_CHARACTERS else None
        if found is None:
            raise bad_key()
        return cls(client_id=found[1], client_secret=found[2])


def bad_key() -> Unauthenticated:
    """The one refusal of a key, whatever is wrong with it."""
    return Unauthenticated("this API key is not valid", reason="BAD_CREDENTIALS")


@dataclass(frozen=True, slots=True)
class _Known:
    token: str
    """Empty: refused."""
    until_s: float

    def checked(self) -> str:
        """The token. Raises Unauthenticated if there is none."""
        if not self.token:
            raise bad_key()
        return self.token


@dataclass(slots=True)
class ApiKeys:
    """Tokens by key, the least used forgotten first. Concurrent calls with one key ask identity once."""

    issue: IssueToken
    now_s: Callable[[], float] = time.monotonic
    _salt: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _known: OrderedDict[bytes, _Known] = field(default_factory=OrderedDict)
    _asking: dict[bytes, asyncio.Task[str]] = field(default_factory=dict)

    async def token(self, key: ApiKey, *, guess: Guess) -> str:
        """The token that the key stands for. Raises Unauthenticated; Unavailable while identity is away.

        A key that identity knew when it was last asked is no guess."""
        digest = hmac.digest(self._salt, f"{key.client_id}.{key.client_secret}".encode(), hashlib.sha256)
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
            if known.token:
                guess = nullcontext
            if known.until_s > self.now_s():
                async with guess():
                    return known.checked()
        asking = self._asking.get(digest)
        if asking is None:
            asking = asyncio.create_task(self._ask(digest, key, guess))
            self._asking[digest] = asking
            asking.add_done_callback(lambda done: self._asked(digest, done))
        # one caller that goes away must not cancel the others' answer
        return await asyncio.shield(asking)

    async def _ask(self, digest: bytes, key: ApiKey, guess: Guess) -> str:
        async with guess():
            try:
                token = await self.issue(key.client_id, key.client_secret)
            except Unauthenticated:
                self._remember(digest, _Known("", self.now_s() + REFUSED_FOR_S))
                raise bad_key() from None
            self._remember(digest, _Known(token, self.now_s() + KEPT_S))
            return token

    def _remember(self, digest: bytes, known: _Known) -> None:
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)

    def _asked(self, digest: bytes, done: asyncio.Task[str]) -> None:
        self._asking.pop(digest, None)
        if not done.cancelled():
            done.exception()  # told to those who wait; nobody may be left to wait
