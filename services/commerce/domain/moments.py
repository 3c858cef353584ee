"""When a sale or a stock document happened, as far as a caller may say.

Points, tiers, promotions, windows and statements go by it, and the ledgers are read by it.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from services.commerce.domain.refusals import OccurredOutOfRange

EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""A till that lost its clock says 1970 or less; ids and statements go by the time of a sale."""
MAX_AHEAD: Final = timedelta(days=1)
"""Of facts: the clock of a till without a link runs ahead, and nobody tells it; more than this is a mistake."""
ONLINE_AHEAD: Final = timedelta(minutes=10)
"""Of on-line calls: how far a till's clock may be ahead of ours."""
ONLINE_LATE: Final = timedelta(days=2)
"""Of on-line calls: what happened longer ago is an off-line sale.

Two days, since a test clock may stand at the end of a day, of up to 25 hours, while the day's sales are made.
"""


def check_fact(occurred_at: datetime, *, now: datetime, field: str) -> None:
    """Raises OccurredOutOfRange for a time that cannot be that of a fact: an off-line sale, a stock document.

    `field` is where the request tells the time, here as below.
    """
    latest = now + MAX_AHEAD
    if not EARLIEST <= occurred_at <= latest:
        raise OccurredOutOfRange(
            "what has happened lies",
            field=field,
            earliest=EARLIEST,
            latest=latest,
            advice="is the caller's clock set?",
        )


def check_tellable(occurred_at: datetime, *, now: datetime, field: str) -> None:
    """Raises OccurredOutOfRange for a time that no on-line call can have told, neither the first nor a repeated one."""
    if occurred_at > now + ONLINE_AHEAD or occurred_at < EARLIEST:
        raise _out_of_range(now, field)


def check_in_time(occurred_at: datetime, *, now: datetime, field: str) -> None:
    """Raises OccurredOutOfRange for an on-line sale that is made too late; a repeated call asks for none."""
    if occurred_at < now - ONLINE_LATE:
        raise _out_of_range(now, field)


def _out_of_range(now: datetime, field: str) -> OccurredOutOfRange:
    return OccurredOutOfRange(
        "an on-line sale happens",
        field=field,
        earliest=now - ONLINE_LATE,
        latest=now + ONLINE_AHEAD,
        advice="leave the time out for now, set the till's clock, or send what was sold earlier as an off-line sale",
    )
