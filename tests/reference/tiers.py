"""One customer's tier: reached at once, kept for the window, then what the window's payments are worth."""

from collections import Counter
from datetime import date, timedelta
from fractions import Fraction

from tests.reference import brand


class Card:
    """What the customer paid by day, and the tier that it gave."""

    def __init__(self, today: date) -> None:
        self.today = today
        self.paid_on: Counter[date] = Counter()
        self.tier = brand.TIERS[-1][1]
        self.kept_until: date | None = None

    def factor(self) -> Fraction:
        """By how much the tier multiplies base points."""
        return next(factor for _, name, factor in brand.TIERS if name == self.tier)

    def paid(self, day: date, cents: int) -> None:
        """Counts a payment in the day of the sale."""
        self.paid_on[day] += cents
        self._rise()

    def unpaid(self, day: date, cents: int) -> None:
        """A refund lowers the day of the sale, not the tier."""
        self.paid_on[day] -= cents

    def next_day(self, today: date) -> None:
        """A tier that was kept for its time becomes the one that is earned now."""
        self.today = today
        if self.kept_until is not None and today > self.kept_until:
            self.tier = self._earned()
            self.kept_until = None if self.tier == brand.TIERS[-1][1] else today + timedelta(days=brand.TIER_DAYS)

    def _rise(self) -> None:
        names = [name for _, name, _ in brand.TIERS]
        earned = self._earned()
        if earned != names[-1] and names.index(earned) <= names.index(self.tier):
            self.tier = earned
            # who earns the tier anew keeps it longer
            self.kept_until = self.today + timedelta(days=brand.TIER_DAYS)

    def _earned(self) -> str:
        first = self.today - timedelta(days=brand.TIER_DAYS - 1)
        paid = sum(cents for day, cents in self.paid_on.items() if first <= day <= self.today)
        return next(name for least, name, _ in brand.TIERS if paid >= least)
