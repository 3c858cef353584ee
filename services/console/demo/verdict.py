"""Holds Siyu's books against the files (coverage) and against the reference implementation (engine)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.console.demo import rules
from services.console.demo.books import BookedMember, BookedOrder, Books
from services.console.demo.intake import Coverage
from services.console.demo.plan import Plan

SHOWN = 5
"""So many differences of a check are printed; the rest are counted."""
Expected = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the verdict."""

    name: str
    examined: int
    detail: str
    wrong: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.wrong


def coverage_checks(
    coverage: Coverage, books: Books, *, whole_set_cents: int, window_cents: int, sales: int
) -> list[Check]:
    """No line is lost between the files and the books, and none was made up."""
    shelf = sum(order.shelf for order in books.orders.values())
    lines = sum(len(order.lines) for order in books.orders.values())
    return [
        _equal(
            "files: sales of the whole set",
            examined=1,
            told={"files": whole_set_cents, "known": rules.WHOLE_SET_SALES_CENTS},
            unit="cents",
        ),
        _equal(
            "files: shelf less recorded discounts = sales of the window",
            examined=coverage.accepted_lines + sum(coverage.rejected.values()),
            told={"lines": coverage.sales_cents, "files": window_cents},
            unit="cents",
            note=f"lines in which nothing was sold: {sum(coverage.rejected.values()):,}",
        ),
        _equal(
            "books: shelf price of all orders = accepted lines of the files",
            examined=lines,
            told={"books": shelf, "files": coverage.accepted_shelf_cents},
            unit="cents",
        ),
        _equal(
            "books: every accepted line is sold once",
            examined=lines,
            told={"books": lines, "files": coverage.accepted_lines},
        ),
        _equal(
            "books: every basket is one order",
            examined=len(books.orders),
            told={"books": len(books.orders) + books.sold_twice, "files": sales},
        ),
    ]


def engine_checks(books: Books, expected: Expected, plan: Plan) -> list[Check]:
    """To the cent and the point, what Siyu did is what the reference implementation did."""
    orders = expected["orders"]
    pairs = [(number, books.orders.get(int(number)), wanted) for number, wanted in orders.items()]
    sold_online = [pair for pair in pairs if int(pair[0]) not in plan.offline]
    members = [
        (number, books.members.get(int(number)), wanted)
        for number, wanted in expected["customers"].items()
        if int(number) not in books.own_households
    ]
    checks = [
        _compared("charged per order: shelf, net, refunded", pairs, _charged),
        _compared("the lines of each order: shelf, net, by points, points, units back", pairs, _lines),
        _compared("discounted by source, on-line orders", sold_online, _discounted),
        _compared("coupons used, per order and template", pairs, _coupons),
        # an upload's quotes don't wait for each other, and a tier may rise between two of them
        _compared(
            "points quoted, on-line orders",
            sold_online,
            lambda order, wanted: _same(order.quoted, wanted["earned"]),
        ),
        _compared("points burnt per order", pairs, lambda order, wanted: _same(order.burnt, wanted["burnt"])),
        _compared("points per member: available, pending, debt", members, _balance),
        _compared("points per member: earned, burnt, given back, taken back, expired", members, _moved),
        _compared("tier per member", members, lambda member, wanted: _same(member.tier, wanted["tier"])),
    ]
    if not books.own_supplied:
        parties = [(party, books.parties.get(party), wanted) for party, wanted in expected["parties"].items()]
        checks.append(_compared("split per party: earned, reversed", parties, _split))
    return checks


def left_out(books: Books) -> str:
    """What the comparison leaves out, in a line; empty if nothing."""
    if not (books.own_sales or books.own_households):
        return ""
    words = [f"{_many(books.own_sales, 'sale')} of yours {'is' if books.own_sales == 1 else 'are'} not in the files"]
    if books.own_households:
        words.append(f"{_many(len(books.own_households), 'member')} with sales or points of yours")
    if books.own_supplied:
        words.append("the suppliers' split, which your sales are part of")
    return f"Left out of the comparison: {'; '.join(words)}."


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _split(sums: tuple[int, int], wanted: Expected) -> str:
    return _same(list(sums), [wanted.get("earned", 0), wanted.get("reversed", 0)])


def _charged(order: BookedOrder, wanted: Expected) -> str:
    return _same([order.shelf, order.net, order.refunded], [wanted["shelf"], wanted["net"], wanted["refunded"]])


def _lines(order: BookedOrder, wanted: Expected) -> str:
    told = {number: list(figures) for number, figures in order.lines.items()}
    differing = sorted(
        number for number in {*told, *wanted["lines"]} if told.get(number) != wanted["lines"].get(number)
    )
    return "; ".join(f"line {number}: {told.get(number)} for {wanted['lines'].get(number)}" for number in differing[:2])


def _discounted(order: BookedOrder, wanted: Expected) -> str:
    sources = {
        "LINE_PROMOTION": wanted["member_off"],
        "ORDER_PROMOTION": wanted["weekend_off"],
        "COUPON": wanted["coupon_off"],
    }
    return _same(order.by_source, {source: cents for source, cents in sources.items() if cents})


def _coupons(order: BookedOrder, wanted: Expected) -> str:
    by_template: dict[str, int] = {}
    for code, cents in wanted["coupons"].items():
        campaign, upc, _, _ = code.split("-")
        by_template[f"c{campaign}-{upc}"] = by_template.get(f"c{campaign}-{upc}", 0) + cents
    return _same(order.coupons, by_template)


def _balance(member: BookedMember, wanted: Expected) -> str:
    return _same(
        [member.available, member.pending, member.debt, member.held],
        [wanted["available"], wanted["pending"], wanted["debt"], 0],
    )


def _moved(member: BookedMember, wanted: Expected) -> str:
    kinds = member.by_kind
    told = [
        kinds.get("EARN", 0),
        -kinds.get("BURN", 0),
        kinds.get("GIVE_BACK", 0),
        -kinds.get("TAKE_BACK", 0),
        member.taken_back,
        -kinds.get("EXPIRE", 0),
    ]
    return _same(
        told,
        [
            wanted["earned"],
            wanted["burnt"],
            wanted["given_back"],
            # what could not be taken is owed, and stands in an entry of its own
            wanted["taken_back"] - wanted["owed"],
            wanted["taken_back"],
            wanted["expired"],
        ],
    )


def _same(told: object, wanted: object) -> str:
    return "" if told == wanted else f"{told} for {wanted}"


def _equal(name: str, *, examined: int, told: Mapping[str, int], unit: str = "", note: str = "") -> Check:
    figures = ", ".join(f"{who} {value:,}" for who, value in told.items()) + (f" {unit}" if unit else "")
    wrong = () if len(set(told.values())) == 1 else (figures,)
    return Check(name=name, examined=examined, detail=f"{figures}{f'; {note}' if note else ''}", wrong=wrong)


def _compared(name: str, pairs: Iterable[tuple[str, Any, Expected]], difference: Any) -> Check:
    examined = 0
    wrong: list[str] = []
    for key, told, wanted in pairs:
        examined += 1
        why = "not in the books" if told is None else difference(told, wanted)
        if why:
            wrong.append(f"{key}: {why}")
    detail = "; ".join(wrong[:SHOWN])
    if len(wrong) > SHOWN:
        detail += f"; and {len(wrong) - SHOWN:,} more"
    return Check(name=name, examined=examined, detail=detail, wrong=tuple(wrong))
