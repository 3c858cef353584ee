"""Programmes: how points are earned, when they mature and expire, and how tiers are reached."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Final

from services.runtime.clock import end_of_day, local_day
from services.runtime.errors import Invalid

BRAND: Final = "brand"
"""The funder where none is named."""
DEFAULT_GRACE_DAYS: Final = 30
NEVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
"""The expiry of points that do not expire."""
_LAST_YEAR: Final = 9990
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(_LAST_YEAR, 1, 1, tzinfo=UTC)
MAX_POINTS_PER_MINOR: Final = 1_000
"""The most that a rule gives for one minor unit, before the tier's multiplier. No real programme comes near."""
MAX_MULTIPLIER: Final = 100
"""The most that a tier multiplies by."""


class Rounding(StrEnum):
    """How fractions of points end, per order and rule, after all multipliers."""

    DOWN = "down"
    HALF_UP = "half_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryClass:
    """The rule that gives points their expiry: so many days, or the end of a calendar year, or never (both 0)."""

    class_id: str
    days: int = 0
    end_of_year_after: int = 0

    @property
    def rule(self) -> str:
        """Names the rule with its parameters: a changed rule makes a new pool."""
        if self.days:
            return f"days:{self.days}"
        return f"year_end:{self.end_of_year_after}" if self.end_of_year_after else "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarnRule:
    """`points` per `per_minor` of what the eligible lines cost. Empty sets and absent times restrict nothing."""

    rule_id: str
    points: Decimal
    per_minor: int
    expiry_class: str
    funder: str = BRAND
    categories: frozenset[str] = frozenset()
    weekdays: frozenset[int] = frozenset()
    tier_multiplied: bool = False
    valid_from: datetime | None = None
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier. A criterion of 0 is none; a tier without criteria is everybody's."""

    tier_id: str
    display_name: str = ""
    multiplier: Decimal = Decimal(1)
    amount_minor: int = 0
    orders: int = 0
    activity: int = 0
    any_criterion: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TierWindow:
    """The window in which tiers are reached and kept; `rolling_days` 0 is the calendar year."""

    rolling_days: int = 0
    grace_days: int = 0
    step_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """One version of a programme. `expiry_classes` has the base class first, `tiers` the lowest first."""

    point_currency: str
    display_name: str
    expiry_classes: tuple[ExpiryClass, ...]
    rounding: Rounding = Rounding.DOWN
    return_window_days: int = 0
    grace_days: int = DEFAULT_GRACE_DAYS
    debt_forbidden: bool = False
    tender_value_minor: int = 0
    points_per_value: int = 0
    earn_rules: tuple[EarnRule, ...] = ()
    tiers: tuple[Tier, ...] = ()
    tier_window: TierWindow = TierWindow()

    def expiry_class(self, class_id: str) -> ExpiryClass | None:
        """The class of this name, the base class for an empty one, None for an unknown one."""
        if not class_id:
            return self.expiry_classes[0]
        return next((found for found in self.expiry_classes if found.class_id == class_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A programme's version; in force from `effective_at` until the next one is."""

    number: int
    effective_at: datetime
    programme: Programme


def check(programme: Programme) -> None:
    """Raises Invalid for names that repeat, rules that name no class, tiers that do not rise, and absurd rates."""
    violations: list[tuple[str, str]] = []
    for field, names in (
        ("programme.expiry_classes", [each.class_id for each in programme.expiry_classes]),
        ("programme.earn_rules", [each.rule_id for each in programme.earn_rules]),
        ("programme.tiers", [each.tier_id for each in programme.tiers]),
    ):
        violations += [(field, f"{name!r} is there twice") for name in _repeated(names)]
    violations += _rule_violations(programme)
    for i, (lower, higher) in enumerate(zip(programme.tiers, programme.tiers[1:], strict=False), 1):
        if not (higher.amount_minor or higher.orders or higher.activity):
            violations.append((f"programme.tiers[{i}]", "a tier above the first needs a criterion"))
        elif higher.amount_minor and higher.amount_minor < lower.amount_minor:
            violations.append((f"programme.tiers[{i}].amount_minor", "it is below the tier before"))
    if bool(programme.tender_value_minor) != bool(programme.points_per_value):
        violations.append(("programme.points_per_value", "the value of points needs both numbers"))
    if violations:
        raise Invalid(violations=tuple(violations))


def _rule_violations(programme: Programme) -> Iterator[tuple[str, str]]:
    """What earning by the rules would go wrong with, as (field, why)."""
    for i, rule in enumerate(programme.earn_rules):
        if programme.expiry_class(rule.expiry_class) is None:
            yield (f"programme.earn_rules[{i}].expiry_class", f"there is no class {rule.expiry_class!r}")
        if rule.valid_from and rule.valid_until and rule.valid_from >= rule.valid_until:
            yield (f"programme.earn_rules[{i}].valid_until", "it ends before it begins")
        if rule.points > MAX_POINTS_PER_MINOR * rule.per_minor:
            yield (f"programme.earn_rules[{i}].points", f"more than {MAX_POINTS_PER_MINOR} a minor unit")
    for i, tier in enumerate(programme.tiers):
        if tier.multiplier > MAX_MULTIPLIER:
            yield (f"programme.tiers[{i}].multiplier", f"more than {MAX_MULTIPLIER}")


def check_moment(occurred_at: datetime) -> None:
    """Raises Invalid for a time of no grant or order: a clock that was never set tells it, or no local day has it."""
    if not _EARLIEST <= occurred_at < _LATEST:
        raise Invalid(f"before the year {_EARLIEST.year} or not before {_LATEST.year}", field="occurred_at")


def in_force(versions: Iterable[Version], at: datetime) -> Version | None:
    """The newest version that is effective at `at`, or None."""
    effective = [version for version in versions if version.effective_at <= at]
    return max(effective, key=lambda version: version.number, default=None)


def judging(versions: Sequence[Version], at: datetime, *, now: datetime) -> Version | None:
    """The version that judges what happened at `at`: the one in force then; the first to begin, for what was before it.

    None for what was before it while it has not begun by `now`: nothing is earned by a programme that is to come."""
    found = in_force(versions, at)
    if found is not None:
        return found
    first = min(versions, key=lambda version: (version.effective_at, version.number), default=None)
    return first if first is not None and first.effective_at <= now else None


def expires_at(expiry: ExpiryClass, occurred_at: datetime, time_zone: str) -> datetime:
    """When points earned at `occurred_at` expire: the end of a day in the brand's time zone."""
    return _expires_at(expiry, quarter_of(occurred_at), time_zone)


def quarter_of(at: datetime) -> datetime:
    """The quarter of an hour that `at` is in: its moments share their day, wherever, since Liberia's offset of 1972."""
    return at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)


@lru_cache(maxsize=4096)  # a time zone's arithmetic costs more than the rest of a grant
def _expires_at(expiry: ExpiryClass, occurred_at: datetime, time_zone: str) -> datetime:
    earned_on = local_day(occurred_at, time_zone)
    if expiry.days:
        return end_of_day(earned_on + timedelta(days=expiry.days), time_zone)
    if expiry.end_of_year_after:
        year = min(earned_on.year + expiry.end_of_year_after, _LAST_YEAR)
        return end_of_day(date(year, 12, 31), time_zone)
    return NEVER


def matures_at(return_window_days: int, occurred_at: datetime, time_zone: str) -> datetime | None:
    """When points earned at `occurred_at` become available: the end of the window's last day; None is at once."""
    if not return_window_days:
        return None
    return end_of_day(local_day(occurred_at, time_zone) + timedelta(days=return_window_days), time_zone)


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
