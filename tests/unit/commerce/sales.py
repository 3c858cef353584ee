"""Orders for the tests of the domain: frozen and paid, from a few figures."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from services.commerce.domain.freezing import (
    NO_POINTS,
    PointsTender,
    PricedLine,
    allocate_tenders,
    freeze,
)
from services.commerce.domain.orders import Discount, DiscountSource, Order, OrderState, Payment, PriceSource, Tender
from services.runtime.ids import MemberId, OrderId, Sku, StoreId, SupplierId

NOON = datetime(2026, 5, 1, 4, tzinfo=UTC)
MEMBER_PRICE = Discount(source=DiscountSource.LINE_PROMOTION, source_id="member-price")
COUPON = Discount(source=DiscountSource.COUPON, source_id="ten-off", coupon_id="c1")


def priced(
    line_id: str,
    shelf: int,
    *,
    quantity: int = 1,
    shares: tuple[tuple[Discount, int], ...] = (),
    supplier: str = "",
) -> PricedLine:
    return PricedLine(
        line_id=line_id,
        sku=Sku(f"SKU-{line_id}"),
        category="",
        quantity=quantity,
        price_source=PriceSource.POS,
        shelf_minor=shelf,
        shares=shares,
        supplier_id=SupplierId(supplier),
        rule_version=1 if supplier else 0,
        from_stock=not supplier,
    )


def sold(
    lines: Sequence[PricedLine],
    *,
    tender: PointsTender = NO_POINTS,
    payments: Sequence[int] = (),
    guide: str = "",
) -> Order:
    """A paid order; without payments, one card pays what is due."""
    discounts, frozen = freeze(lines, tender=tender)
    due = sum(line.accrual_base_minor for line in frozen)
    given = [Payment(tender=Tender.CARD, amount_minor=amount) for amount in (payments or ([due] if due else []))]
    order = Order(
        order_id=OrderId("01a20000-0000-7000-8000-000000000001"),
        state=OrderState.PAID,
        version=1,
        store_id=StoreId("S1"),
        channel="pos",
        member_id=MemberId(""),
        guide_id=guide,
        currency_code="CNY",
        point_currency="points",
        discounts=discounts,
        lines=frozen,
        payments=(),
        shelf_minor=sum(line.shelf_minor for line in frozen),
        discount_minor=sum(line.shelf_minor - line.net_minor for line in frozen),
        net_minor=sum(line.net_minor for line in frozen),
        points_tender_minor=tender.value_minor,
        burnt_points=tender.points,
        quoted_points=0,
        occurred_at=NOON,
    )
    all_payments, allocated = allocate_tenders(frozen, given)
    return replace(order, payments=all_payments, lines=allocated)


@st.composite
def priced_lines(draw: st.DrawFn, *, supplier: str = "") -> list[PricedLine]:
    lines = []
    for number in range(draw(st.integers(1, 6))):
        shelf = draw(st.integers(0, 5000))
        member = draw(st.integers(0, shelf))
        coupon = draw(st.integers(0, shelf - member))
        shares = tuple((discount, share) for discount, share in ((MEMBER_PRICE, member), (COUPON, coupon)) if share)
        quantity = draw(st.one_of(st.integers(1, 7), st.integers(1, 90_000)))
        lines.append(priced(str(number), shelf, quantity=quantity, shares=shares, supplier=supplier))
    return lines


@st.composite
def paid_orders(draw: st.DrawFn, *, supplier: str = "") -> Order:
    lines = draw(priced_lines(supplier=supplier))
    net = sum(line.net_minor for line in lines)
    value = draw(st.integers(0, net))
    tender = PointsTender(points=value * draw(st.integers(1, 3)), value_minor=value)
    due = net - value
    cuts = sorted(draw(st.lists(st.integers(0, due), max_size=2)))
    amounts = [upto - before for before, upto in zip([0, *cuts], [*cuts, due], strict=True)]
    return sold(lines, tender=tender, payments=[amount for amount in amounts if amount] or ([due] if due else []))
