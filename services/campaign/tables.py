"""campaign's tables: what its migrations have made, with the reasons there. A test compares the two."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, UUID

metadata = MetaData()


def _tenant() -> Column[str]:
    return Column("tenant_id", UUID(as_uuid=False), nullable=False)


def _id(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, UUID(as_uuid=False), nullable=nullable)


def _text(name: str, *, nullable: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=nullable, server_default=default)


def _texts(name: str) -> Column[list[str]]:
    return Column(name, ARRAY(Text), nullable=False)


def _number(name: str, *, default: str | None = None) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text(default) if default else None)


def _small(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _flag(name: str, *, default: str | None = None) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text(default) if default else None)


def _instant(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    default = text("clock_timestamp()") if now else None
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=default)


def _percent() -> Column[object]:
    return Column("percent", Numeric(7, 4), nullable=False)


catalogues = Table(
    "catalogues",
    metadata,
    _tenant(),
    _number("version"),
    PrimaryKeyConstraint("tenant_id", name="catalogues_key"),
)

promotions = Table(
    "promotions",
    metadata,
    _tenant(),
    _text("promotion_id"),
    _number("version"),
    _number("budget_minor"),
    # claims of holds that stand
    _number("held_minor", default="0"),
    # claims of holds that were captured
    _number("captured_minor", default="0"),
    # given by paid orders without a hold, such as off-line sales
    _number("uncovered_minor", default="0"),
    # given by paid orders in all, and what refunds brought back of it
    _number("given_minor", default="0"),
    _number("refunded_minor", default="0"),
    PrimaryKeyConstraint("tenant_id", "promotion_id", name="promotions_key"),
    CheckConstraint("budget_minor >= 0", name="promotions_budget"),
    CheckConstraint("held_minor >= 0", name="promotions_held"),
    CheckConstraint(
        "captured_minor >= 0 AND uncovered_minor >= 0 AND given_minor >= 0 AND refunded_minor >= 0",
        name="promotions_counted",
    ),
)

promotion_versions = Table(
    "promotion_versions",
    metadata,
    _tenant(),
    _text("promotion_id"),
    _number("version"),
    _text("display_name"),
    _text("kind"),
    _instant("valid_from"),
    _instant("valid_until", nullable=True),
    _small("priority"),
    _text("exclusivity_group"),
    _percent(),
    _number("amount_minor"),
    _number("threshold_minor"),
    _texts("skus"),
    _texts("categories"),
    _texts("store_ids"),
    _flag("members_only"),
    _text("funder"),
    _number("budget_minor"),
    _instant("posted_at", now=True),
    PrimaryKeyConstraint("tenant_id", "promotion_id", "version", name="promotion_versions_key"),
    CheckConstraint("valid_until IS NULL OR valid_until > valid_from", name="promotion_versions_window"),
)

member_prices = Table(
    "member_prices",
    metadata,
    _tenant(),
    _text("sku"),
    _text("promotion_id"),
    _number("amount_off_minor"),
    PrimaryKeyConstraint("tenant_id", "sku", "promotion_id", name="member_prices_key"),
    CheckConstraint("amount_off_minor >= 0", name="member_prices_off"),
)

templates = Table(
    "templates",
    metadata,
    _tenant(),
    _text("template_id"),
    _number("version"),
    _number("issued", default="0"),
    PrimaryKeyConstraint("tenant_id", "template_id", name="templates_key"),
    CheckConstraint("issued >= 0", name="templates_issued"),
)

template_versions = Table(
    "template_versions",
    metadata,
    _tenant(),
    _text("template_id"),
    _number("version"),
    _text("display_name"),
    _text("discount"),
    _number("amount_minor"),
    _percent(),
    _number("cap_minor"),
    _number("threshold_minor"),
    _texts("skus"),
    _texts("categories"),
    _instant("valid_from"),
    _instant("valid_until"),
    _number("issue_limit"),
    _small("member_limit"),
    _flag("exclusive"),
    _flag("returnable"),
    _text("funder"),
    _small("priority"),
    _instant("posted_at", now=True),
    PrimaryKeyConstraint("tenant_id", "template_id", "version", name="template_versions_key"),
    CheckConstraint("valid_until > valid_from", name="template_versions_window"),
)

coupons = Table(
    "coupons",
    metadata,
    _tenant(),
    _id("coupon_id"),
    _text("template_id"),
    _number("template_version"),
    # null: whoever shows the code
    _id("member_id", nullable=True),
    Column("code_lookup", LargeBinary, nullable=False),
    # the end of a code that the brand chose; null where we made it and can tell it again
    _text("code_end", nullable=True),
    _text("state", default="issued"),
    _instant("valid_from"),
    _instant("valid_until"),
    _text("holder_client", nullable=True),
    _text("holder_hold", nullable=True),
    _instant("held_until", nullable=True),
    _text("order_id", nullable=True),
    _number("version", default="1"),
    _instant("issued_at"),
    PrimaryKeyConstraint("tenant_id", "coupon_id", name="coupons_key"),
    UniqueConstraint("tenant_id", "code_lookup", name="coupons_code"),
    CheckConstraint("state IN ('issued', 'held', 'used')", name="coupons_state"),
    CheckConstraint(
        "(state = 'held') = (holder_client IS NOT NULL AND holder_hold IS NOT NULL AND held_until IS NOT NULL)",
        name="coupons_holder",
    ),
    CheckConstraint("(state = 'used') = (order_id IS NOT NULL)", name="coupons_order"),
    Index("coupons_by_member", "tenant_id", "member_id", "valid_until", "coupon_id"),
    Index("coupons_by_template", "tenant_id", "template_id", "member_id"),
)

benefit_holds = Table(
    "benefit_holds",
    metadata,
    _tenant(),
    _text("client_id"),
    _text("hold_id"),
    _text("state"),
    _id("member_id", nullable=True),
    _text("order_id"),
    _instant("expires_at"),
    _instant("posted_at", now=True),
    _instant("resolved_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", "client_id", "hold_id", name="benefit_holds_key"),
    CheckConstraint("state IN ('held', 'captured', 'voided', 'expired', 'tombstone')", name="benefit_holds_state"),
    CheckConstraint("(state = 'held') = (resolved_at IS NULL)", name="benefit_holds_resolved"),
    Index("benefit_holds_due", "expires_at", postgresql_where=text("state IN ('held', 'tombstone')")),
    Index("benefit_holds_by_order", "tenant_id", "order_id"),
)

coupon_claims = Table(
    "coupon_claims",
    metadata,
    _tenant(),
    _text("client_id"),
    _text("hold_id"),
    _id("coupon_id"),
    _number("amount_minor"),
    PrimaryKeyConstraint("tenant_id", "client_id", "hold_id", "coupon_id", name="coupon_claims_key"),
    CheckConstraint("amount_minor >= 0", name="coupon_claims_amount"),
)

budget_claims = Table(
    "budget_claims",
    metadata,
    _tenant(),
    _text("client_id"),
    _text("hold_id"),
    _text("promotion_id"),
    _number("amount_minor"),
    PrimaryKeyConstraint("tenant_id", "client_id", "hold_id", "promotion_id", name="budget_claims_key"),
    CheckConstraint("amount_minor >= 0", name="budget_claims_amount"),
)

order_usages = Table(
    "order_usages",
    metadata,
    _tenant(),
    _text("order_id"),
    _id("member_id", nullable=True),
    _text("store_id"),
    _flag("offline"),
    _instant("occurred_at"),
    # since when nothing is left of it
    _instant("refunded_at", nullable=True),
    _instant("posted_at", now=True),
    PrimaryKeyConstraint("tenant_id", "order_id", name="order_usages_key"),
)

discount_usages = Table(
    "discount_usages",
    metadata,
    _tenant(),
    _text("order_id"),
    # 'promotion' or 'coupon'; source_id is the promotion or the coupon
    _text("source"),
    _text("source_id"),
    _text("template_id"),
    _number("given_minor"),
    _number("uncovered_minor"),
    _number("refunded_minor", default="0"),
    # the coupon was used by another order already, or is not known: a fact all the same
    _flag("excess", default="false"),
    PrimaryKeyConstraint("tenant_id", "order_id", "source", "source_id", name="discount_usages_key"),
    CheckConstraint("source IN ('promotion', 'coupon')", name="discount_usages_source"),
    CheckConstraint(
        "given_minor >= 0 AND uncovered_minor >= 0 AND refunded_minor >= 0", name="discount_usages_amounts"
    ),
)

refund_usages = Table(
    "refund_usages",
    metadata,
    _tenant(),
    _text("refund_id"),
    _text("order_id"),
    _number("refunded_minor"),
    _flag("whole_order"),
    _instant("occurred_at"),
    _instant("posted_at", now=True),
    PrimaryKeyConstraint("tenant_id", "refund_id", name="refund_usages_key"),
)

member_aliases = Table(
    "member_aliases",
    metadata,
    _tenant(),
    _id("alias_id"),
    _id("member_id"),
    PrimaryKeyConstraint("tenant_id", "alias_id", name="member_aliases_key"),
    Index("member_aliases_by_member", "tenant_id", "member_id"),
)
