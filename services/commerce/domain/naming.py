"""Ids that a retry must find again."""

import hashlib
import uuid
from collections.abc import Iterable
from typing import Final

from services.runtime.ids import OrderId, derive_id, is_id

_VERSION_7: Final = 7
_TIME_BITS: Final = 80


def order_id_of(tenant_id: str, client_id: str, family: str, request_id: str) -> OrderId:
    """The order that this request makes, the same at every attempt, so that a retry finds the saga it began.

    Where the request id is a UUIDv7 its time leads the order's id, so that the key grows at its end; else it is random.
    """
    derived = derive_id("order", tenant_id, client_id, family, request_id)
    if not is_id(request_id) or uuid.UUID(request_id).version != _VERSION_7:
        return OrderId(derived)
    time_part = uuid.UUID(request_id).int >> _TIME_BITS << _TIME_BITS
    rest = uuid.UUID(derived).int & ((1 << _TIME_BITS) - 1)
    version = (rest & ~(0xF << 76)) | (_VERSION_7 << 76)
    return OrderId(str(uuid.UUID(int=time_part | version)))


def goods_fingerprint(goods: Iterable[tuple[str, str, int]]) -> bytes:
    """16 bytes that tell whether two sales under one number are the same: line ids, SKUs and quantities.

    Prices and payments do not count: the till may send on-line what it later replays off-line with its own prices.
    """
    text = "\n".join(f"{line_id}\t{sku}\t{quantity}" for line_id, sku, quantity in sorted(goods))
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
