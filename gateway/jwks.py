"""Identity's public keys as a JWKS document, for Envoy and for anybody who verifies Siyu's tokens."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import orjson

from services.runtime.auth import JsonWebKeys
from services.runtime.errors import DomainError, Unavailable

FRESH_FOR_S = 60.0


@dataclass(slots=True)
class Jwks:
    """The key set, asked of identity once a minute. While identity is away the last one stays in use."""

    fetch: Callable[[], Awaitable[JsonWebKeys]]
    now_s: Callable[[], float] = time.monotonic
    _document: bytes = b""
    _fetched_at_s: float = field(default=-FRESH_FOR_S)

    async def document(self) -> bytes:
        """RFC 7517, as JSON. Raises Unavailable while there never was an answer with a key in it."""
        if not self._document or self.now_s() - self._fetched_at_s >= FRESH_FOR_S:
            try:
                keys = await self.fetch()
            except DomainError as error:
                if not self._document:
                    raise Unavailable("identity does not answer yet", reason="KEYS_NOT_READY") from error
            else:
                if not keys:
                    raise Unavailable("identity has no keys yet", reason="KEYS_NOT_READY")
                self._document = orjson.dumps({"keys": keys})
                self._fetched_at_s = self.now_s()
        return self._document
