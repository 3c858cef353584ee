"""What callers ask of the ledger, with everything decided that can be decided before the batch."""

from dataclasses import dataclass
from datetime import datetime

from services.loyalty.domain.accrual import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldAsked:
    """A hold to make. `expires_at` is machine time; `is_too_old` is judged by when the caller issued it."""

    client_id: str
    request_id: str
    fingerprint: bytes
    hold_id: str
    member_id: str
    point_currency: str
    points: int
    expires_at: datetime
    order_id: str
    is_too_old: bool
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveAsked:
    """A capture (of `points`, 0 is all) or a void."""

    client_id: str
    request_id: str
    fingerprint: bytes
    hold_id: str
    is_capture: bool
    points: int
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceAsked:
    """A balance to read."""

    member_id: str
    point_currency: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteAsked:
    """An order to be quoted; nothing is stored."""

    member_id: str
    point_currency: str
    lines: tuple[Line, ...]
    occurred_at: datetime | None
