"""Ids: UUIDv7 for what we name, derived ids where a retry must name the same thing again."""

import hashlib
import uuid
from typing import NewType

import uuid_utils

TenantId = NewType("TenantId", str)
ClientId = NewType("ClientId", str)
MemberId = NewType("MemberId", str)
StoreId = NewType("StoreId", str)
SupplierId = NewType("SupplierId", str)
Sku = NewType("Sku", str)
HoldId = NewType("HoldId", str)
TemplateId = NewType("TemplateId", str)
CouponId = NewType("CouponId", str)
PromotionId = NewType("PromotionId", str)
OrderId = NewType("OrderId", str)
RefundId = NewType("RefundId", str)
SupplierOrderId = NewType("SupplierOrderId", str)

_VERSION_8 = 0x8 << 76
_VARIANT = 0b10 << 62
_VERSION_MASK = ~(0xF << 76)
_VARIANT_MASK = ~(0b11 << 62)


def new_id() -> str:
    """A new UUIDv7, lower case: it sorts by time, so that an index grows at its end."""
    return str(uuid_utils.uuid7())


def derive_id(*parts: str) -> str:
    """The same UUID (version 8) for the same parts, for ever: a repeated step finds what it made before.

    Parts are length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    number = int.from_bytes(digest.digest()[:16], "big")
    return str(uuid.UUID(int=number & _VERSION_MASK & _VARIANT_MASK | _VERSION_8 | _VARIANT))


def is_id(text: str) -> bool:
    """Whether `text` is a UUID in the canonical lower-case form."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def stable_hash(text: str) -> int:
    """A 63-bit hash that is the same in every process and release: partitions and checksums rest on it."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
