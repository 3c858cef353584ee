"""Re-routing: each source is asked once for a unit, units and shares sum whatever is answered, shipped and refunded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.commerce.domain import sourcing, suppliers
from services.commerce.domain.orders import Order
from services.commerce.domain.refunds import UnitsToRefund, refund
from services.commerce.domain.sourcing import Source
from services.commerce.domain.splits import (
    PartyKind,
    SplitEntry,
    SplitRule,
    SplitShare,
    moved_entries,
    refund_entries,
    sale_entries,
)
from services.commerce.domain.suppliers import OPEN_STATES, SupplierEvent, SupplierOrder, SupplierOrderState
from services.runtime.errors import Invalid
from services.runtime.ids import OrderId, RefundId, Sku, SupplierId, SupplierOrderId
from tests.unit.commerce.sales import NOON, paid_orders, priced, sold

STATE = SupplierOrderState
RULES = {
    ("florist", 1): SplitRule(
        supplier_id=SupplierId("florist"),
        version=1,
        shares=(
            SplitShare(party=PartyKind.SUPPLIER, percent=Decimal("72.5")),
            SplitShare(party=PartyKind.BRAND, percent=Decimal("27.5")),
        ),
    )
}


def source(supplier_id: str, cost: int = 0) -> Source:
    return Source(supplier_id=SupplierId(supplier_id), cost_minor=cost)


def asked(*quantities: int, supplier: str = "florist", number: int = 1, replaces: str = "") -> SupplierOrder:
    lines = tuple(
        suppliers.SupplierLine(line_no=at, line_id=str(at), sku=Sku(f"SKU-{at}"), quantity=quantity)
        for at, quantity in enumerate(quantities)
    )
    pending = SupplierOrder(
        supplier_order_id=SupplierOrderId(f"s{number}"),
        order_id=OrderId("o"),
        supplier_id=SupplierId(supplier),
        state=STATE.PENDING,
        version=1,
        lines=lines,
        replaces=SupplierOrderId(replaces),
    )
    return suppliers.request(pending, now=NOON, accept_within_s=3600)


def test_a_supplier_stands_once() -> None:
    sourcing.check_sources([source("a"), source("b")])
    with pytest.raises(Invalid):
        sourcing.check_sources([source("a"), source("a", 5)])


@pytest.mark.parametrize(
    ("chain", "listed", "expected"),
    [
        pytest.param(("florist",), ("butcher", "grower"), "butcher", id="the first"),
        pytest.param(("florist",), ("florist", "grower"), "grower", id="not who has just refused"),
        pytest.param(("florist", "butcher"), ("butcher", "grower"), "grower", id="the next"),
        pytest.param(("florist", "butcher"), ("butcher", "florist"), None, id="nobody twice, in whatever order"),
        pytest.param(("florist",), (), None, id="no source"),
    ],
)
def test_each_source_is_asked_once(chain: tuple[str, ...], listed: tuple[str, ...], expected: str | None) -> None:
    theirs = [
        asked(2, supplier=supplier, number=at, replaces=f"s{at - 1}" if at else "") for at, supplier in enumerate(chain)
    ]
    found = sourcing.next_sources(theirs[-1], ["0"], {Sku("SKU-0"): [source(name) for name in listed]}, theirs=theirs)
    assert {line_id: each.supplier_id for line_id, each in found.items()} == ({"0": expected} if expected else {})


def test_lines_of_one_next_source_go_together() -> None:
    order = asked(3, 2, 1)
    routes = {"0": source("butcher", 90), "2": source("butcher", 80), "1": source("grower", 70)}
    lines = sourcing.lines_by_source(order, {"0": 2, "1": 2, "2": 1}, routes)
    assert {name: [(each.line_id, each.quantity, each.cost_minor) for each in of] for name, of in lines.items()} == {
        "butcher": [("0", 2, 90), ("2", 1, 80)],
        "grower": [("1", 2, 70)],
    }


def test_refused_units_are_rerouted_or_refunded_line_by_line() -> None:
    answered, refused = suppliers.accept(asked(3, 2), {"0": 1, "1": 1}, now=NOON, rerouted=("0",))
    assert refused == {"0": 2, "1": 1}
    assert [(each.rerouted_quantity, each.refunded_quantity) for each in answered.lines] == [(2, 0), (0, 1)]
    late, _ = suppliers.refuse(asked(3, 2), SupplierEvent.TIME_OUT, now=NOON, rerouted=("0", "1"))
    assert [(each.rerouted_quantity, each.open_quantity, each.held_quantity) for each in late.lines] == [
        (3, 0, 0),
        (2, 0, 0),
    ]


def test_a_refund_takes_what_is_not_shipped_from_who_was_asked_last() -> None:
    # by their ids the other way round: a clock may be behind
    first, _ = suppliers.accept(asked(5, number=9), {"0": 3}, now=NOON, rerouted=("0",))
    first = suppliers.ship(first, {"0": 2}, now=NOON)
    second = asked(2, supplier="butcher", number=2, replaces="s9")
    theirs = (first, second)
    steps = []
    for units in (1, 2, 1, 1):
        theirs = suppliers.give_back_all(theirs, {0: units})
        steps.append([(each.lines[0].refunded_quantity, each.lines[0].returned_quantity) for each in theirs])
    # the butcher's two, the florist's open one, and then the parcel comes back
    assert steps == [[(0, 0), (1, 0)], [(1, 0), (2, 0)], [(1, 1), (2, 0)], [(1, 2), (2, 0)]]
    assert [each.state for each in theirs] == [STATE.SHIPPED, STATE.CANCELLED]
    assert suppliers.holdings(theirs, 0) == (("florist", 0), ("butcher", 0))


def test_a_share_follows_its_units() -> None:
    # three units of 334, 333 and 333: the florist keeps the first, the butcher gets the others
    order = sold([priced("0", 1000, quantity=3, supplier="florist")], payments=(600, 400))
    sale = sale_entries(order, RULES)
    line = order.lines[0]
    moved = moved_entries(
        sale,
        line,
        before=(0, (("florist", 3),)),
        after=(0, (("florist", 1), ("butcher", 2))),  # type: ignore[arg-type]
    )
    assert [(entry.party_id, entry.amount_minor, entry.tenders_minor) for entry in moved] == [
        ("florist", -483, (-290, -193)),
        ("butcher", 483, (290, 193)),
    ]


class Trade:
    """One order with all that may happen to it, and the ledger of its shares."""

    def __init__(self, order: Order, chance: Random) -> None:
        self.order = order
        self.chance = chance
        self.sale = sale_entries(order, RULES)
        self.theirs: tuple[SupplierOrder, ...] = ()
        self.kept: Counter[tuple[int, PartyKind, str, int]] = Counter()
        self.made = 0
        self._post(self.sale)
        self._ask("florist", "", suppliers.lines_by_supplier(order.lines)[SupplierId("florist")])

    def _ask(self, supplier: str, replaces: str, lines: Sequence[suppliers.SupplierLine]) -> None:
        self.made += 1
        pending = SupplierOrder(
            # ids tell nothing about who was asked first
            supplier_order_id=SupplierOrderId(f"{self.chance.randrange(10**9)}-{self.made}"),
            order_id=self.order.order_id,
            supplier_id=SupplierId(supplier),
            state=STATE.PENDING,
            version=1,
            lines=tuple(lines),
            replaces=SupplierOrderId(replaces),
        )
        self.theirs = (*self.theirs, suppliers.request(pending, now=NOON, accept_within_s=3600))

    def _post(self, entries: Sequence[SplitEntry]) -> None:
        for entry in entries:
            assert entry.tenders_minor is not None
            for payment, part in enumerate(entry.tenders_minor):
                self.kept[entry.line_no, entry.party, entry.party_id, payment] += part

    def _units(self, most: int) -> int:
        return self.chance.choice((0, 1, most // 2, most)) if most else 0

    def answer(self) -> None:
        open_now = [each for each in self.theirs if each.state is STATE.REQUESTED]
        if not open_now:
            return
        order = self.chance.choice(open_now)
        how = self.chance.choice(("accept", "reject", "time out"))
        # 0 of every line is a rejection, and {} would be everything
        units = {line.line_id: min(self._units(line.open_quantity), line.open_quantity) for line in order.lines}
        listed = {line.sku: [source("florist"), source("butcher"), source("grower")] for line in order.lines}
        listed = {sku: of for sku, of in listed.items() if self.chance.random() < 0.8}

        def answered(rerouted: Sequence[str]) -> tuple[SupplierOrder, dict[str, int]]:
            if how == "accept":
                return suppliers.accept(order, units, now=NOON, rerouted=rerouted)
            event = SupplierEvent.REJECT if how == "reject" else SupplierEvent.TIME_OUT
            return suppliers.refuse(order, event, now=NOON, rerouted=rerouted)

        _, refused = answered(())
        routes = sourcing.next_sources(order, refused, listed, theirs=self.theirs)
        after, refused = answered(list(routes))
        before = self.theirs
        self.theirs = tuple(after if each is order else each for each in self.theirs)
        for supplier, lines in sourcing.lines_by_source(order, refused, routes).items():
            self._ask(supplier, order.supplier_order_id, lines)
        lost = {line_id: count for line_id, count in refused.items() if line_id not in routes}
        if lost:
            self._refund(lost, before)
        for line in self.order.lines:
            if line.line_id in routes:
                self._post(
                    moved_entries(
                        self.sale,
                        line,
                        before=(line.refunded_quantity, suppliers.holdings(before, line.line_no)),
                        after=(line.refunded_quantity, suppliers.holdings(self.theirs, line.line_no)),
                    )
                )

    def ship(self) -> None:
        accepted = [each for each in self.theirs if each.state in OPEN_STATES - {STATE.PENDING, STATE.REQUESTED}]
        if accepted:
            order = self.chance.choice(accepted)
            units = {line.line_id: self._units(line.open_quantity) for line in order.lines}
            if any(units.values()):
                after = suppliers.ship(order, units, now=NOON + timedelta(hours=1))
                self.theirs = tuple(after if each is order else each for each in self.theirs)

    def refund(self) -> None:
        left = {line.line_id: line.quantity - line.refunded_quantity for line in self.order.lines}
        chosen = {line_id: self.chance.choice((1, -(-count // 2), count)) for line_id, count in left.items() if count}
        wanted = dict(self.chance.sample(sorted(chosen.items()), self.chance.randint(0, len(chosen))))
        self._give_back(wanted)

    def refund_rest(self) -> None:
        left = {line.line_id: line.quantity - line.refunded_quantity for line in self.order.lines}
        self._give_back({line_id: count for line_id, count in left.items() if count})

    def _give_back(self, units: dict[str, int]) -> None:
        if units:
            before = self.theirs
            numbers = {line.line_id: line.line_no for line in self.order.lines}
            self.theirs = suppliers.give_back_all(before, {numbers[each]: count for each, count in units.items()})
            self._refund(units, before)

    def _refund(self, units: dict[str, int], before: Sequence[SupplierOrder]) -> None:
        asked_for = [UnitsToRefund(line_id=line_id, quantity=count) for line_id, count in units.items()]
        made, after = refund(self.order, asked_for, refund_id=RefundId("r"), reason="", occurred_at=NOON)
        for taken in made.lines:
            self._post(
                refund_entries(
                    self.sale,
                    self.order.lines[taken.line_no],
                    taken,
                    before=suppliers.holdings(before, taken.line_no),
                    after=suppliers.holdings(self.theirs, taken.line_no),
                )
            )
        self.order = after

    def check(self) -> None:
        for line in self.order.lines:
            rows = [
                (each.supplier_id, row) for each in self.theirs for row in each.lines if row.line_no == line.line_no
            ]
            # ordered is asked for, once; refunded is refused or returned; nobody is asked twice
            assert sum(row.quantity - row.rerouted_quantity for _, row in rows) == line.quantity
            assert sum(row.refunded_quantity + row.returned_quantity for _, row in rows) == line.refunded_quantity
            assert len({supplier for supplier, _ in rows}) == len(rows)
            mine = {key: part for key, part in self.kept.items() if key[0] == line.line_no}
            assert sum(mine.values()) == 0
            parties = Counter[tuple[PartyKind, str]]()
            for (_, party, party_id, _), part in mine.items():
                parties[party, party_id] += part
            assert parties[PartyKind.CUSTOMER, ""] == line.refunded_minor - line.net_minor
            for supplier, row in rows:
                share = parties[PartyKind.SUPPLIER, supplier]
                assert share >= 0
                assert share == 0 or row.held_quantity > 0
        for payment, paid in enumerate(self.order.payments):
            parts = [
                part
                for (_, party, _, at), part in self.kept.items()
                if at == payment and party is not PartyKind.CUSTOMER
            ]
            assert sum(parts) == paid.amount_minor - paid.refunded_minor


@settings(max_examples=80)
@given(order=paid_orders(supplier="florist"), chance=st.randoms(use_true_random=False))
def test_whatever_is_answered_shipped_and_refunded_units_and_shares_sum(order: Order, chance: Random) -> None:
    trade = Trade(replace(order, guide_id=""), chance)
    trade.check()
    for _ in range(14):
        chance.choice((trade.answer, trade.answer, trade.ship, trade.refund))()
        trade.check()
    trade.refund_rest()
    trade.check()
    assert set(trade.kept.values()) <= {0}
