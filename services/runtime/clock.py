"""Machine time, and days in the brand's time zone. Business time comes with the call (see `runtime.call`)."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

DEFAULT_TIME_ZONE = "Asia/Shanghai"


class Clock(Protocol):
    """Where the time comes from; tests pass a FixedClock."""

    def now(self) -> datetime:
        """The time in UTC, to the microsecond."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clock: leases, hold time-outs, tokens, deadlines."""

    def now(self) -> datetime:
        """The machine's time in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place


@dataclass(slots=True)
class FixedClock:
    """A clock that moves only when told to."""

    at: datetime

    def __post_init__(self) -> None:
        """A time without a zone is a bug in the test."""
        assert self.at.tzinfo is not None, "FixedClock needs a time zone"

    def now(self) -> datetime:
        """The time it was last set to, in UTC."""
        return self.at.astimezone(UTC)

    def advance(self, by: timedelta) -> None:
        """Moves the clock forward."""
        assert by >= timedelta(0), "time does not run backwards"
        self.at += by


def local_day(at: datetime, time_zone: str) -> date:
    """The brand's calendar day on which `at` falls."""
    assert at.tzinfo is not None, "a time without a zone"
    return at.astimezone(ZoneInfo(time_zone)).date()


def start_of_day(day: date, time_zone: str) -> datetime:
    """The moment at which the brand's `day` begins, in UTC."""
    return datetime.combine(day, time.min, ZoneInfo(time_zone)).astimezone(UTC)


def end_of_day(day: date, time_zone: str) -> datetime:
    """24:00 of the brand's `day`, in UTC: the first moment that no longer belongs to it."""
    return start_of_day(day + timedelta(days=1), time_zone)
