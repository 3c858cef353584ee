"""Tokens: who the bearer is, for ten minutes, signed with a key that is replaced every month."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from services.runtime.call import ActorKind

ISSUER: Final = "siyu"
AUDIENCE: Final = "siyu"
ALGORITHM: Final = "ES256"
TOKEN_LIFE: Final = timedelta(minutes=10)
KEY_SIGNS_FOR: Final = timedelta(days=30)
KEY_KNOWN_BEFORE: Final = timedelta(hours=1)
"""A new key is published this long before it signs, so that no verifier meets one that it hasn't fetched."""
KEY_VERIFIES_AFTER: Final = TOKEN_LIFE + timedelta(minutes=50)
"""An old key stays published this long after its last signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Whom a token stands for. An empty tenant is the installation's own."""

    client_id: str
    kind: ActorKind
    scopes: tuple[str, ...]
    tenant_id: str = ""
    store_id: str = ""
    supplier_id: str = ""
    time_zone: str = ""
    currency_code: str = ""
    has_test_clock: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that verifies tokens: the point's coordinates as base64url. It signs from `signs_from` on."""

    kid: str
    x: str
    y: str
    signs_from: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key that signs tokens."""

    public: PublicKey
    private: EllipticCurvePrivateKey


def claims_of(bearer: Bearer, *, now: datetime, token_id: str) -> dict[str, Any]:
    """The token's claims. Short names, since they travel with every call; absent is empty or false."""
    issued_at = int(now.timestamp())
    said: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": bearer.client_id,
        "kind": bearer.kind.value,
        "scp": " ".join(bearer.scopes),
        "iat": issued_at,
        "exp": issued_at + int(TOKEN_LIFE.total_seconds()),
        "jti": token_id,
    }
    bound: Mapping[str, object] = {
        "tid": bearer.tenant_id,
        "sto": bearer.store_id,
        "sup": bearer.supplier_id,
        "tz": bearer.time_zone,
        "cur": bearer.currency_code,
        "tc": bearer.has_test_clock,
    }
    return said | {name: value for name, value in bound.items() if value}


def signed(claims: Mapping[str, Any], key: SigningKey) -> str:
    """The token as a compact JWS."""
    return jwt.encode(dict(claims), key.private, algorithm=ALGORITHM, headers={"kid": key.public.kid})


def signs_at(keys: Sequence[PublicKey], now: datetime) -> PublicKey | None:
    """The key that signs now: the newest that has begun to; None without any.

    Where none has, it is the first: who made it has a clock that is ahead of ours, and verifiers know it already."""
    newest_first = sorted(keys, key=lambda key: (key.signs_from, key.kid), reverse=True)
    return next((key for key in newest_first if key.signs_from <= now), newest_first[-1] if newest_first else None)


def published_at(keys: Sequence[PublicKey], now: datetime) -> tuple[PublicKey, ...]:
    """The keys that verify now, the newest first: the signing one, the next one, and those whose tokens still live."""
    newest_first = sorted(keys, key=lambda key: (key.signs_from, key.kid), reverse=True)
    kept: list[PublicKey] = []
    for at, key in enumerate(newest_first):
        # a key signs until the next newer one begins
        if at == 0 or newest_first[at - 1].signs_from + KEY_VERIFIES_AFTER > now:
            kept.append(key)
    return tuple(kept)


def next_key_from(keys: Sequence[PublicKey], now: datetime) -> datetime | None:
    """From when a key that is to be made now would sign; None while no key is needed."""
    if not keys:
        return now
    newest = max(key.signs_from for key in keys)
    if newest + KEY_SIGNS_FOR - KEY_KNOWN_BEFORE > now:
        return None
    return now + KEY_KNOWN_BEFORE
