"""Statements that are closed once, and what they pay: earned less clawed back, a negative carried on."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import IntEnum

from services.commerce.domain.refusals import PayoutNotDue, PayoutNotPaid, PeriodClosed, PeriodNotOver
from services.commerce.domain.splits import PartyKind
from services.runtime.clock import end_of_day
from services.runtime.errors import Refused


class PayoutState(IntEnum):
    """The numbers stand in the database and in the contract."""

    NOTHING = 1
    DUE = 2
    PAID = 3
    RETURNED = 4


PAYOUTS: Mapping[tuple[PayoutState, PayoutState], PayoutState] = {
    (PayoutState.DUE, PayoutState.PAID): PayoutState.PAID,
    (PayoutState.PAID, PayoutState.RETURNED): PayoutState.RETURNED,
    # a payout that the bank returned counts as unpaid until it is paid again
    (PayoutState.RETURNED, PayoutState.PAID): PayoutState.PAID,
}
"""What a state becomes by what is told of it: PAID or RETURNED."""

_REFUSALS: Mapping[PayoutState, type[Refused]] = {
    PayoutState.PAID: PayoutNotDue,
    PayoutState.RETURNED: PayoutNotPaid,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """How far a party's statements are closed: the last number, its day, and what it carried on (never positive)."""

    statement_no: int
    closed_to_day: date | None
    carried_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The sums of a statement's lines, in minor units; clawed back is positive."""

    count: int
    earned_minor: int
    clawed_back_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedStatement:
    """A statement as it was closed; only its payout moves on. `closed_at` is business time."""

    statement_id: str
    party: PartyKind
    party_id: str
    statement_no: int
    from_day: date | None
    to_day: date
    carried_in_minor: int
    lines: Lines
    currency_code: str
    closed_at: datetime
    closed_by: str
    payout: PayoutState
    payout_reference: str = ""

    @property
    def balance_minor(self) -> int:
        """Carried in plus earned less clawed back."""
        return self.carried_in_minor + self.lines.earned_minor - self.lines.clawed_back_minor

    @property
    def payable_minor(self) -> int:
        """What is paid; never negative."""
        return max(0, self.balance_minor)

    @property
    def carried_out_minor(self) -> int:
        """What the next statement begins with; never positive."""
        return min(0, self.balance_minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Who closes which statement, and when; `statement_id` is new."""

    statement_id: str
    party: PartyKind
    party_id: str
    to_day: date
    currency_code: str
    closed_at: datetime
    closed_by: str


def check_period(account: Account, to_day: date, *, now: datetime, time_zone: str) -> None:
    """Raises PeriodNotOver before the day's end, PeriodClosed for a day before the one that was closed last.

    The day that was closed last is no refusal: it is answered as it was closed.
    """
    if account.closed_to_day is not None and to_day < account.closed_to_day:
        raise PeriodClosed(closed_to_day=account.closed_to_day.isoformat())
    if end_of_day(to_day, time_zone) > now:
        raise PeriodNotOver(to_day.isoformat())


def close(account: Account, closing: Closing, lines: Lines) -> tuple[ClosedStatement, Account]:
    """The party's next statement with these lines, and its account after it."""
    assert account.carried_minor <= 0
    assert account.closed_to_day is None or closing.to_day > account.closed_to_day
    balance_minor = account.carried_minor + lines.earned_minor - lines.clawed_back_minor
    statement = ClosedStatement(
        statement_id=closing.statement_id,
        party=closing.party,
        party_id=closing.party_id,
        statement_no=account.statement_no + 1,
        from_day=account.closed_to_day + timedelta(days=1) if account.closed_to_day else None,
        to_day=closing.to_day,
        carried_in_minor=account.carried_minor,
        lines=lines,
        currency_code=closing.currency_code,
        closed_at=closing.closed_at,
        closed_by=closing.closed_by,
        payout=PayoutState.DUE if balance_minor > 0 else PayoutState.NOTHING,
    )
    assert statement.payable_minor + statement.carried_out_minor == balance_minor
    return statement, Account(
        statement_no=statement.statement_no,
        closed_to_day=closing.to_day,
        carried_minor=statement.carried_out_minor,
    )


def advance_payout(state: PayoutState, told: PayoutState, *, statement_id: str) -> PayoutState:
    """The payout's state after what is told of it (PAID or RETURNED). Raises PayoutNotDue or PayoutNotPaid."""
    after = PAYOUTS.get((state, told))
    if after is not None:
        return after
    refusal = _REFUSALS.get(told)
    assert refusal is not None, f"{told.name} cannot be told of a payout"
    raise refusal(
        f"the payout of statement {statement_id} is {state.name.lower()}", subject=f"statement/{statement_id}"
    )
