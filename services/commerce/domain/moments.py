"""When a sale happened, as far as a caller may say: points, tiers, promotions, windows and statements go by it."""

from datetime import UTC, datetime, timedelta
from typing import Final

from services.commerce.domain.refusals import OccurredOutOfRange
from services.runtime.errors import Invalid

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


def check_fact(occurred_at: datetime, *, now: datetime) -> None:
    """Raises Invalid for the time of an off-line sale that cannot be."""
    if occurred_at > now + MAX_AHEAD:
        raise Invalid("more than a day ahead of the business time", field="occurred_at")
    if occurred_at < EARLIEST:
        raise Invalid("before the year 2000: is the till's clock set?", field="occurred_at")


def check_tellable(occurred_at: datetime, *, now: datetime) -> None:
    """Raises OccurredOutOfRange for a time that no on-line call can have told, neither the first nor a repeated one."""
    if occurred_at > now + ONLINE_AHEAD or occurred_at < EARLIEST:
        raise _out_of_range(now)


def check_in_time(occurred_at: datetime, *, now: datetime) -> None:
    """Raises OccurredOutOfRange for an on-line sale that is made too late; a repeated call asks for none."""
    if occurred_at < now - ONLINE_LATE:
        raise _out_of_range(now)


def _out_of_range(now: datetime) -> OccurredOutOfRange:
    return OccurredOutOfRange(earliest=now - ONLINE_LATE, latest=now + ONLINE_AHEAD)
