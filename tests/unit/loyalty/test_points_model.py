"""The points ledger's reference model: the worked examples of the semantics, and its invariants."""

from collections.abc import Callable
from copy import deepcopy
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


def _owing(model: PointsModel) -> tuple[int, int, int]:
    """(available, debt, what the books have as expired)."""
    return model.available, model.debt, model.booked("expired")


def _expired_unused_costs_nothing() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("sale", BRAND, 43, START + DAY)
    model.advance(START + DAY)
    seen = [_owing(model)]
    model.refund(takes=[("sale", 43)])
    seen.append(_owing(model))
    return (seen, model.booked("issued")), ([(0, 0, 43), (0, 0, 0)], 0)


def _expired_the_moment_it_was_posted() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("late", BRAND, 43, START - DAY)
    seen = []
    for points in (15, 14, 14):
        model.refund(takes=[("late", points)])
        seen.append(_owing(model))
    return seen, [(0, 0, 28), (0, 0, 14), (0, 0, 0)]


def _partly_spent(*, other_points: int = 0, debt_allowed: bool = True) -> PointsModel:
    model = PointsModel(now=START, debt_allowed=debt_allowed)
    model.earn("sale", BRAND, 100, START + 10 * DAY)
    model.hold("h", 60)
    model.capture("h")
    if other_points:
        model.earn("other", BRAND, other_points, START + YEAR)
    model.advance(START + 10 * DAY)
    return model


def _units_of_a_partly_spent_lot_owe_what_was_spent() -> tuple[object, object]:
    model = _partly_spent()
    seen = []
    for _ in range(4):
        model.refund(takes=[("sale", 25)])
        seen.append(_owing(model))
    return seen, [(0, 0, 15), (0, 10, 0), (0, 35, 0), (0, 60, 0)]


def _units_of_a_partly_spent_lot_take_what_was_spent_elsewhere() -> tuple[object, object]:
    model = _partly_spent(other_points=500)
    seen = []
    for _ in range(4):
        model.refund(takes=[("sale", 25)])
        seen.append(_owing(model))
    return seen, [(500, 0, 15), (490, 0, 0), (465, 0, 0), (440, 0, 0)]


def _forbidden_debt_falls_short_of_what_was_spent() -> tuple[object, object]:
    model = _partly_spent(debt_allowed=False)
    return [model.refund(takes=[("sale", points)]) for points in (70, 30)], [30, 30]


def _the_day_before_and_the_day_after() -> tuple[object, object]:
    seen = []
    for refunded_on in (9, 11):
        model = PointsModel(now=START)
        model.earn("sale", BRAND, 100, START + 10 * DAY)
        model.earn("other", BRAND, 500, START + YEAR)
        model.hold("h", 60)
        model.capture("h")
        model.advance(START + refunded_on * DAY)
        model.refund(takes=[("sale", 50)])
        model.advance(START + 12 * DAY)
        model.refund(takes=[("sale", 50)])
        seen.append(model.available)
    return seen, [440, 440]


def _a_refund_undoes_what_paid_for_it_after_its_expiry() -> tuple[object, object]:
    model = _partly_spent()
    # what was spent comes back in grace and is nobody's earning: it is taken as what expires first
    model.refund(gives=[("h", 60)], takes=[("sale", 100)])
    together = _owing(model)
    model = _partly_spent()
    model.refund(takes=[("sale", 100)])
    model.refund(gives=[("h", 60)])
    return (together, _owing(model)), ((0, 0, 0), (0, 0, 0))


def _grace_that_expired_is_not_the_sales_lot() -> tuple[object, object]:
    model = _partly_spent()
    model.refund(gives=[("h", 60)])
    model.advance(START + 50 * DAY)
    before = _owing(model)
    model.refund(takes=[("sale", 100)])
    return (before, _owing(model)), ((0, 0, 100), (0, 60, 60))


def _holes_and_what_expired_beside_them() -> tuple[object, object]:
    model = PointsModel(now=START)
    for key in ("a", "b", "c"):
        model.earn(key, BRAND, 100, START + 10 * DAY)
    model.earn("later", BRAND, 100, START + YEAR)
    model.hold("h", 50)
    model.capture("h")
    model.refund(takes=[("b", 40)])
    model.refund(takes=[("c", 100)])
    model.advance(START + 10 * DAY)
    seen = [_owing(model)]
    for take in (("b", 60), ("a", 50), ("a", 50)):
        model.refund(takes=[take])
        seen.append(_owing(model))
    return seen, [(100, 0, 110), (100, 0, 50), (100, 0, 0), (50, 0, 0)]


def _debt_that_an_expired_lot_repaid_is_owed_again() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.hold("offline", 10, debt_allowed=True)
    model.capture("offline")
    model.earn("sale", BRAND, 43, START - DAY)
    seen = [_owing(model)]
    model.refund(takes=[("sale", 43)])
    seen.append(_owing(model))
    return seen, [(0, 0, 33), (0, 10, 0)]


def _what_matured_and_expired_after_a_part_was_taken_while_pending() -> tuple[object, object]:
    model = PointsModel(now=START)
    model.earn("sale", BRAND, 70, START + 10 * DAY, START + 3 * DAY)
    model.refund(takes=[("sale", 35)])
    model.advance(START + 10 * DAY)
    seen = [_owing(model)]
    model.refund(takes=[("sale", 35)])
    seen.append(_owing(model))
    return seen, [(0, 0, 35), (0, 0, 0)]


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
        pytest.param(_expired_unused_costs_nothing, id="43 expired unused, refunded wholly: nothing is owed"),
        pytest.param(_expired_the_moment_it_was_posted, id="43 expired when posted, refunded unit by unit"),
        pytest.param(_units_of_a_partly_spent_lot_owe_what_was_spent, id="60 spent and 40 expired: 60 are owed"),
        pytest.param(
            _units_of_a_partly_spent_lot_take_what_was_spent_elsewhere, id="60 spent and 40 expired: 60 of other lots"
        ),
        pytest.param(_forbidden_debt_falls_short_of_what_was_spent, id="60 spent and 40 expired: a shortfall of 60"),
        pytest.param(_the_day_before_and_the_day_after, id="the day before the expiry and the day after end alike"),
        pytest.param(_a_refund_undoes_what_paid_for_it_after_its_expiry, id="given back into grace, and taken from it"),
        pytest.param(_grace_that_expired_is_not_the_sales_lot, id="what expired in grace was no part of the lot"),
        pytest.param(_holes_and_what_expired_beside_them, id="holes are not what expired"),
        pytest.param(_debt_that_an_expired_lot_repaid_is_owed_again, id="what repaid debt was spent"),
        pytest.param(
            _what_matured_and_expired_after_a_part_was_taken_while_pending, id="pending, then expired: all of it"
        ),
    ],
)
def test_worked_example(example: Callable[[], tuple[object, object]]) -> None:
    """Each worked example of the semantics, to the point."""
    seen, wanted = example()
    assert seen == wanted


@given(st.data())
@settings(max_examples=200)
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


@given(st.data())
@settings(max_examples=200)
def test_refunds_after_an_expiry_sum_to_the_whole_in_any_order(data: st.DataObject) -> None:
    """Some was spent, some taken back, some expired: however the refunds are cut, the books end alike."""
    model = PointsModel(now=START, debt_allowed=data.draw(st.booleans()))
    for step in range(data.draw(st.integers(2, 12))):
        match data.draw(st.sampled_from(["earn", "earn", "spend", "take", "wait"])):
            case "earn":
                pool = data.draw(st.sampled_from([BRAND, Pool("brand", "short")]))
                window = data.draw(st.sampled_from([None, model.now + DAY]))
                expires_at = model.now + data.draw(st.integers(-1, 9)) * DAY
                model.earn(f"sale-{step}", pool, data.draw(st.integers(1, 100)), expires_at, window)
            case "spend" if model.available:
                model.hold(f"burn-{step}", data.draw(st.integers(1, model.available)))
                model.capture(f"burn-{step}")
            case "take" if model.earnings:
                key = data.draw(st.sampled_from(sorted(model.earnings)))
                left = model.earnings[key].points - model.earnings[key].taken
                model.refund(takes=[(key, data.draw(st.integers(0, left)))])
            case _:
                model.advance(model.now + data.draw(st.integers(1, 6)) * DAY)
    gives = [(key, hold.points) for key, hold in model.holds.items()]
    takes = [(key, earning.points - earning.taken) for key, earning in model.earnings.items()]
    whole = deepcopy(model)
    short = whole.refund(gives=gives, takes=takes)
    units = [
        *({"gives": [(key, part)]} for key, points in gives for part in _cut(data, points)),
        *({"takes": [(key, part)]} for key, points in takes for part in _cut(data, points)),
    ]
    shorts = [model.refund(**unit) for unit in data.draw(st.permutations(units))]
    assert model.booked("expired") == whole.booked("expired")
    assert model.booked("issued") == whole.booked("issued")
    assert (model.pending, model.held) == (whole.pending, whole.held) == (0, 0)
    # where debt is forbidden, a shortfall that is told before its give-back came is not taken back
    assert model.available - model.debt - sum(shorts) == whole.available - whole.debt - short
    if model.debt_allowed:
        assert (model.available, model.debt) == (whole.available, whole.debt)


def _cut(data: st.DataObject, points: int) -> list[int]:
    """The points in up to three parts."""
    cuts = sorted(data.draw(st.lists(st.integers(0, points), max_size=2)))
    return [after - before for before, after in pairwise([0, *cuts, points])]


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
        model, earning = self.model, self.model.earnings[key]
        before, expired = model.available + model.pending - model.debt, model.booked("expired")
        unspent = earning.pending + (earning.lot.left + earning.lot.unused if earning.lot else 0)
        points, debt = (earning.points - earning.taken) // share, model.debt
        model.refund(takes=[(key, points)])
        free = expired - model.booked("expired")
        assert model.available + model.pending - model.debt == before - points + free
        assert points > unspent or model.debt == debt, "what was never spent is never owed"

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
    def what_expired_is_told_by_its_lots(self) -> None:
        lots = [lot for lots in self.model.lots.values() for lot in lots]
        assert sum(lot.unused for lot in lots) == self.model.booked("expired")
        assert all(0 <= lot.unused <= lot.size * lot.closed for lot in lots)

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
TestPointsMachine.settings = settings(max_examples=60, stateful_step_count=25)
