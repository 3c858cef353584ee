"""One life for everything that can be reserved: points, coupons, budgets, stock. It is resolved exactly once."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from services.runtime.errors import AlreadyExists, Invalid, Missing, Refused

TOMBSTONE_KEPT = timedelta(days=7)
MOST_AHEAD = timedelta(days=1)
"""How far a caller's clock may be ahead of ours."""


class HoldState(StrEnum):
    """ABSENT is no row at all; TOMBSTONE is a void that came before its hold."""

    ABSENT = "absent"
    HELD = "held"
    CAPTURED = "captured"
    VOIDED = "voided"
    EXPIRED = "expired"
    TOMBSTONE = "tombstone"


class HoldEvent(StrEnum):
    """What can be asked of a hold. EXPIRE is asked by the sweeper alone."""

    HOLD = "hold"
    CAPTURE = "capture"
    VOID = "void"
    EXPIRE = "expire"


class HoldCaptured(Refused):
    """The hold was captured before."""

    reason = "HOLD_CAPTURED"


class HoldVoided(Refused):
    """The hold was voided before, or voided before it arrived."""

    reason = "HOLD_VOIDED"


class HoldExpired(Refused):
    """The hold's time to live ran out before."""

    reason = "HOLD_EXPIRED"


class HoldTooOld(Refused):
    """The request was issued so long ago that its void may be forgotten."""

    reason = "HOLD_TOO_OLD"


TRANSITIONS: Mapping[tuple[HoldState, HoldEvent], HoldState] = {
    (HoldState.ABSENT, HoldEvent.HOLD): HoldState.HELD,
    (HoldState.ABSENT, HoldEvent.VOID): HoldState.TOMBSTONE,
    (HoldState.HELD, HoldEvent.CAPTURE): HoldState.CAPTURED,
    (HoldState.HELD, HoldEvent.VOID): HoldState.VOIDED,
    (HoldState.HELD, HoldEvent.EXPIRE): HoldState.EXPIRED,
}

_REFUSALS: Mapping[HoldState, type[Refused]] = {
    HoldState.CAPTURED: HoldCaptured,
    HoldState.VOIDED: HoldVoided,
    HoldState.EXPIRED: HoldExpired,
    HoldState.TOMBSTONE: HoldVoided,
}


def resolve(state: HoldState, event: HoldEvent, *, hold_id: str) -> HoldState:
    """The state after the event.

    Raises HoldCaptured, HoldVoided or HoldExpired if the hold is resolved already, AlreadyExists (HOLD_EXISTS) for a
    second hold of the name, Missing (HOLD_NOT_FOUND) for a capture or expiry of what was never held.
    """
    after = TRANSITIONS.get((state, event))
    if after is not None:
        return after
    if state is HoldState.HELD:
        raise AlreadyExists(f"hold {hold_id!r} exists; a new hold needs a new id", reason="HOLD_EXISTS")
    if state is HoldState.ABSENT:
        raise Missing(kind="hold", name=hold_id)
    raise _REFUSALS[state](f"hold {hold_id!r} is {state.value} and stays so", subject=f"hold/{hold_id}")


def state_at(state: HoldState, *, expires_at: datetime, now: datetime) -> HoldState:
    """The state that counts at `now` (machine time): a hold past its time is expired, whether or not it was swept."""
    return HoldState.EXPIRED if state is HoldState.HELD and expires_at <= now else state


def check_age(issued_at: datetime, *, now: datetime, hold_id: str) -> None:
    """Raises HoldTooOld for a hold request issued before the tombstones that could refuse it were dropped."""
    if now - issued_at >= TOMBSTONE_KEPT:
        raise HoldTooOld(f"hold {hold_id!r} was issued {now - issued_at} ago; ask again with a new id")


def check_issued(issued_at: datetime, *, now: datetime) -> None:
    """Raises Invalid for a hold request from the future, in machine time: it would never become too old."""
    if issued_at > now + MOST_AHEAD:
        raise Invalid("it lies more than a day ahead of machine time", field="issued_at")
