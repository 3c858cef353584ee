"""The demo's rules as data: what the brand promises, and what its tills leave to chance (by the printed seed).

The reference implementation in `tests/reference` states these rules again, in its own words and numbers; if the two
drift apart the audit is red, as it should be.
"""

from dataclasses import dataclass

SEED = "siyu-2017"
TIME_ZONE = "America/New_York"
CURRENCY = "USD"
REGION = "US"
BRAND_NAME = "Complete Journey"
SIMULATED = "The data set is simulated data, based on real shopping patterns."
WHOLE_SET_SALES_CENTS = 459_603_958

# --- what a file's line is ------------------------------------------------------------------------------------------

NOTHING_SOLD = "NOTHING_SOLD"
"""Quantity 0 and no money: a scan that was taken back, or the record of a maker's coupon. 8,837 lines of the year."""
FUEL_KIND = "GASOLINE-REG UNLEADED"
FUEL_PRICE_QUANTITY = 1000
"""Fuel is counted in thousandths of a gallon (89,638 is 89.638 gallons), and priced per gallon."""

# --- the programme --------------------------------------------------------------------------------------------------

POINT_CURRENCY = "points"
RETURN_WINDOW_DAYS = 3
GRACE_DAYS = 30
BASE_CLASS = "base"
BASE_CLASS_DAYS = 365
BONUS_CLASS = "bonus"
BONUS_CLASS_DAYS = 7
TENDER_POINTS = 200
TENDER_VALUE_CENTS = 100
WELCOME = "welcome"
WELCOME_POINTS = 300
"""Granted to every household by a batch on the eve of the first day, in the bonus class: a balance to start with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earning:
    """An earning rule: `points` per `per_cents` of what was paid, rounded down per order."""

    rule_id: str
    points: str
    per_cents: int
    expiry_class: str
    departments: tuple[str, ...] = ()
    weekdays: tuple[int, ...] = ()
    tier_multiplied: bool = False
    funder: str = ""


EARNINGS = (
    Earning(rule_id="base", points="4", per_cents=100, expiry_class=BASE_CLASS, tier_multiplied=True),
    Earning(
        rule_id="fresh-days",
        points="10",
        per_cents=100,
        expiry_class=BONUS_CLASS,
        departments=("PRODUCE", "SEAFOOD", "SALAD BAR"),
        weekdays=(2, 3, 4),
        # who sells the vegetables pays for the points: a debt of theirs is repaid by their points only
        funder="growers",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier, reached by what was paid within the rolling window."""

    tier_id: str
    name: str
    multiplier: str
    amount_cents: int


TIERS = (
    Tier(tier_id="basic", name="Basic", multiplier="1", amount_cents=0),
    Tier(tier_id="silver", name="Silver", multiplier="1.25", amount_cents=100_00),
    Tier(tier_id="gold", name="Gold", multiplier="1.5", amount_cents=300_00),
)
TIER_WINDOW_DAYS = 28
TIER_GRACE_DAYS = 0

# --- prices and coupons ---------------------------------------------------------------------------------------------

WEEKEND_PERCENT = "5"
WEEKEND_THRESHOLD_CENTS = 50_00
WEEKEND_BUDGET_CENTS = 1_000_000_00
"""Never runs out: which sale gets the last cent of a budget is a race, whose end no reference can know."""
COUPON_MIN_CENTS = 50
COUPON_MAX_CENTS = 200
PERSONAL_CAMPAIGN = "Type A"
PERSONAL_COUPONS = 16
"""A household of a Type A campaign gets 16 coupons of its pool (the data's guide); the files don't say which, so the
seed chooses, after those that it redeemed. Types B and C send the whole pool to everybody."""

# --- what the files lack, from the seed -----------------------------------------------------------------------------

OFFLINE_STORE_DAY_SHARE = 0.04
STALE_LIST_SHARE = 0.15
"""Of off-line sales: the till has no copy of the member prices and charges the shelf price."""
BURN_SHARE = 0.20
BURN_STEP_POINTS = 100
BURN_MAX_POINTS = 2_000
REFUND_SHARE = 0.06
REFUND_WHOLE_SHARE = 0.15
REFUND_AGAIN_SHARE = 0.25
REFUND_MAX_DAYS = 6
# goods come back when the shops open again, unless they are closed for longer than holidays are
CLOSED_AT_MOST_DAYS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplier:
    """A supplier that ships a department's goods itself, and how what was paid for them is split, in per cent."""

    supplier_id: str
    name: str
    department: str
    split: tuple[tuple[str, str], ...]


SUPPLIERS = (
    Supplier(
        supplier_id="florist",
        name="Florist",
        department="FLORAL",
        split=(("SUPPLIER", "72.5"), ("BRAND", "15"), ("STORE", "10"), ("PLATFORM", "2.5")),
    ),
    Supplier(
        supplier_id="beauty",
        name="Beauty house",
        department="COSMETICS",
        split=(("SUPPLIER", "60"), ("BRAND", "26"), ("STORE", "12"), ("PLATFORM", "2")),
    ),
    Supplier(
        supplier_id="nutrition",
        name="Nutrition house",
        department="NUTRITION",
        split=(("SUPPLIER", "66.66"), ("BRAND", "23"), ("STORE", "8.34"), ("PLATFORM", "2")),
    ),
)
SUPPLIER_ACCEPT_WITHIN_S = 3 * 86_400
SUPPLIER_REJECT_SHARE = 0.06
SUPPLIER_PART_SHARE = 0.10
SUPPLIER_LATE_SHARE = 0.12
SUPPLIER_LATE_DAYS = 2
