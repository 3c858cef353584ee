"""The brand's rules, in this implementation's own words. Compare with `services/console/demo/rules.py`."""

from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

ZONE = ZoneInfo("America/New_York")

# Points: 4 per dollar paid, times the tier's factor; they live a year after the day of the sale.
# On Tuesday, Wednesday and Thursday fresh goods give 10 more per dollar; those live a week.
BASE_POINTS_PER_CENT = Fraction(4, 100)
FRESH_POINTS_PER_CENT = Fraction(10, 100)
FRESH_DEPARTMENTS = {"PRODUCE", "SEAFOOD", "SALAD BAR"}
FRESH_WEEKDAYS = {"Tue", "Wed", "Thu"}
# The growers pay for those; all others, and the welcome (a week as well), are the brand's.
LIFE_IN_DAYS = {"base": 365, "fresh": 7, "welcome": 7}
PAID_BY = {"base": "brand", "fresh": "growers", "welcome": "brand"}
DAYS_TO_RETURN = 3
GRACE_DAYS = 30
NOTHING_COMES_BACK_AFTER = 21
WELCOME = 300

# Two points are a cent at the till. A customer who burns spends whole hundreds, 2,000 at the most.
POINTS_PER_CENT = 2
BURN_STEP = 100
BURN_MOST = 2000

# (least amount within 28 days in cents, name, factor), the highest first.
TIER_DAYS = 28
TIERS = [(30000, "gold", Fraction(3, 2)), (10000, "silver", Fraction(5, 4)), (0, "basic", Fraction(1))]

# The weekend of every second week of the replay: 5% off for orders of 50 dollars and more.
WEEKEND_RATE = Decimal("0.05")
WEEKEND_FROM_CENTS = 5000
WEEKEND_DAYS = {"Sat", "Sun"}

# Who ships what, and in which order the parts of a line's price are handed out, in per cent.
SUPPLIER_OF_DEPARTMENT = {"FLORAL": "florist", "COSMETICS": "beauty", "NUTRITION": "nutrition"}
SPLITS = {
    "florist": [
        ("SUPPLIER", Decimal("72.5")),
        ("BRAND", Decimal(15)),
        ("STORE", Decimal(10)),
        ("PLATFORM", Decimal("2.5")),
    ],
    "beauty": [("SUPPLIER", Decimal(60)), ("BRAND", Decimal(26)), ("STORE", Decimal(12)), ("PLATFORM", Decimal(2))],
    "nutrition": [
        ("SUPPLIER", Decimal("66.66")),
        ("BRAND", Decimal(23)),
        ("STORE", Decimal("8.34")),
        ("PLATFORM", Decimal(2)),
    ],
}

FUEL = "GASOLINE-REG UNLEADED"
FUEL_UNITS_PER_PRICE = 1000
