"""Identity's public keys as a JWKS document, for Envoy and for anybody who verifies Siyu's tokens."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson
import structlog

from services.runtime.auth import JsonWebKeys
from services.runtime.errors import DomainError, Unavailable

FRESH_FOR_S = 60.0

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Jwks:
    """The key set, asked of identity once a minute. While identity is away the last one stays in use."""

    fetch: Callable[[], Awaitable[JsonWebKeys]]
    now_s: Callable[[], float] = time.monotonic
    _document: bytes = b""
    _fresh_until_s: float = 0.0
    _asking: asyncio.Task[None] | None = None

    async def document(self) -> bytes:
        """RFC 7517, as JSON. Raises Unavailable while there never was an answer with a key in it.

        A document that is there is told at once, and its successor asked for beside: whether this edge is ready must
        not hang on an identity that does not answer."""
        if self._asking is None and (not self._document or self.now_s() >= self._fresh_until_s):
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(self._asked)
        if not self._document:
            assert self._asking is not None, "it was just asked for"
            await asyncio.shield(self._asking)
        return self._document

    async def _ask(self) -> None:
        try:
            keys = await self.fetch()
        except DomainError as error:
            raise Unavailable("identity does not answer yet", reason="KEYS_NOT_READY") from error
        if not keys:
            raise Unavailable("identity has no keys yet", reason="KEYS_NOT_READY")
        self._document = orjson.dumps({"keys": keys})
        self._fresh_until_s = self.now_s() + FRESH_FOR_S

    def _asked(self, done: asyncio.Task[None]) -> None:
        self._asking = None
        error = None if done.cancelled() else done.exception()
        if error is not None and not isinstance(error, DomainError):
            _log.error("the keys could not be read", exc_info=error)
