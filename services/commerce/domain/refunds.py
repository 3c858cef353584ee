"""Refund arithmetic: the exact inverse of the sale, per line and unit, whatever the order of refunds.

Units return first-sold first. What one frozen amount holds of the units [j, k) is its prefix share up to k less that
up to j. Amounts that must sum to the line's (its tenders, the parties of its split) are taken from running sums: the
prefix of the first i parts together less the prefix of the first i-1. So each unit's parts sum to the unit, all units
of a part to the part, and none is negative: a larger total's unit share is never below a smaller one's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.commerce.domain.orders import Line, Order, OrderEvent, Payment, advance
from services.commerce.domain.refusals import UnitsAlreadyRefunded, UnknownLine
from services.runtime.ids import OrderId, RefundId
from services.runtime.money import prefix_share


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsToRefund:
    """Units of a line that a caller wants refunded; `restock` brings goods of the store's own back into its stock."""

    line_id: str
    quantity: int
    restock: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundedLine:
    """What one refund takes from one line, all in minor units but `returned_points`."""

    line_no: int
    line_id: str
    quantity: int
    refunded_before: int
    amount_minor: int
    points_tender_minor: int
    returned_points: int
    discounts_minor: tuple[int, ...]
    tenders_minor: tuple[int, ...]
    restock: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """A refund as it was made. `tenders_minor` follows the order's payments; `refund_no` counts from 1 per order."""

    refund_id: RefundId
    order_id: OrderId
    refund_no: int
    lines: tuple[RefundedLine, ...]
    tenders_minor: tuple[int, ...]
    amount_minor: int
    returned_points: int
    whole_order: bool
    reason: str
    occurred_at: datetime


def share_of_units(total: int, units: int, *, first: int, count: int) -> int:
    """What the units [first, first + count) hold of `total`."""
    return prefix_share(total, units, first + count) - prefix_share(total, units, first)


def shares_of_units(parts: Sequence[int], units: int, *, first: int, count: int) -> tuple[int, ...]:
    """What those units hold of each part; they sum to what the units hold of the parts' sum."""
    shares = []
    running = before = 0
    for part in parts:
        running += part
        upto = share_of_units(running, units, first=first, count=count)
        shares.append(upto - before)
        before = upto
    return tuple(shares)


def refund_line(line: Line, asked: UnitsToRefund, *, field: str = "quantity") -> RefundedLine:
    """What the next `quantity` units of the line give back. Raises UnitsAlreadyRefunded if it has fewer left.

    `field` is where the request has the quantity."""
    left = line.quantity - line.refunded_quantity
    if asked.quantity > left:
        raise UnitsAlreadyRefunded(line.line_id, left=left, field=field)
    units, first, count = line.quantity, line.refunded_quantity, asked.quantity
    tenders = shares_of_units(line.tenders_minor, units, first=first, count=count)
    amount = share_of_units(line.net_minor, units, first=first, count=count)
    assert sum(tenders) == amount, "the tenders of the units are not their price"
    return RefundedLine(
        line_no=line.line_no,
        line_id=line.line_id,
        quantity=count,
        refunded_before=first,
        amount_minor=amount,
        points_tender_minor=share_of_units(line.points_tender_minor, units, first=first, count=count),
        returned_points=share_of_units(line.burnt_points, units, first=first, count=count),
        discounts_minor=tuple(share_of_units(part, units, first=first, count=count) for part in line.discounts_minor),
        tenders_minor=tenders,
        restock=asked.restock and line.from_stock,
    )


def refund(
    order: Order, asked: Sequence[UnitsToRefund], *, refund_id: RefundId, reason: str, occurred_at: datetime
) -> tuple[Refund, Order]:
    """The refund, and the order after it.

    Raises OrderNotPaid, UnknownLine, or UnitsAlreadyRefunded; line ids are unique in `asked`.
    """
    state = advance(order.state, OrderEvent.REFUND, order_id=order.order_id)
    by_id: Mapping[str, Line] = {line.line_id: line for line in order.lines}
    for at, wanted in enumerate(asked):
        if wanted.line_id not in by_id:
            raise UnknownLine(wanted.line_id, field=f"lines[{at}].line_id")
    refunded = tuple(
        refund_line(by_id[wanted.line_id], wanted, field=f"lines[{at}].quantity") for at, wanted in enumerate(asked)
    )
    tenders = tuple(sum(part) for part in zip(*(line.tenders_minor for line in refunded), strict=True))
    after = _after(order, refunded, tenders)
    made = Refund(
        refund_id=refund_id,
        order_id=order.order_id,
        refund_no=order.refund_count + 1,
        lines=refunded,
        tenders_minor=tenders,
        amount_minor=sum(line.amount_minor for line in refunded),
        returned_points=sum(line.returned_points for line in refunded),
        whole_order=after.wholly_refunded,
        reason=reason,
        occurred_at=occurred_at,
    )
    return made, replace(
        after,
        state=state,
        version=order.version + 1,
        refund_count=made.refund_no,
        refunded_minor=order.refunded_minor + made.amount_minor,
    )


def _after(order: Order, refunded: Sequence[RefundedLine], tenders: Sequence[int]) -> Order:
    taken = {line.line_no: line for line in refunded}
    lines = tuple(_reduced(line, taken[line.line_no]) if line.line_no in taken else line for line in order.lines)
    payments: tuple[Payment, ...] = order.payments
    if tenders:
        payments = tuple(
            replace(payment, refunded_minor=payment.refunded_minor + back)
            for payment, back in zip(order.payments, tenders, strict=True)
        )
    return replace(order, lines=lines, payments=payments)


def _reduced(line: Line, taken: RefundedLine) -> Line:
    return replace(
        line,
        refunded_quantity=line.refunded_quantity + taken.quantity,
        refunded_minor=line.refunded_minor + taken.amount_minor,
    )
