"""Who gets what: shares sum to the line, a missing party's is the brand's, and a refund takes each back exactly."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.commerce.domain.freezing import PointsTender
from services.commerce.domain.orders import Order
from services.commerce.domain.refunds import UnitsToRefund, refund, refund_line
from services.commerce.domain.refusals import SharesNotWhole
from services.commerce.domain.splits import (
    PartyKind,
    SplitEntry,
    SplitRule,
    SplitShare,
    check_shares,
    parties_of,
    reversal_entries,
    sale_entries,
    shares_of_line,
    split_amount,
)
from services.runtime.ids import RefundId, SupplierId
from services.runtime.money import allocate
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


@pytest.mark.parametrize(
    ("nets", "payments", "split", "expected"),
    [
        pytest.param(
            (1000,),
            (600, 400),
            ((S, "70"), (B, "30")),
            [{S: (420, 280), B: (180, 120)}],
            id="by the rates",
        ),
        pytest.param((3,), (1, 2), ((S, "50"), (B, "50")), [{S: (1, 1), B: (0, 1)}], id="what remains of each"),
        pytest.param((10, 10), (10, 10), ((S, "100"),), [{S: (5, 5)}, {S: (5, 5)}], id="lines in order"),
        pytest.param((0,), (), ((S, "70"), (B, "30")), [{S: (), B: ()}], id="nothing was due"),
        pytest.param((999,), (333, 333, 333), ((B, "100"),), [{B: (333, 333, 333)}], id="three payments"),
    ],
)
def test_shares_are_divided_over_the_payments(
    nets: tuple[int, ...],
    payments: tuple[int, ...],
    split: tuple[tuple[PartyKind, str], ...],
    expected: list[dict[PartyKind, tuple[int, ...]]],
) -> None:
    order = sold([priced(str(at), net, supplier="florist") for at, net in enumerate(nets)], payments=payments)
    sale = sale_entries(order, {("florist", 1): rule(*split)})
    found = [{entry.party: entry.tenders_minor for entry in shares_of_line(sale, line)} for line in order.lines]
    assert found == expected


def test_units_take_from_each_payment_what_the_customer_gets_of_it() -> None:
    # 7 cents, 5 of them points, in two units: 4 and 3; the points come back as 3 and 2
    order = sold([priced("1", 7, quantity=2, supplier="florist")], tender=PointsTender(points=5, value_minor=5))
    sale = sale_entries(order, {("florist", 1): rule((S, "60"), (B, "40"))})
    taken = refund_line(order.lines[0], UnitsToRefund(line_id="1", quantity=1))
    rest = replace(taken, refunded_before=1, amount_minor=3, tenders_minor=(2, 1))
    first, second = (
        [(entry.party, entry.tenders_minor) for entry in reversal_entries(sale, order.lines[0], each)]
        for each in (taken, rest)
    )
    assert first[0] == (PartyKind.CUSTOMER, (3, 1))
    assert second[0] == (PartyKind.CUSTOMER, (2, 1))
    shares = {entry.party: entry.tenders_minor for entry in shares_of_line(sale, order.lines[0])}
    for at, party in enumerate((S, B), start=1):
        assert tuple(-a - b for a, b in zip(first[at][1] or (), second[at][1] or (), strict=True)) == shares[party]


def test_an_undivided_sale_is_reversed_undivided() -> None:
    order = sold([priced("1", 1000, quantity=3, supplier="florist")], payments=(600, 400))
    sale = tuple(
        replace(entry, tenders_minor=None)
        for entry in sale_entries(order, {("florist", 1): rule((S, "72.5"), (B, "27.5"))})
    )
    taken = refund_line(order.lines[0], UnitsToRefund(line_id="1", quantity=1))
    entries = reversal_entries(sale, order.lines[0], taken)
    assert [(entry.amount_minor, entry.tenders_minor) for entry in entries] == [(334, None), (-242, None), (-92, None)]


@st.composite
def rules_of(draw: st.DrawFn) -> SplitRule:
    parties = draw(st.permutations((S, B, ST, G, PL)))[: draw(st.integers(1, 5))]
    weights = [draw(st.integers(0, 1_000_000)) for _ in parties]
    weights[0] += max(0, 1_000_000 - sum(weights))
    parts = allocate(1_000_000, weights)
    return rule(*((party, str(Decimal(part) / 10_000)) for party, part in zip(parties, parts, strict=True)))


@settings(max_examples=80)
@given(
    order=paid_orders(supplier="florist"),
    split=rules_of(),
    guide=st.sampled_from(("", "G7")),
    chance=st.randoms(use_true_random=False),
)
def test_shares_sum_per_line_payment_and_party_whatever_is_refunded(
    order: Order, split: SplitRule, guide: str, chance: Random
) -> None:
    order = replace(order, guide_id=guide)
    sale = sale_entries(order, {("florist", 1): split})
    kept: Counter[tuple[int, PartyKind, int]] = Counter()

    def post(entries: Sequence[SplitEntry]) -> None:
        for entry in entries:
            assert entry.tenders_minor is not None
            assert sum(entry.tenders_minor) == entry.amount_minor
            for payment, part in enumerate(entry.tenders_minor):
                kept[entry.line_no, entry.party, payment] += part

    def check(order: Order) -> None:
        for line in order.lines:
            left = line.net_minor - line.refunded_minor
            cells = {key: part for key, part in kept.items() if key[0] == line.line_no}
            assert sum(part for (_, party, _), part in cells.items() if party is not PartyKind.CUSTOMER) == left
            assert sum(cells.values()) == 0
        for at, payment in enumerate(order.payments):
            parts = [part for (_, party, paid), part in kept.items() if paid == at and party is not PartyKind.CUSTOMER]
            assert sum(parts) == payment.amount_minor - payment.refunded_minor
        # nobody gives back more of a payment than it got of it
        assert all(part >= 0 for (_, party, _), part in kept.items() if party is not PartyKind.CUSTOMER)

    post(sale)
    check(order)
    for line in order.lines:
        shares = split_amount(line.net_minor, split, present=parties_of(order, line))
        assert {entry.party: entry.amount_minor for entry in shares_of_line(sale, line)} == shares
    while not order.wholly_refunded:
        open_lines = [line for line in order.lines if line.refunded_quantity < line.quantity]
        asked = [
            UnitsToRefund(
                line_id=line.line_id,
                quantity=max(1, int((line.quantity - line.refunded_quantity) * chance.choice((0, 0.3, 0.5, 1)))),
            )
            if line.quantity < 50
            else UnitsToRefund(line_id=line.line_id, quantity=-(-(line.quantity - line.refunded_quantity) // 2))
            for line in chance.sample(open_lines, chance.randint(1, len(open_lines)))
        ]
        made, after = refund(order, asked, refund_id=RefundId("r"), reason="", occurred_at=NOON)
        for taken in made.lines:
            entries = reversal_entries(sale, order.lines[taken.line_no], taken)
            assert entries[0].tenders_minor == taken.tenders_minor
            post(entries)
        order = after
        check(order)
    assert set(kept.values()) <= {0}


@settings(max_examples=60)
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
