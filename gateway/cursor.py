"""Where a partner stands in the logs of all services: opaque to it, signed, and good for its own tenant only."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from services.runtime.errors import Invalid

VERSION = 1
MAX_CHARACTERS = 24_576
"""Room for every service's every partition, 256 of them; Envoy takes headers of 32 KiB, and the query is in one."""
_SIGNATURE_BYTES = 16
_LABEL = b"siyu event cursor 1"

Positions = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The last block that was read wholly, by service and partition; absent is 0, before the first.

    `taken` counts the events of the next block that were handed out already: a page can end inside a block.
    `turn` says with which partition the next page begins, so that a busy one does not starve the others.
    """

    positions: Positions = field(default_factory=dict)
    taken: Positions = field(default_factory=dict)
    turn: int = 0

    def after(self, service: str, partition: int) -> int:
        """The block after which to read on."""
        return self.positions.get((service, partition), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CursorSeal:
    """Writes and reads cursors; whoever lacks the secret can do neither."""

    key: bytes = field(repr=False)
    services: tuple[str, ...]
    """In a fixed order: a cursor names a service by its place. New ones are added at the end."""

    @classmethod
    def of(cls, secret: str, *, services: tuple[str, ...]) -> "CursorSeal":
        """A seal from the gateway's own secret, which every edge of an installation shares."""
        return cls(key=hmac.digest(secret.encode(), _LABEL, hashlib.sha256), services=services)

    def write(self, cursor: Cursor, *, tenant_id: str) -> str:
        """The cursor as text: base64url of version, turn, entries and signature."""
        body = bytearray([VERSION])
        body += _varint(cursor.turn)
        for place, service in enumerate(self.services):
            for (name, partition), seq in sorted(_merged(cursor).items()):
                if name == service:
                    body += _varint(place) + _varint(partition) + _varint(seq)
                    body += _varint(cursor.taken.get((name, partition), 0))
        return base64.urlsafe_b64encode(bytes(body) + self._sign(bytes(body), tenant_id)).decode().rstrip("=")

    def read(self, text: str, *, tenant_id: str) -> Cursor:
        """Raises Invalid (CURSOR_INVALID) for what this seal did not write for this tenant."""
        try:
            if len(text) > MAX_CHARACTERS:
                raise ValueError("too long")
            # urlsafe_b64decode would skip what is not base64
            sealed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            body, signature = sealed[:-_SIGNATURE_BYTES], sealed[-_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._sign(body, tenant_id)) or body[0] != VERSION:
                raise ValueError("not ours")
            return self._parse(body)
        except (ValueError, IndexError, StopIteration, binascii.Error):
            raise Invalid(
                "this cursor was not given to you; start without one", field="cursor", reason="CURSOR_INVALID"
            ) from None

    def _parse(self, body: bytes) -> Cursor:
        numbers = _numbers(body[1:])
        turn = next(numbers)
        positions: dict[tuple[str, int], int] = {}
        taken: dict[tuple[str, int], int] = {}
        for place in numbers:
            at = self.services[place], next(numbers)
            positions[at], taken[at] = next(numbers), next(numbers)
        return Cursor(positions=positions, taken={at: count for at, count in taken.items() if count}, turn=turn)

    def _sign(self, body: bytes, tenant_id: str) -> bytes:
        return hmac.digest(self.key, tenant_id.encode() + b"\0" + body, hashlib.sha256)[:_SIGNATURE_BYTES]


def _merged(cursor: Cursor) -> dict[tuple[str, int], int]:
    return {**dict.fromkeys(cursor.taken, 0), **cursor.positions}


def _varint(number: int) -> bytes:
    assert number >= 0, "a cursor holds no negative numbers"
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _numbers(body: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in body:
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield number
            number = shift = 0
    if shift:
        raise ValueError("cut off")
