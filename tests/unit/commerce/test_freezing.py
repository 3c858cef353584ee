"""What an order freezes: discount shares, points as tender, what each line takes of each payment."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.commerce.domain.freezing import (
    PointsTender,
    PointsValue,
    freeze,
    points_as_tender,
    settle_payments,
)
from services.commerce.domain.orders import Order, Payment, Tender
from services.commerce.domain.refusals import PaymentMismatch
from tests.unit.commerce.sales import COUPON, MEMBER_PRICE, paid_orders, priced, sold


def test_lines_take_of_each_payment_in_order() -> None:
    order = sold([priced("1", 3333), priced("2", 3333), priced("3", 3334)], payments=[5000, 5000])
    assert [line.tenders_minor for line in order.lines] == [(1667, 1666), (1666, 1667), (1667, 1667)]


def test_points_pay_lines_as_a_tender_does_and_follow_their_value() -> None:
    order = sold(
        [priced("1", 1000), priced("2", 500), priced("3", 0)], tender=PointsTender(points=301, value_minor=150)
    )
    assert [line.points_tender_minor for line in order.lines] == [100, 50, 0]
    assert [line.burnt_points for line in order.lines] == [201, 100, 0]
    assert [line.accrual_base_minor for line in order.lines] == [900, 450, 0]
    assert [(payment.tender, payment.amount_minor) for payment in order.payments] == [
        (Tender.POINTS, 150),
        (Tender.CARD, 1350),
    ]


@pytest.mark.parametrize(
    ("burn", "net", "expected"),
    [
        pytest.param(0, 1000, (0, 0), id="nothing asked"),
        pytest.param(150, 1000, (150, 75), id="two points a cent"),
        pytest.param(151, 1000, (150, 75), id="a point that pays nothing is not burnt"),
        pytest.param(5000, 100, (200, 100), id="lowered to what the total takes"),
        pytest.param(5000, 0, (0, 0), id="nothing to pay"),
    ],
)
def test_points_as_tender(burn: int, net: int, expected: tuple[int, int]) -> None:
    tender = points_as_tender(burn, value=PointsValue(tender_value_minor=100, points_per_value=200), net_minor=net)
    assert (tender.points, tender.value_minor) == expected


def test_a_programme_without_a_value_burns_nothing() -> None:
    assert points_as_tender(100, value=PointsValue(tender_value_minor=0, points_per_value=0), net_minor=500).points == 0


@settings(max_examples=60)
@given(burn=st.integers(0, 10**7), value=st.integers(1, 1000), per=st.integers(1, 1000), net=st.integers(0, 10**6))
def test_points_never_cost_more_than_they_pay(burn: int, value: int, per: int, net: int) -> None:
    tender = points_as_tender(burn, value=PointsValue(tender_value_minor=value, points_per_value=per), net_minor=net)
    assert tender.points <= burn
    assert tender.value_minor <= net
    assert tender.points * value >= tender.value_minor * per
    # one point less would pay less
    assert tender.points == 0 or (tender.points - 1) * value < tender.value_minor * per


def test_shares_of_one_discount_stand_in_one_column() -> None:
    discounts, lines = freeze(
        [
            priced("1", 1000, shares=((MEMBER_PRICE, 100), (COUPON, 50))),
            priced("2", 500),
            priced("3", 300, shares=((COUPON, 20),)),
        ],
        tender=PointsTender(points=0, value_minor=0),
    )
    assert discounts == (MEMBER_PRICE, COUPON)
    assert [line.discounts_minor for line in lines] == [(100, 50), (0, 0), (0, 20)]
    assert [line.net_minor for line in lines] == [850, 500, 280]


@pytest.mark.parametrize(
    ("given_minor", "due", "expected"),
    [
        pytest.param((1000,), 1000, (1000,), id="exact"),
        pytest.param((400, 0), 1000, (400, 600), id="a last 0 takes what remains"),
        pytest.param((0,), 1000, (1000,), id="all by one"),
        pytest.param((1000, 0), 1000, (1000,), id="nothing remains"),
        pytest.param((), 0, (), id="nothing is due"),
        pytest.param((0,), 0, (), id="nothing is due, a card was shown"),
        pytest.param((0, 1000), 1000, (1000,), id="a 0 that is not the last pays nothing"),
    ],
)
def test_payments_settle(given_minor: tuple[int, ...], due: int, expected: tuple[int, ...]) -> None:
    payments = [Payment(tender=Tender.CASH, amount_minor=amount) for amount in given_minor]
    assert (
        tuple(payment.amount_minor for payment in settle_payments(payments, due_minor=due, field="payments"))
        == expected
    )


@pytest.mark.parametrize("given_minor", [(), (999,), (1001,), (1200, 0)])
def test_payments_that_do_not_sum_are_refused(given_minor: tuple[int, ...]) -> None:
    payments = [Payment(tender=Tender.CASH, amount_minor=amount) for amount in given_minor]
    with pytest.raises(PaymentMismatch) as refused:
        settle_payments(payments, due_minor=1000, field="sale.payments")
    assert refused.value.subject == refused.value.metadata["field"] == "sale.payments"


@settings(max_examples=60)
@given(order=paid_orders())
def test_every_share_sums(order: Order) -> None:
    for line in order.lines:
        assert line.shelf_minor - sum(line.discounts_minor) == line.net_minor
        assert sum(line.tenders_minor) == line.net_minor
        assert all(share >= 0 for share in (*line.discounts_minor, *line.tenders_minor))
        assert 0 <= line.points_tender_minor <= line.net_minor
    for column, payment in enumerate(order.payments):
        assert sum(line.tenders_minor[column] for line in order.lines) == payment.amount_minor
    assert sum(line.burnt_points for line in order.lines) == order.burnt_points
    assert sum(line.points_tender_minor for line in order.lines) == order.points_tender_minor
