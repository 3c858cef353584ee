"""Encryption at rest: AES-256-GCM-SIV, bound to what it belongs to.

GCM-SIV because nonces are random and there are many: one that repeats tells only that two values are equal. Members'
values are sealed with a key of their own, itself sealed with the installation's: destroying it erases the person from
every table and every backup, and leaves the books intact.
"""

import os
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FORMAT: Final = b"\x01"
"""Leads every sealed value, so that a later key or algorithm can be told from this one."""


def new_key() -> bytes:
    """A fresh 256-bit key."""
    return os.urandom(KEY_BYTES)


def seal(key: bytes, plain: bytes, *, bound_to: str) -> bytes:
    """The encrypted value; it opens only with the same key and the same `bound_to`, so that rows can't be swapped."""
    nonce = os.urandom(_NONCE_BYTES)
    return _FORMAT + nonce + AESGCMSIV(key).encrypt(nonce, plain, bound_to.encode())


def unseal(key: bytes, sealed: bytes, *, bound_to: str) -> bytes:
    """The value. A wrong key, another owner or a changed byte is a bug or an attack, and raises InvalidTag."""
    assert sealed[:1] == _FORMAT, "a sealed value of an unknown format"
    nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    return AESGCMSIV(key).decrypt(nonce, body, bound_to.encode())
