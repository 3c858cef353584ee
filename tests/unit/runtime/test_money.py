"""Rounding and allocation: the parts always sum to the whole."""

import itertools
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.runtime.money import allocate, percent_of, prefix_share, price_of, round_ratio, tenders_by_line

amounts = st.integers(-(10**12), 10**12)
weights = st.lists(st.integers(0, 10**9), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("total", "over", "parts"),
    [
        pytest.param(299, [4300, 1400, 2300], (161, 52, 86), id="a discount over three lines"),
        pytest.param(299, [1000, 1000, 1000], (100, 100, 99), id="ties go to the earliest"),
        pytest.param(10, [0, 0, 0], (4, 3, 3), id="no weights: equal shares"),
        pytest.param(0, [5, 7], (0, 0), id="nothing to divide"),
        pytest.param(0, [], (), id="nothing over nobody"),
        pytest.param(7, [0, 3], (0, 7), id="a weight of zero gets nothing"),
        pytest.param(-299, [4300, 1400, 2300], (-161, -52, -86), id="a refund mirrors the sale"),
        pytest.param(1, [1, 1], (1, 0), id="one unit that cannot be halved"),
        pytest.param(5, [10**15, 10**15], (3, 2), id="weights beyond 2^53"),
    ],
)
def test_allocation_is_by_largest_remainder(total: int, over: list[int], parts: tuple[int, ...]) -> None:
    assert allocate(total, over) == parts


@given(total=amounts, over=weights)
def test_parts_sum_to_the_whole_and_stay_within_one_of_their_share(total: int, over: list[int]) -> None:
    parts = allocate(total, over)
    assert sum(parts) == total
    whole = sum(over)
    assume(whole > 0)
    for part, weight in zip(parts, over, strict=True):
        assert abs(part * whole - total * weight) < whole


@given(total=st.integers(0, 10**9), over=weights)
def test_a_larger_weight_never_gets_less(total: int, over: list[int]) -> None:
    parts = allocate(total, over)
    ranked = sorted(zip(over, parts, strict=True))
    for (lighter, less), (heavier, more) in itertools.pairwise(ranked):
        assert lighter == heavier or less <= more


@given(total=amounts, units=st.integers(1, 200))
def test_the_share_of_the_first_units_is_a_prefix_of_the_allocation(total: int, units: int) -> None:
    parts = allocate(total, [1] * units)
    assert [prefix_share(total, units, k) for k in range(units + 1)] == [sum(parts[:k]) for k in range(units + 1)]


@given(total=amounts, cuts=st.lists(st.integers(0, 10**9), min_size=1, max_size=6))
def test_units_returned_in_any_portions_return_the_whole(total: int, cuts: list[int]) -> None:
    units = max(cuts) or 1
    edges = [0, *sorted(cut for cut in cuts if cut <= units), units]
    shares = [
        prefix_share(total, units, end) - prefix_share(total, units, start) for start, end in itertools.pairwise(edges)
    ]
    assert sum(shares) == total


def test_no_units_hold_all() -> None:
    assert prefix_share(250, 0, 0) == 250


@pytest.mark.parametrize(
    ("amount_minor", "rate", "share"),
    [
        pytest.param(1000, "0.15", 150, id="exact"),
        pytest.param(5, "0.5", 3, id="half goes away from zero"),
        pytest.param(-5, "0.5", -3, id="also below zero"),
        pytest.param(333, "0.1", 33, id="less than half goes down"),
        pytest.param(1999, "0.4", 800, id="40 percent of 19.99"),
        pytest.param(10**15 + 1, "0.0001", 10**11, id="no float's 53 bits"),
        pytest.param(100, "0", 0, id="nothing"),
    ],
)
def test_a_percentage_rounds_half_away_from_zero(amount_minor: int, rate: str, share: int) -> None:
    assert percent_of(amount_minor, Decimal(rate)) == share


@given(numerator=amounts, denominator=st.integers(1, 10**9))
def test_rounding_is_symmetric_and_nearest(numerator: int, denominator: int) -> None:
    rounded = round_ratio(numerator, denominator)
    assert round_ratio(-numerator, denominator) == -rounded
    assert 2 * abs(rounded * denominator - numerator) <= denominator


@pytest.mark.parametrize(
    ("price_minor", "quantity", "price_quantity", "amount_minor"),
    [
        pytest.param(399, 3, 1, 1197, id="pieces"),
        pytest.param(1290, 250, 1000, 323, id="250 g at 12.90 the kilogram"),
        pytest.param(100, 0, 1, 0, id="none"),
    ],
)
def test_the_price_of_a_quantity(price_minor: int, quantity: int, price_quantity: int, amount_minor: int) -> None:
    assert price_of(price_minor, quantity, price_quantity) == amount_minor


@pytest.mark.parametrize(
    ("lines", "tenders", "rows"),
    [
        pytest.param(
            [3333, 3333, 3334],
            [5000, 5000],
            ((1667, 1666), (1666, 1667), (1667, 1667)),
            id="33.33, 33.33, 33.34 by 50 and 50",
        ),
        pytest.param([100], [100], ((100,),), id="one of each"),
        pytest.param([0, 100], [100], ((0,), (100,)), id="a line that costs nothing"),
        pytest.param([70, 30], [100, 0], ((70, 0), (30, 0)), id="a tender that pays nothing"),
        pytest.param([0, 0], [], ((), ()), id="nothing to pay and nothing paid"),
    ],
)
def test_tenders_are_frozen_line_by_line(
    lines: list[int], tenders: list[int], rows: tuple[tuple[int, ...], ...]
) -> None:
    assert tenders_by_line(lines, tenders) == rows


@given(
    lines=st.lists(st.integers(0, 10**7), min_size=1, max_size=20),
    split=st.lists(st.integers(0, 100), min_size=1, max_size=5),
)
def test_lines_and_tenders_both_sum_and_nothing_is_negative(lines: list[int], split: list[int]) -> None:
    tenders = allocate(sum(lines), split)
    rows = tenders_by_line(lines, tenders)
    assert [sum(row) for row in rows] == lines
    assert [sum(column) for column in zip(*rows, strict=True)] == list(tenders)
    assert all(share >= 0 for row in rows for share in row)


def test_amounts_that_do_not_meet_are_a_bug() -> None:
    with pytest.raises(AssertionError):
        tenders_by_line([100], [99])
    with pytest.raises(AssertionError):
        allocate(5, [-1, 2])
    with pytest.raises(AssertionError):
        allocate(5, [])
