"""Ids that a retry must find again."""

import hashlib
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from services.runtime.ids import OrderId, derive_id, is_id

_VERSION_7: Final = 7
_BELOW_TIME: Final = 80


def request_key_of(tenant_id: str, client_id: str, family: str, request_id: str) -> str:
    """A request's name among all requests, whatever its body tells."""
    return derive_id("order", tenant_id, client_id, family, request_id)


def order_id_of(
    tenant_id: str, client_id: str, family: str, request_id: str, *, sold_at: datetime | None = None
) -> OrderId:
    """The order that this request makes, the same at every attempt, so that a retry finds the saga it began.

    The time that the request itself tells (`sold_at`, or a request id that is a UUIDv7) leads the id, so that the key
    grows at its end; where it tells none the id is random.
    """
    derived = request_key_of(tenant_id, client_id, family, request_id)
    if sold_at is not None:
        at_ms = int(sold_at.timestamp() * 1000)
    elif is_id(request_id) and uuid.UUID(request_id).version == _VERSION_7:
        at_ms = uuid.UUID(request_id).int >> _BELOW_TIME
    else:
        return OrderId(derived)
    rest = uuid.UUID(derived).int & ((1 << _BELOW_TIME) - 1)
    return OrderId(str(uuid.UUID(int=(at_ms << _BELOW_TIME) | (rest & ~(0xF << 76)) | (_VERSION_7 << 76))))


def goods_fingerprint(goods: Iterable[tuple[str, str, int]]) -> bytes:
    """16 bytes that tell whether two sales under one number are the same: line ids, SKUs and quantities.

    Prices and payments do not count: the till may send on-line what it later replays off-line with its own prices.
    """
    text = "\n".join(f"{line_id}\t{sku}\t{quantity}" for line_id, sku, quantity in sorted(goods))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
