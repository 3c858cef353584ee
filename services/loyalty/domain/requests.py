"""What callers ask of the ledger, with everything decided that can be decided before the batch."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from services.loyalty.domain.accrual import Line


# A named tuple, as the other values of a grant: a frozen dataclass takes twice as long to make, and there are 20,000 a
# second.
class GrantAsked(NamedTuple):
    """A grant as it was asked for. `occurred_at` None is now; empty names take the programme's defaults."""

    request_id: str
    fingerprint: bytes
    member_id: str
    points: int
    # from here on what many grants share
    point_currency: str
    expiry_class: str
    funder: str
    reason: str
    occurred_at: datetime | None
    store_id: str
    channel: str

    @property
    def shared(self) -> tuple[object, ...]:
        """What decides the terms: grants of one call that are equal in it have the same."""
        return self[4:]


class GrantTerms(NamedTuple):
    """What most grants of a batch have in common."""

    client_id: str
    point_currency: str
    class_no: int
    expires_at: datetime
    reason: str
    store_id: str
    channel: str


class Grant(NamedTuple):
    """A grant that is ready to be posted; `event_part` is its part of the event that tells a transaction's grants."""

    asked: GrantAsked
    terms: GrantTerms
    entry_id: str
    partition: int
    event_part: bytes
    now: datetime
    trace: str


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
