"""A refund is the exact inverse of the sale, per line and unit, in any order and any partition."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.commerce.domain.orders import Order, OrderState
from services.commerce.domain.refunds import UnitsToRefund, refund, share_of_units, shares_of_units
from services.commerce.domain.refusals import OrderNotPaid, UnitsAlreadyRefunded, UnknownLine
from services.runtime.ids import RefundId
from tests.unit.commerce.sales import NOON, paid_orders, priced, sold


def back(order: Order, units: dict[str, int]) -> tuple[int, Order]:
    asked = [UnitsToRefund(line_id=line_id, quantity=quantity) for line_id, quantity in units.items()]
    made, after = refund(order, asked, refund_id=RefundId("r"), reason="", occurred_at=NOON)
    return made.amount_minor, after


def test_units_return_first_sold_first() -> None:
    order = sold([priced("1", 1000, quantity=3)])
    amounts = []
    for _ in range(3):
        amount, order = back(order, {"1": 1})
        amounts.append(amount)
    assert amounts == [334, 333, 333]
    assert order.wholly_refunded


def test_the_units_of_several_parts_sum_to_the_unit() -> None:
    # one by one the units of 1 and 1 would both be first, and the first of 2 would cost 2
    assert [shares_of_units((1, 1), 2, first=unit, count=1) for unit in range(2)] == [(1, 0), (0, 1)]


@settings(max_examples=60)
@given(
    parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    units=st.integers(1, 100_000),
    cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_parts_of_units_are_never_negative_and_sum(parts: list[int], units: int, cut: tuple[float, float]) -> None:
    first, upto = sorted(int(share * units) for share in cut)
    shares = shares_of_units(parts, units, first=first, count=upto - first)
    assert all(share >= 0 for share in shares)
    assert sum(shares) == share_of_units(sum(parts), units, first=first, count=upto - first)
    rest = [
        shares_of_units(parts, units, first=0, count=first),
        shares,
        shares_of_units(parts, units, first=upto, count=units - upto),
    ]
    assert [sum(column) for column in zip(*rest, strict=True)] == parts


@settings(max_examples=60)
@given(order=paid_orders(), chance=st.randoms(use_true_random=False))
def test_refunding_everything_in_any_order_restores_every_balance(order: Order, chance: object) -> None:
    before = order
    tenders: Counter[int] = Counter()
    points = returned = discounts = 0
    while not order.wholly_refunded:
        open_lines = [line for line in order.lines if line.refunded_quantity < line.quantity]
        chosen = chance.sample(open_lines, chance.randint(1, len(open_lines)))  # type: ignore[attr-defined]
        asked = [
            UnitsToRefund(
                line_id=line.line_id,
                quantity=chance.choice((1, line.quantity - line.refunded_quantity)),  # type: ignore[attr-defined]
            )
            for line in chosen
        ]
        # few steps through many units
        if before.lines and max(line.quantity for line in open_lines) > 50:
            asked = [
                UnitsToRefund(line_id=line.line_id, quantity=-(-(line.quantity - line.refunded_quantity) // 2))
                for line in chosen
            ]
        made, order = refund(order, asked, refund_id=RefundId("r"), reason="", occurred_at=NOON)
        assert sum(made.tenders_minor) == made.amount_minor
        assert made.whole_order == order.wholly_refunded
        for line in made.lines:
            assert 0 <= line.points_tender_minor <= line.amount_minor
            assert sum(line.tenders_minor) == line.amount_minor
            if order.payments and before.points_tender_minor:
                assert line.tenders_minor[0] == line.points_tender_minor
        tenders.update(dict(enumerate(made.tenders_minor)))
        points += sum(line.points_tender_minor for line in made.lines)
        returned += made.returned_points
        discounts += sum(sum(line.discounts_minor) for line in made.lines)
    assert [tenders[at] for at in range(len(before.payments))] == [payment.amount_minor for payment in before.payments]
    assert all(payment.refunded_minor == payment.amount_minor for payment in order.payments)
    assert all(line.refunded_minor == line.net_minor for line in order.lines)
    assert (points, returned) == (before.points_tender_minor, before.burnt_points)
    assert discounts == before.discount_minor
    assert order.refunded_minor == before.net_minor
    assert order.version == before.version + order.refund_count


def test_what_was_not_sold_is_refused() -> None:
    order = sold([priced("1", 1000, quantity=2)])
    with pytest.raises(UnitsAlreadyRefunded) as refused:
        back(order, {"1": 3})
    assert refused.value.metadata == {"line_id": "1", "left": "2", "field": "lines[0].quantity"}
    with pytest.raises(UnknownLine) as unknown:
        back(order, {"1": 1, "2": 1})
    assert unknown.value.metadata == {"field": "lines[1].line_id"}


@pytest.mark.parametrize("state", [OrderState.PENDING_PAYMENT, OrderState.CANCELLED])
def test_only_what_was_paid_is_refunded(state: OrderState) -> None:
    from dataclasses import replace

    with pytest.raises(OrderNotPaid):
        back(replace(sold([priced("1", 1)]), state=state), {"1": 1})
