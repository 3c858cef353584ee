"""The keys that verify tokens: asked for when they are needed, and not at a stranger's will."""

import base64

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from services.runtime.auth import JsonWebKeys, TokenVerifier
from services.runtime.errors import Unauthenticated, Unavailable

KEY = ec.generate_private_key(ec.SECP256R1())


class Identity:
    """Its key set, and how often it was asked for."""

    def __init__(self, *, is_away: bool) -> None:
        self.is_away = is_away
        self.asked = 0

    async def keys(self) -> JsonWebKeys:
        self.asked += 1
        if self.is_away:
            raise Unavailable("not here")
        public = KEY.public_key().public_numbers()
        x, y = (
            base64.urlsafe_b64encode(number.to_bytes(32, "big")).decode().rstrip("=") for number in (public.x, public.y)
        )
        return [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "known", "alg": "ES256"}]


def strange() -> str:
    return jwt.encode({"sub": "stranger"}, KEY, algorithm="ES256", headers={"kid": "unknown"})


async def test_a_stranger_makes_us_ask_once_whether_or_not_identity_answers() -> None:
    identity = Identity(is_away=False)
    verifier = TokenVerifier(identity.keys)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await verifier.verify(strange())
    assert identity.asked == 1
    identity.is_away = True
    verifier._fetch_at = 0.0
    for _ in range(3):
        with pytest.raises(Unavailable) as away:
            await verifier.verify(strange())
        assert away.value.reason == "KEYS_NOT_READY", "it may be a new key's"
    assert identity.asked == 2


async def test_calls_that_come_before_any_key_ask_together() -> None:
    identity = Identity(is_away=True)
    verifier = TokenVerifier(identity.keys)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await verifier.verify(strange())
    assert identity.asked == 1
