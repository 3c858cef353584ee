"""Secrets that are computed and never stored: one root secret gives every client's, and the keys of this installation.

A client's secret is an HMAC of its tenant and id, so that a repeated request can tell it again although the database
holds nothing but a verifier. Whoever has the root secret can act as anybody; whoever has the database cannot.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final, Self

from services.runtime.call import ActorKind

ROOT_SECRET_MIN_CHARS: Final = 32
_INSTALLATION_CLIENT: Final = re.compile(r"(service|platform):[a-z][a-z0-9_-]{0,62}")
_KINDS: Final = {"service": ActorKind.SERVICE, "platform": ActorKind.PLATFORM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The installation's keys, each derived from the root secret for one purpose."""

    root: bytes
    client_secret: bytes
    client_verifier: bytes
    lookup: bytes
    data: bytes
    signing: bytes

    @classmethod
    def derive(cls, root_secret: str) -> Self:
        """The keys of an installation; the root secret has at least 32 characters, chosen at random."""
        assert len(root_secret) >= ROOT_SECRET_MIN_CHARS, "SIYU_ROOT_SECRET needs at least 32 random characters"
        root = root_secret.encode()

        def key(purpose: str) -> bytes:
            # a space keeps these apart from the names of installation clients, which are derived from the root too
            return hmac.digest(root, f"siyu key {purpose}".encode(), hashlib.sha256)

        return cls(
            root=root,
            client_secret=key("client secret"),
            client_verifier=key("client verifier"),
            lookup=key("identifier lookup"),
            data=key("member data"),
            signing=key("token signing"),
        )

    def secret_of(self, tenant_id: str, client_id: str) -> str:
        """A client's secret: 256 bits, base32 in small letters, 52 characters."""
        digest = hmac.digest(self.client_secret, f"{tenant_id}\x1f{client_id}".encode(), hashlib.sha256)
        return base64.b32encode(digest).decode().rstrip("=").lower()

    def verifier_of(self, secret: str) -> bytes:
        """What is stored of a secret. A plain keyed hash will do: the secret has 256 bits and is nobody's password."""
        return hmac.digest(self.client_verifier, secret.encode(), hashlib.sha256)

    def installation_secret_of(self, client_id: str) -> str:
        """The secret of `service:<name>` or `platform:<name>`: hex HMAC-SHA256 of its id under the root secret."""
        return hmac.digest(self.root, client_id.encode(), hashlib.sha256).hex()

    def lookup_key_of(self, tenant_id: str) -> bytes:
        """The key that a tenant's identifiers are hashed with: the same number hashes differently in each tenant."""
        return hmac.digest(self.lookup, tenant_id.encode(), hashlib.sha256)


def installation_kind(client_id: str) -> ActorKind | None:
    """SERVICE or PLATFORM for the installation's own clients, None for a tenant's."""
    if _INSTALLATION_CLIENT.fullmatch(client_id) is None:
        return None
    return _KINDS[client_id.partition(":")[0]]
