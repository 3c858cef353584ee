"""campaign's named refusals; the reasons are part of the contract.

DomainError
├── Missing   CouponMissing, PromotionMissing, TemplateMissing
└── Refused   CouponHeld, CouponUsed, CouponExpired, CouponNotStarted, NotYours, BudgetSpent, NotAMemberPrice
"""

from services.runtime.errors import Missing, Refused


class CouponMissing(Missing):
    """No such coupon in this tenant."""

    reason = "COUPON_NOT_FOUND"

    def __init__(self, coupon_id: str) -> None:
        """Names the coupon."""
        super().__init__(kind="coupon", name=coupon_id)


class PromotionMissing(Missing):
    """No such promotion in this tenant."""

    reason = "PROMOTION_NOT_FOUND"

    def __init__(self, promotion_id: str) -> None:
        """Names the promotion."""
        super().__init__(kind="promotion", name=promotion_id)


class TemplateMissing(Missing):
    """No such coupon template in this tenant."""

    reason = "TEMPLATE_NOT_FOUND"

    def __init__(self, template_id: str) -> None:
        """Names the template."""
        super().__init__(kind="template", name=template_id)


class CouponRefused(Refused):
    """The coupon can't be used by this order; each reason has a subclass."""

    text = "can't be used"

    def __init__(self, coupon_id: str) -> None:
        """Names the coupon."""
        super().__init__(
            f"coupon {coupon_id} {self.text}", subject=f"coupon/{coupon_id}", metadata={"coupon_id": coupon_id}
        )


class CouponHeld(CouponRefused):
    """Another order holds it."""

    reason = "COUPON_HELD"
    text = "is held by another order; pay or cancel that one first"


class CouponUsed(CouponRefused):
    """It was used before."""

    reason = "COUPON_USED"
    text = "was used before"


class CouponExpired(CouponRefused):
    """Its window is over."""

    reason = "COUPON_EXPIRED"
    text = "has expired"


class CouponNotStarted(CouponRefused):
    """Its window has not begun."""

    reason = "NOT_STARTED"
    text = "can't be used yet"


class NotYours(CouponRefused):
    """It belongs to another member."""

    reason = "NOT_YOURS"
    text = "belongs to another member"


class BudgetSpent(Refused):
    """The promotion's budget has no room for the order; price it again."""

    reason = "BUDGET_SPENT"

    def __init__(self, promotion_id: str, *, left_minor: int) -> None:
        """Names the promotion and what its budget has left, in minor units."""
        super().__init__(
            f"the budget of promotion {promotion_id} has {left_minor} left; quote the basket again",
            subject=f"promotion/{promotion_id}",
            metadata={"promotion_id": promotion_id, "left_minor": str(left_minor)},
        )


class NotAMemberPrice(Refused):
    """Only MEMBER_PRICE promotions have prices by SKU."""

    reason = "NOT_A_MEMBER_PRICE"

    def __init__(self, promotion_id: str) -> None:
        """Names the promotion."""
        super().__init__(
            f"promotion {promotion_id} is no MEMBER_PRICE and has no prices of its own",
            subject=f"promotion/{promotion_id}",
        )
