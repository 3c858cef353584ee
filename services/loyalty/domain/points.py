"""The ledger's words: kinds of entries, buckets, balances, and the refusals of its calls."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Final, NamedTuple

from services.runtime.errors import AlreadyExists, DomainError, Invalid, Missing, Refused
from services.runtime.holds import HoldCaptured, HoldExpired, HoldTooOld, HoldVoided

DEFAULT_HOLD_S: Final = 900


class EntryKind(IntEnum):
    """What an entry is; the numbers are those of the contract."""

    EARN = 1
    MATURE = 2
    HOLD = 3
    BURN = 4
    RELEASE = 5
    TAKE_BACK = 6
    GIVE_BACK = 7
    EXPIRE = 8
    DEBT = 9
    REPAY = 10
    TRANSFER = 11


class HoldState(IntEnum):
    """As in the contract; a tombstone is a void that came before its hold."""

    HELD = 1
    CAPTURED = 2
    VOIDED = 3
    EXPIRED = 4
    TOMBSTONE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A member's points. `posted` is available and held; nothing expired is in it, posted or not."""

    available_points: int
    pending_points: int
    held_points: int
    debt_points: int
    next_expiry_at: datetime | None
    next_expiry_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the ledger, with its effect on posted (available and held) and on pending points."""

    entry_id: str
    kind: EntryKind
    version: int
    points: int
    pending_points: int
    funder: str
    expiry_class: str
    expires_at: datetime | None
    occurred_at: datetime
    posted_at: datetime
    order_id: str
    why: str


# A named tuple: a frozen dataclass takes three times as long to make, and there are 20,000 a second.
class Accrued(NamedTuple):
    """A grant that was posted."""

    entry_id: str
    available_points: int
    repaid_points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A hold as its caller sees it; `available_points` is right after it was made."""

    hold_id: str
    state: HoldState
    held_points: int
    captured_points: int
    expires_at: datetime
    available_points: int = 0


class InsufficientPoints(Refused):
    """The member has less than the call asks for."""

    reason = "INSUFFICIENT_POINTS"


class BalanceTooLarge(Invalid):
    """A grant or a merge brings more than the member's points can still grow by: they are counted in 64 bits."""

    reason = "BALANCE_TOO_LARGE"

    def __init__(self) -> None:
        """Names the field."""
        super().__init__("the member would have more points than can be counted; grant fewer", field="points")


class HoldTooSmall(Refused):
    """More is captured than was held."""

    reason = "HOLD_TOO_SMALL"


class RequestIdReused(AlreadyExists):
    """The request id came with another body."""

    reason = "REQUEST_ID_REUSED"


class HoldExists(AlreadyExists):
    """A second hold of the name."""

    reason = "HOLD_EXISTS"


class ProgrammeNotFound(Missing):
    """No programme is in force for the point currency."""

    def __init__(self, point_currency: str) -> None:
        """Names the point currency."""
        super().__init__(kind="programme", name=point_currency)


def refusal(reason: str, *, name: str, available_points: int = 0) -> DomainError:
    """The refusal that the ledger told by its reason; `name` is of what it refused or missed."""
    match reason:
        case "PROGRAMME_NOT_FOUND":
            return ProgrammeNotFound(name)
        case "EXPIRY_CLASS_NOT_FOUND":
            return Missing(kind="expiry class", name=name)
        case "INSUFFICIENT_POINTS":
            return InsufficientPoints(
                f"{available_points} points are available; ask for no more",
                subject=f"hold/{name}",
                metadata={"available_points": str(available_points)},
            )
        case "HOLD_NOT_FOUND":
            return Missing(kind="hold", name=name)
        case "HOLD_EXISTS":
            return HoldExists(f"hold {name!r} exists; a new hold needs a new id")
        case "HOLD_TOO_SMALL":
            return HoldTooSmall(f"hold {name!r} has fewer points; capture no more", subject=f"hold/{name}")
        case "HOLD_TOO_OLD":
            return HoldTooOld(f"hold {name!r} was issued too long ago; ask again with a new id", subject=f"hold/{name}")
    for known in (HoldCaptured, HoldVoided, HoldExpired):
        if known.reason == reason:
            return known(f"hold {name!r} was resolved before and stays so", subject=f"hold/{name}")
    raise AssertionError(f"the ledger refused with {reason!r}")


def hold_time_to_live(ttl_s: int) -> timedelta:
    """How long a hold lives; 0 takes the default."""
    return timedelta(seconds=ttl_s or DEFAULT_HOLD_S)


def reused(request_id: str) -> RequestIdReused:
    """The refusal of a request id that came with another body."""
    return RequestIdReused(
        "this request id was used with another body; a new request needs a new id", metadata={"request_id": request_id}
    )
