"""Stock levels: all or nothing, every change with its line, and off-line sales beside the reservations."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.commerce.domain import stock
from services.commerce.domain.refusals import OutOfStock, StockBelowReserved
from services.commerce.domain.stock import DocumentKind, Level, demand_of
from services.runtime.errors import Invalid
from services.runtime.ids import Sku
from tests.unit.commerce.sales import priced, sold

TEA = Sku("TEA")


def level(on_hand: int, reserved: int = 0) -> dict[Sku, Level]:
    return {TEA: Level(sku=TEA, on_hand=on_hand, reserved=reserved, shortfall=max(0, reserved - on_hand))}


def test_demand_is_summed_per_sku_and_sorted() -> None:
    lines = [priced("b", 1, quantity=2), priced("a", 1), priced("b", 1, quantity=3), priced("c", 1, supplier="s")]
    assert demand_of(sold(lines).lines) == {"SKU-a": 1, "SKU-b": 5}


@pytest.mark.parametrize(
    ("on_hand", "reserved", "wanted", "available"),
    [
        pytest.param(10, 3, 7, None, id="the last one"),
        pytest.param(10, 3, 8, 7, id="one too many"),
        pytest.param(-2, 0, 1, 0, id="below zero is nothing"),
    ],
)
def test_reserve_and_take_check_the_same(on_hand: int, reserved: int, wanted: int, available: int | None) -> None:
    for change in (stock.reserve, stock.take):
        if available is None:
            change(level(on_hand, reserved), {TEA: wanted})
            continue
        with pytest.raises(OutOfStock) as refused:
            change(level(on_hand, reserved), {TEA: wanted})
        assert refused.value.metadata == {"sku": "TEA", "available": str(available)}


def test_what_nobody_has_ever_stocked_is_out_of_stock() -> None:
    with pytest.raises(OutOfStock):
        stock.take({}, {TEA: 1})


def test_a_shortfall_is_a_document_of_its_own() -> None:
    movement, missing = stock.take_as_fact(level(5, 3), {TEA: 4})
    assert missing == {TEA: 2}
    assert [(each.kind, each.change, each.on_hand_after) for each in movement.postings] == [
        (DocumentKind.SALE, -2, 3),
        (DocumentKind.SHORTFALL, -2, 1),
    ]
    assert (movement.levels[0].reserved, movement.levels[0].shortfall, movement.levels[0].version) == (3, 2, 2)


@pytest.mark.parametrize(
    ("kind", "quantity", "error"),
    [
        pytest.param(DocumentKind.RECEIPT, 0, Invalid, id="a receipt of nothing"),
        pytest.param(DocumentKind.COUNT, -1, Invalid, id="a count below zero"),
        pytest.param(DocumentKind.COUNT, 2, StockBelowReserved, id="counted less than is promised"),
        pytest.param(DocumentKind.ADJUSTMENT, -8, StockBelowReserved, id="taken from under a reservation"),
    ],
)
def test_documents_that_are_refused(kind: DocumentKind, quantity: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        stock.post(level(10, 3), kind=kind, lines=[(TEA, quantity)])


@settings(max_examples=60)
@given(steps=st.lists(st.tuples(st.sampled_from("rtfcvb+"), st.integers(1, 5)), max_size=40))
def test_whatever_happens_the_lines_sum_and_nothing_promised_is_lost(steps: list[tuple[str, int]]) -> None:
    now, posted, held = Level(sku=TEA, on_hand=10), 0, []
    versions = []
    for what, quantity in steps:
        levels = {TEA: now}
        try:
            if what == "r":
                movement = stock.reserve(levels, {TEA: quantity})
                held.append(quantity)
            elif what == "t":
                movement = stock.take(levels, {TEA: quantity})
            elif what == "f":
                movement, _ = stock.take_as_fact(levels, {TEA: quantity})
            elif what in "cv":
                if not held:
                    continue
                change = stock.take_reserved if what == "c" else stock.release
                movement = change(levels, {TEA: held.pop()})
            elif what == "b":
                movement = stock.bring_back(levels, {TEA: quantity})
            else:
                movement = stock.post(levels, kind=DocumentKind.RECEIPT, lines=[(TEA, quantity)])
        except OutOfStock:
            assert now.available < quantity
            continue
        (now,) = movement.levels
        posted += sum(each.change for each in movement.postings)
        versions += [each.version for each in movement.postings]
        assert now.on_hand == 10 + posted
        assert now.reserved == sum(held)
        assert now.shortfall == max(0, now.reserved - now.on_hand)
    assert versions == list(range(1, len(versions) + 1))
    assert now.version == len(versions)
