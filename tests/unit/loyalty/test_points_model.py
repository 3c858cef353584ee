"""The points ledger's reference model: the worked examples of the semantics, and its invariants."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from tests.unit.loyalty.points_model import GRACE, PointsModel, Pool, Refusal

START = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=365)
DAY = timedelta(days=1)
BRAND = Pool("brand", "year")


def _spending_takes_the_older_lot() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("january", BRAND, 300, START + YEAR)
    model.advance(START + 31 * DAY)
    model.earn("february", BRAND, 200, model.now + YEAR)
    model.hold("h", 200)
    return [lot.left for lot in model.lots[BRAND]], [100, 200]


def _late_sale_never_expires_first() -> tuple[object, object]:
    model = PointsModel(now=START + 10 * DAY)
    model.earn("first", BRAND, 10, model.now + YEAR)
    model.earn("late", BRAND, 10, START + YEAR)
    return [lot.expires_at for lot in model.lots[BRAND]], [model.now + YEAR] * 2


def _take_back_leaves_other_expiries() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("a", BRAND, 1000, START + DAY)
    model.earn("b", BRAND, 1000, START + YEAR)
    model.refund(takes=[("b", 1000)])
    before = model.available
    model.advance(START + DAY)
    return (before, model.available), (1000, 0)


def _give_back_into_an_expired_lot_is_grace() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("a", BRAND, 300, START + 10 * DAY)
    model.earn("b", BRAND, 200, START + YEAR)
    for hold_id, points in (("first", 200), ("second", 250)):
        model.hold(hold_id, points)
        model.capture(hold_id)
    model.advance(START + 10 * DAY)
    model.refund(gives=[("first", 200)])
    in_grace = sum(lot.left for lot in model.lots[Pool("brand", GRACE)])
    return (model.lots[BRAND][1].left, in_grace, model.available), (150 + 50, 50, 250)


def _sale_of_two_units(matures_at: datetime | None) -> PointsModel:
    model = PointsModel(now=START)
    model.earn("opening", BRAND, 200, START + YEAR)
    model.hold("sale", 150)
    model.capture("sale")
    model.earn("sale", BRAND, 70, START + YEAR, matures_at)
    return model


def _refund_without_window() -> tuple[object, object]:
    model = _sale_of_two_units(None)
    seen = [model.available]
    for _ in range(2):
        model.refund(gives=[("sale", 75)], takes=[("sale", 35)])
        seen.append(model.available)
    return seen, [120, 160, 200]


def _refund_within_window() -> tuple[object, object]:
    model = _sale_of_two_units(START + 3 * DAY)
    seen = [(model.available, model.pending)]
    for _ in range(2):
        model.refund(gives=[("sale", 75)], takes=[("sale", 35)])
        seen.append((model.available, model.pending))
    return seen, [(50, 70), (125, 35), (200, 0)]


def _debt_is_repaid_by_the_next_points() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("a", BRAND, 100, START + YEAR)
    model.hold("h", 100)
    model.refund(takes=[("a", 100)])
    owed = model.debt
    model.earn("b", BRAND, 130, START + YEAR)
    return (owed, model.debt, model.available, model.held), (100, 0, 30, 100)


def _forbidden_debt_is_reported() -> tuple[object, object]:
    model = PointsModel(now=START, debt_allowed=False)
    model.earn("a", BRAND, 100, START + YEAR)
    model.hold("h", 70)
    shortfall = model.refund(takes=[("a", 100)])
    return (shortfall, model.debt, model.available), (70, 0, 0)


def _held_points_do_not_expire() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("a", BRAND, 100, START + DAY)
    model.hold("h", 60)
    model.advance(START + DAY)
    held = (model.available, model.held)
    model.void("h")
    return (held, model.available, model.booked("expired")), ((0, 60), 60, 40)


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(_spending_takes_the_older_lot, id="spending 200 takes them from January's"),
        pytest.param(_late_sale_never_expires_first, id="a late sale never expires before one already posted"),
        pytest.param(_take_back_leaves_other_expiries, id="A expires tomorrow, refund of B leaves A"),
        pytest.param(_give_back_into_an_expired_lot_is_grace, id="A expires; return the first 200"),
        pytest.param(_refund_without_window, id="120, 160, 200"),
        pytest.param(_refund_within_window, id="50 and 70, 125 and 35, 200 and 0"),
        pytest.param(_debt_is_repaid_by_the_next_points, id="debt is repaid by the next points"),
        pytest.param(_forbidden_debt_is_reported, id="a forbidden debt is a reported shortfall"),
        pytest.param(_held_points_do_not_expire, id="held points expire no more"),
    ],
)
def test_worked_example(example: Callable[[], tuple[object, object]]) -> None:
    """Each worked example of the semantics, to the point."""
    seen, wanted = example()
    assert seen == wanted


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_refunding_everything_in_any_order_restores_the_balance(data: st.DataObject) -> None:
    """Whatever the sales and the order of their refunds, the balance is back where it was."""
    model = PointsModel(now=START)
    opening = data.draw(st.integers(0, 500))
    if opening:
        model.earn("opening", BRAND, opening, START + YEAR)
    refunds: list[dict[str, Any]] = []
    for sale in range(data.draw(st.integers(1, 6))):
        units = data.draw(st.integers(1, 4))
        burn_each = data.draw(st.integers(0, max(0, model.available // units)))
        earn_each = data.draw(st.integers(0, 60))
        if burn_each:
            model.hold(f"sale-{sale}", burn_each * units)
            model.capture(f"sale-{sale}")
        if earn_each:
            window = data.draw(st.sampled_from([None, START + 3 * DAY]))
            model.earn(f"sale-{sale}", BRAND, earn_each * units, START + YEAR, window)
        refund = {
            "gives": [(f"sale-{sale}", burn_each)] if burn_each else [],
            "takes": [(f"sale-{sale}", earn_each)] if earn_each else [],
        }
        refunds += [refund] * units
    for refund in data.draw(st.permutations(refunds)):
        model.refund(**refund)
    assert (model.available, model.pending, model.held, model.debt) == (opening, 0, 0, 0)


class PointsMachine(RuleBasedStateMachine):
    """Any sequence of operations keeps the books: entries sum to balances, held is what open holds draw."""

    earned = Bundle("earned")
    opened = Bundle("opened")
    burnt = Bundle("burnt")

    def __init__(self) -> None:
        super().__init__()
        self.model = PointsModel(now=START)
        self.count = 0

    def _key(self) -> str:
        self.count += 1
        return f"k{self.count}"

    @rule(
        target=earned,
        funder=st.sampled_from(["brand", "partner"]),
        points=st.integers(1, 300),
        days=st.integers(-3, 20),
        window=st.sampled_from([None, 1, 3]),
    )
    def earn(self, funder: str, points: int, days: int, window: int | None) -> str:
        key = self._key()
        matures_at = None if window is None else self.model.now + window * DAY
        pool = Pool(funder, "short" if days < 10 else "long")
        self.model.earn(key, pool, points, self.model.now + days * DAY, matures_at)
        return key

    @rule(target=opened, points=st.integers(1, 400), offline=st.booleans())
    def hold(self, points: int, offline: bool) -> Any:
        key = self._key()
        missing = points - self.model.available
        if missing > 0 and not offline:
            with pytest.raises(Refusal, match="INSUFFICIENT_POINTS") as refused:
                self.model.hold(key, points)
            assert refused.value.missing_points == missing
            return multiple()
        self.model.hold(key, points, debt_allowed=offline)
        return key

    @rule(target=burnt, hold_id=consumes(opened), share=st.sampled_from([1, 2, None]))
    def capture(self, hold_id: str, share: int | None) -> str:
        self.model.capture(hold_id, None if share is None else self.model.holds[hold_id].points // share)
        return hold_id

    @rule(hold_id=consumes(opened), expires=st.booleans())
    def release(self, hold_id: str, expires: bool) -> None:
        before = self.model.available - self.model.debt
        points = self.model.holds[hold_id].points
        (self.model.expire_hold if expires else self.model.void)(hold_id)
        assert self.model.available - self.model.debt == before + points
        with pytest.raises(Refusal, match="HOLD_"):
            self.model.capture(hold_id)

    @rule(hold_id=burnt, share=st.integers(1, 3))
    def give_back(self, hold_id: str, share: int) -> None:
        before = self.model.available - self.model.debt
        points = self.model.holds[hold_id].points // share
        self.model.refund(gives=[(hold_id, points)])
        assert self.model.available - self.model.debt == before + points

    @rule(key=earned, share=st.integers(1, 3))
    def take_back(self, key: str, share: int) -> None:
        before = self.model.available + self.model.pending - self.model.debt
        earning = self.model.earnings[key]
        points = (earning.points - earning.taken) // share
        self.model.refund(takes=[(key, points)])
        assert self.model.available + self.model.pending - self.model.debt == before - points

    @rule(days=st.integers(0, 8))
    def wait(self, days: int) -> None:
        self.model.advance(self.model.now + days * DAY)

    @rule(points=st.integers(1, 50))
    def retry(self, points: int) -> None:
        key = self._key()
        for _ in range(2):
            self.model.once(key, points, lambda: self.model.earn(key, BRAND, points, self.model.now + YEAR))
        with pytest.raises(Refusal, match="REQUEST_ID_REUSED"):
            self.model.once(key, points + 1, lambda: None)

    @invariant()
    def entries_sum_to_balances(self) -> None:
        model = self.model
        assert model.booked("available") == model.available >= 0
        assert model.booked("pending") == model.pending >= 0
        assert model.booked("held") == model.held >= 0
        assert model.booked("debt") == -model.debt <= 0
        assert all(entry.points > 0 for entry in model.entries)

    @invariant()
    def nothing_past_its_expiry_is_available(self) -> None:
        for lots in self.model.lots.values():
            assert all(lot.left == 0 for lot in lots if lot.expires_at <= self.model.now)
            assert [lot.expires_at for lot in lots] == sorted(lot.expires_at for lot in lots)
            live = [lot for lot in lots if not lot.closed and lot.size]
            for older, newer in pairwise(live):
                assert older.left == 0 or newer.left == newer.size, "what is spent is a prefix of the pool"

    @invariant()
    def debt_means_nothing_of_that_funder_is_left(self) -> None:
        for funder, owed in self.model.debts.items():
            left = sum(lot.left for pool, lots in self.model.lots.items() if pool.funder == funder for lot in lots)
            assert owed == 0 or left == 0


TestPointsMachine = PointsMachine.TestCase
TestPointsMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
