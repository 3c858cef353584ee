"""Who gets what: shares sum to the line, a missing party's is the brand's, and a refund takes each back exactly."""

from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.commerce.domain.orders import Order
from services.commerce.domain.refunds import UnitsToRefund, refund
from services.commerce.domain.refusals import SharesNotWhole
from services.commerce.domain.splits import (
    PartyKind,
    SplitRule,
    SplitShare,
    check_shares,
    reversal_entries,
    sale_entries,
    split_amount,
)
from services.runtime.ids import RefundId, SupplierId
from tests.unit.commerce.sales import NOON, paid_orders, priced, sold

S, B, ST, G, PL = PartyKind.SUPPLIER, PartyKind.BRAND, PartyKind.STORE, PartyKind.GUIDE, PartyKind.PLATFORM


def rule(*shares: tuple[PartyKind, str]) -> SplitRule:
    return SplitRule(
        supplier_id=SupplierId("florist"),
        version=1,
        shares=tuple(SplitShare(party=party, percent=Decimal(percent)) for party, percent in shares),
    )


@pytest.mark.parametrize(
    ("amount", "split", "present", "expected"),
    [
        pytest.param(299, ((S, "53.75"), (ST, "17.5"), (B, "28.75")), (S, ST, B), {S: 161, ST: 52, B: 86}, id="worked"),
        pytest.param(1, ((S, "50"), (B, "50")), (S, B), {S: 1, B: 0}, id="ties to the earlier"),
        pytest.param(1000, ((S, "70"), (G, "5"), (B, "25")), (S, B), {S: 700, B: 300}, id="no guide: the brand's"),
        pytest.param(1000, ((S, "95"), (G, "5")), (S,), {S: 950, B: 50}, id="a brand that has no share of its own"),
        pytest.param(0, ((S, "70"), (B, "30")), (S, B), {S: 0, B: 0}, id="nothing paid"),
        pytest.param(1001, ((S, "66.6667"), (PL, "33.3333")), (S, PL), {S: 667, PL: 334}, id="fractions of per cent"),
    ],
)
def test_shares(
    amount: int,
    split: tuple[tuple[PartyKind, str], ...],
    present: tuple[PartyKind, ...],
    expected: dict[PartyKind, int],
) -> None:
    assert split_amount(amount, rule(*split), present=present) == expected


@pytest.mark.parametrize("split", [((S, "50"), (B, "49.9999")), ((S, "60"), (B, "60")), ((S, "50"), (S, "50"))])
def test_a_rule_that_is_not_whole_is_refused(split: tuple[tuple[PartyKind, str], ...]) -> None:
    with pytest.raises(SharesNotWhole):
        check_shares(rule(*split).shares)


def test_own_goods_are_not_split() -> None:
    assert sale_entries(sold([priced("1", 1000)]), {}) == ()


def test_without_a_rule_all_is_the_brands() -> None:
    entries = sale_entries(sold([priced("1", 1000, supplier="florist")]), {})
    assert [(entry.party, entry.amount_minor) for entry in entries] == [(PartyKind.CUSTOMER, -1000), (B, 1000)]


@settings(deadline=None, max_examples=60)
@given(order=paid_orders(supplier="florist"), weights=st.lists(st.integers(0, 100), min_size=4, max_size=4))
def test_entries_sum_to_zero_and_are_reversed_whole(order: Order, weights: list[int]) -> None:
    whole = sum(weights) or 1
    percents = [Decimal(weight * 100) / whole if sum(weights) else Decimal(25) for weight in weights]
    percents = [percent.quantize(Decimal("0.0001")) for percent in percents]
    split = tuple(
        SplitShare(party=party, percent=percent) for party, percent in zip((S, ST, B, PL), percents, strict=True)
    )
    rules = {("florist", 1): SplitRule(supplier_id=SupplierId("florist"), version=1, shares=split)}
    sale = sale_entries(order, rules)
    kept: Counter[tuple[int, PartyKind]] = Counter()
    for entry in sale:
        kept[entry.line_no, entry.party] += entry.amount_minor
    for line in order.lines:
        assert sum(amount for (line_no, _), amount in kept.items() if line_no == line.line_no) == 0
    while not order.wholly_refunded:
        asked = [
            UnitsToRefund(line_id=line.line_id, quantity=-(-(line.quantity - line.refunded_quantity) // 3))
            for line in order.lines
            if line.refunded_quantity < line.quantity
        ][:2]
        made, after = refund(order, asked, refund_id=RefundId("r"), reason="", occurred_at=NOON)
        for taken in made.lines:
            entries = reversal_entries(sale, order.lines[taken.line_no], taken)
            assert sum(entry.amount_minor for entry in entries) == 0
            for entry in entries:
                assert entry.party is PartyKind.CUSTOMER or entry.amount_minor <= 0
                kept[entry.line_no, entry.party] += entry.amount_minor
        order = after
    assert set(kept.values()) == {0}
