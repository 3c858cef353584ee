"""Freezes every share of an order when it is placed, so that nothing moves when another line is returned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.commerce.domain.orders import NO_SUPPLIER, Discount, Line, Payment, PriceSource, Tender
from services.commerce.domain.refusals import PaymentMismatch
from services.runtime.ids import Sku, SupplierId
from services.runtime.money import allocate, tenders_by_line


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedLine:
    """A line with its price and its shares of discounts, in the order of evaluation."""

    line_id: str
    sku: Sku
    category: str
    quantity: int
    price_source: PriceSource
    shelf_minor: int
    shares: tuple[tuple[Discount, int], ...]
    supplier_id: SupplierId = NO_SUPPLIER
    rule_version: int = 0
    from_stock: bool = True

    @property
    def net_minor(self) -> int:
        """After discounts."""
        return self.shelf_minor - sum(share for _, share in self.shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsValue:
    """What points are worth as tender: `points_per_value` points are `tender_value_minor`; 0: nothing."""

    tender_value_minor: int
    points_per_value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsTender:
    """Points to burn, and what they pay in minor units."""

    points: int
    value_minor: int


NO_POINTS = PointsTender(points=0, value_minor=0)


def points_as_tender(burn_points: int, *, value: PointsValue, net_minor: int) -> PointsTender:
    """At most `burn_points`, lowered to what the total can take, and never more points than their value needs.

    The value rounds down to the minor unit; 150 points at 100 for 1.00 pay 1.50, and 120 points if 1.20 is due.
    """
    if not (burn_points and value.tender_value_minor and value.points_per_value):
        return NO_POINTS
    value_minor = min(net_minor, burn_points * value.tender_value_minor // value.points_per_value)
    points = -(-value_minor * value.points_per_value // value.tender_value_minor)
    assert 0 <= points <= burn_points
    return PointsTender(points=points, value_minor=value_minor)


def freeze(lines: Sequence[PricedLine], *, tender: PointsTender) -> tuple[tuple[Discount, ...], tuple[Line, ...]]:
    """The order's discounts, and its lines with every share of discounts and points.

    Points pay the lines as every tender does: lines in order, each by largest remainder over what remains of the
    points' value and of everything else. The points themselves follow that value.
    """
    discounts = tuple(dict.fromkeys(discount for line in lines for discount, _ in line.shares))
    place = {discount: at for at, discount in enumerate(discounts)}
    nets = [line.net_minor for line in lines]
    assert all(net >= 0 for net in nets), "a line is below zero"
    paid_with_points = [0] * len(lines)
    if tender.value_minor:
        rest_minor = sum(nets) - tender.value_minor
        paid_with_points = [row[0] for row in tenders_by_line(nets, (tender.value_minor, rest_minor))]
    burnt = allocate(tender.points, paid_with_points) if tender.points else (0,) * len(lines)
    frozen = []
    for line_no, (line, net, with_points, points) in enumerate(zip(lines, nets, paid_with_points, burnt, strict=True)):
        shares = [0] * len(discounts)
        for discount, share_minor in line.shares:
            shares[place[discount]] += share_minor
        frozen.append(
            Line(
                line_no=line_no,
                line_id=line.line_id,
                sku=line.sku,
                category=line.category,
                quantity=line.quantity,
                price_source=line.price_source,
                shelf_minor=line.shelf_minor,
                discounts_minor=tuple(shares),
                net_minor=net,
                points_tender_minor=with_points,
                burnt_points=points,
                supplier_id=line.supplier_id,
                rule_version=line.rule_version,
                from_stock=line.from_stock,
            )
        )
    return discounts, tuple(frozen)


def settle_payments(given: Sequence[Payment], *, due_minor: int, field: str) -> tuple[Payment, ...]:
    """The payments that sum to what is due; a last one of 0 takes what remains, and payments of nothing are left out.

    Raises PaymentMismatch; `field` is where the request has them.
    """
    paid_minor = sum(payment.amount_minor for payment in given)
    payments = list(given)
    if payments and payments[-1].amount_minor == 0 and paid_minor <= due_minor:
        payments[-1] = replace(payments[-1], amount_minor=due_minor - paid_minor)
        paid_minor = due_minor
    if paid_minor != due_minor:
        raise PaymentMismatch(paid_minor=paid_minor, due_minor=due_minor, field=field)
    return tuple(payment for payment in payments if payment.amount_minor)


def allocate_tenders(
    lines: Sequence[Line], payments: Sequence[Payment]
) -> tuple[tuple[Payment, ...], tuple[Line, ...]]:
    """All payments, the points in front, and the lines with what each takes of each payment.

    Lines 33.33, 33.33, 33.34 paid by 50.00 + 50.00: [16.67, 16.66], [16.66, 16.67], [16.67, 16.67].
    """
    points_minor = sum(line.points_tender_minor for line in lines)
    rows = tenders_by_line([line.accrual_base_minor for line in lines], [payment.amount_minor for payment in payments])
    if not points_minor:
        return tuple(payments), tuple(replace(line, tenders_minor=row) for line, row in zip(lines, rows, strict=True))
    with_points = (Payment(tender=Tender.POINTS, amount_minor=points_minor), *payments)
    return with_points, tuple(
        replace(line, tenders_minor=(line.points_tender_minor, *row)) for line, row in zip(lines, rows, strict=True)
    )
