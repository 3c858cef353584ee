"""Coupon codes: 80 bits that nobody can guess, told again without being stored.

A made code is a keyed hash of its coupon's id, so it can be shown whenever its owner asks; the database holds only a
keyed hash of the code itself to look it up by. Whoever has the database alone can neither use nor sell a coupon. Of a
code that the brand chose (printed codes, a partner's codes) only the last characters are kept, to recognise it by.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Self

SECRET_MIN_CHARS: Final = 16
CODE_BYTES: Final = 10
LOOKUP_BYTES: Final = 16
"""128 bits: two codes sharing a hash by chance is out of the question, and the index is half as big."""
KEPT_CHARS: Final = 4
MASK: Final = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeKeys:
    """The keys of this installation's codes."""

    make: bytes
    lookup: bytes

    @classmethod
    def derive(cls, service_secret: str) -> Self:
        """Keys that stay the same as long as the service's own secret does; another secret orphans every code."""
        assert len(service_secret) >= SECRET_MIN_CHARS, (
            f"SIYU_SERVICE_SECRET needs {SECRET_MIN_CHARS} random characters"
        )
        root = service_secret.encode()
        return cls(
            make=hmac.digest(root, b"siyu key coupon code", hashlib.sha256),
            lookup=hmac.digest(root, b"siyu key coupon lookup", hashlib.sha256),
        )

    def made(self, tenant_id: str, coupon_id: str) -> str:
        """The code of a coupon that was issued without one: 16 characters of A-Z and 2-7."""
        digest = hmac.digest(self.make, f"{tenant_id}\x1f{coupon_id}".encode(), hashlib.sha256)
        return base64.b32encode(digest[:CODE_BYTES]).decode()

    def lookup_of(self, tenant_id: str, code: str) -> bytes:
        """What a code is found by; the same code hashes differently in each tenant."""
        return hmac.digest(self.lookup, f"{tenant_id}\x1f{code}".encode(), hashlib.sha256)[:LOOKUP_BYTES]


def end_of(code: str) -> str:
    """The part of a chosen code that is kept: its last characters, never more than half of it."""
    return code[-min(KEPT_CHARS, len(code) // 2) :] if len(code) > 1 else ""


def masked(end: str) -> str:
    """How a chosen code is shown after it was issued."""
    return f"{MASK}{end}"
