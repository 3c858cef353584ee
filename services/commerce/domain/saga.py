"""The order's saga: what loyalty and campaign hold for it, as rows that a dead orchestrator leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final

from services.runtime.ids import OrderId, derive_id

HOLD_GRACE_S: Final = 86_400
"""A hold outlives the order's wait for payment by this: the worker voids it long before, or captures it late."""
MAX_HOLD_TTL_S: Final = 604_800


class StepKind(IntEnum):
    """Whose hold it is."""

    POINTS = 1
    BENEFITS = 2


class StepState(IntEnum):
    """Where a step stands. What is not resolved is retried by the worker until it is."""

    ASKED = 1
    HELD = 2
    CAPTURE_DUE = 3
    VOID_DUE = 4
    CAPTURED = 5
    VOIDED = 6
    # 7 was never written
    LOST = 8


class StepEvent(StrEnum):
    """What moves a step. The payment is the pivot: before it everything compensates, after it everything goes on."""

    HOLD_MADE = "hold made"
    PAID = "paid"
    GIVEN_UP = "given up"
    CAPTURE_DONE = "capture done"
    CAPTURE_IMPOSSIBLE = "capture impossible"
    VOID_DONE = "void done"


RESOLVED: Final = frozenset({StepState.CAPTURED, StepState.VOIDED, StepState.LOST})

TRANSITIONS: Mapping[tuple[StepState, StepEvent], StepState] = {
    (StepState.ASKED, StepEvent.HOLD_MADE): StepState.HELD,
    # refused or unknown: a void that comes first leaves a tombstone, so that the late hold is refused
    (StepState.ASKED, StepEvent.GIVEN_UP): StepState.VOID_DUE,
    (StepState.HELD, StepEvent.PAID): StepState.CAPTURE_DUE,
    (StepState.HELD, StepEvent.GIVEN_UP): StepState.VOID_DUE,
    (StepState.CAPTURE_DUE, StepEvent.CAPTURE_DONE): StepState.CAPTURED,
    (StepState.CAPTURE_DUE, StepEvent.CAPTURE_IMPOSSIBLE): StepState.LOST,
    (StepState.VOID_DUE, StepEvent.VOID_DONE): StepState.VOIDED,
}


def advance(state: StepState, event: StepEvent) -> StepState:
    """The state after the event; any other pair is a bug."""
    after = TRANSITIONS.get((state, event))
    assert after is not None, f"{event} of a step that is {state.name}"
    return after


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponUse:
    """A coupon to hold, and what it takes off."""

    coupon_id: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetUse:
    """A promotion's budget to hold, and what it gives."""

    promotion_id: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One participant of an order's saga. Every call for it carries request ids derived from the order's id.

    `issued_at` is when the order was placed, in machine time: by it a peer refuses a hold that comes after its void was
    forgotten.
    """

    order_id: OrderId
    kind: StepKind
    state: StepState
    issued_at: datetime
    member_id: str = ""
    point_currency: str = ""
    points: int = 0
    coupons: tuple[CouponUse, ...] = ()
    budgets: tuple[BudgetUse, ...] = ()
    ttl_s: int = 0
    attempts: int = 0

    @property
    def hold_id(self) -> str:
        """What the peer calls the hold."""
        return hold_id_of(self.order_id, self.kind)


def hold_id_of(order_id: str, kind: StepKind) -> str:
    """The hold's name, the same at every attempt."""
    return derive_id("hold", kind.name, order_id)


def request_id_of(order_id: str, kind: StepKind, action: str) -> str:
    """The request id of one action on the hold, the same at every attempt."""
    return derive_id("step", kind.name, action, order_id)


def retry_after_s(attempts: int) -> int:
    """Seconds until the worker tries a step again: 2, 4, 8, 16, 32, then every 60."""
    return min(60, 2 << min(attempts, 5))
