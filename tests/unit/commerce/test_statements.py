"""Statements: closed once, in order; what they pay and carry sums to their lines; payouts as data."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.commerce.domain.refusals import PayoutNotDue, PayoutNotPaid, PeriodClosed, PeriodNotOver
from services.commerce.domain.splits import PartyKind
from services.commerce.domain.statements import (
    PAYOUTS,
    Account,
    Closing,
    Lines,
    PayoutState,
    advance_payout,
    check_period,
    close,
)

NEW = Account(statement_no=0, closed_to_day=None, carried_minor=0)
MAY = date(2026, 5, 1)
SHANGHAI = "Asia/Shanghai"


def closing(to_day: date) -> Closing:
    return Closing(
        statement_id="s",
        party=PartyKind.SUPPLIER,
        party_id="florist",
        to_day=to_day,
        currency_code="CNY",
        closed_at=datetime(2027, 1, 1, tzinfo=UTC),
        closed_by="erp",
    )


def lines(earned: int, clawed_back: int) -> Lines:
    return Lines(count=2, earned_minor=earned, clawed_back_minor=clawed_back)


@pytest.mark.parametrize(
    ("carried", "earned", "clawed_back", "payable", "carried_on"),
    [
        pytest.param(0, 700, 0, 700, 0, id="a first statement"),
        pytest.param(0, 700, 233, 467, 0, id="a claw-back is netted"),
        pytest.param(0, 0, 233, 0, -233, id="a negative is carried"),
        pytest.param(-233, 100, 0, 0, -133, id="and paid off by what is earned next"),
        pytest.param(-133, 700, 0, 567, 0, id="until something is left"),
        pytest.param(-100, 100, 0, 0, 0, id="to the cent"),
        pytest.param(0, 0, 0, 0, 0, id="a period in which nothing was due"),
    ],
)
def test_what_is_paid_and_what_is_carried(
    carried: int, earned: int, clawed_back: int, payable: int, carried_on: int
) -> None:
    account = Account(statement_no=3, closed_to_day=MAY, carried_minor=carried)
    statement, after = close(account, closing(MAY + timedelta(days=7)), lines(earned, clawed_back))
    assert (statement.payable_minor, statement.carried_out_minor) == (payable, carried_on)
    assert statement.payout is (PayoutState.DUE if payable else PayoutState.NOTHING)
    assert (statement.statement_no, statement.from_day) == (4, MAY + timedelta(days=1))
    assert after == Account(statement_no=4, closed_to_day=MAY + timedelta(days=7), carried_minor=carried_on)


def test_the_first_statement_is_from_the_start() -> None:
    statement, _ = close(NEW, closing(MAY), lines(5, 0))
    assert (statement.statement_no, statement.from_day, statement.to_day) == (1, None, MAY)


@pytest.mark.parametrize(
    ("closed_to", "to_day", "now", "refusal"),
    [
        pytest.param(None, MAY, datetime(2026, 5, 1, 16, tzinfo=UTC), None, id="at 24:00 in the brand's zone"),
        pytest.param(None, MAY, datetime(2026, 5, 1, 15, 59, tzinfo=UTC), PeriodNotOver, id="a minute before"),
        pytest.param(MAY, MAY, datetime(2026, 6, 1, tzinfo=UTC), None, id="the day that was closed last"),
        pytest.param(
            MAY, MAY - timedelta(days=1), datetime(2026, 6, 1, tzinfo=UTC), PeriodClosed, id="a day before that"
        ),
        pytest.param(MAY, MAY + timedelta(days=1), datetime(2026, 6, 1, tzinfo=UTC), None, id="the next"),
    ],
)
def test_periods(closed_to: date | None, to_day: date, now: datetime, refusal: type[Exception] | None) -> None:
    account = Account(statement_no=1, closed_to_day=closed_to, carried_minor=0)
    if refusal is None:
        check_period(account, to_day, now=now, time_zone=SHANGHAI)
        return
    with pytest.raises(refusal):
        check_period(account, to_day, now=now, time_zone=SHANGHAI)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=30))
def test_what_was_paid_and_is_carried_sums_to_all_lines(periods: list[tuple[int, int]]) -> None:
    account, paid, total = NEW, 0, 0
    for at, (earned, clawed_back) in enumerate(periods):
        statement, account = close(account, closing(MAY + timedelta(days=at)), lines(earned, clawed_back))
        paid += statement.payable_minor
        total += earned - clawed_back
        assert statement.payable_minor >= 0 >= statement.carried_out_minor
        assert not statement.payable_minor or not statement.carried_out_minor
        assert paid + account.carried_minor == total
    assert account.statement_no == len(periods)


@pytest.mark.parametrize(
    ("state", "told"), list(itertools.product(PayoutState, (PayoutState.PAID, PayoutState.RETURNED)))
)
def test_payouts(state: PayoutState, told: PayoutState) -> None:
    after = PAYOUTS.get((state, told))
    if after is not None:
        assert advance_payout(state, told, statement_id="s") is after
        return
    with pytest.raises(PayoutNotDue if told is PayoutState.PAID else PayoutNotPaid):
        advance_payout(state, told, statement_id="s")


def test_a_returned_payout_is_not_paid() -> None:
    assert {after for (_, told), after in PAYOUTS.items() if told is PayoutState.RETURNED} == {PayoutState.RETURNED}
    assert (PayoutState.RETURNED, PayoutState.PAID) in PAYOUTS
    assert not [state for state, _ in PAYOUTS if state is PayoutState.NOTHING]
