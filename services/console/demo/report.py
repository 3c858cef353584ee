"""The report that a person reads: what was sold, earned, burnt, redeemed, refunded and shipped, and how fast.

All figures but the speed come from Siyu's books (`books.py`), and not from what the replay believes to have done.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.console.demo import rules
from services.console.demo.books import Books
from services.console.demo.calls import Latency
from services.console.demo.plan import NO_QUALIFYING_PRODUCT, NO_SALE_THAT_DAY, TILL_OFFLINE, Plan
from services.console.demo.replay import Result
from services.console.demo.verdict import Check, Expected, left_out

Row = tuple[str, str]
ANSWERS = {
    "accept": "accepted",
    "late": f"accepted and shipped {rules.SUPPLIER_LATE_DAYS} days late",
    "part": "accepted in part",
    "reject": "rejected",
}
ANSWERS_THAT_REFUND = ("part", "reject")
EXPECTED_EXCEPTIONS = {
    "PRICE_DIFFERS": "expected: an off-line till charges by its own copy of the member prices, or by none; what the "
    "customer paid stands",
    "STOCK_SHORTFALL": "expected: some receipts of goods are left unbooked, and an off-line sale found fewer than it "
    "sold; the sale stands",
}
UNMATCHED = {
    NO_QUALIFYING_PRODUCT: "without one of the coupon's products in the basket",
    TILL_OFFLINE: "at an off-line till",
    NO_SALE_THAT_DAY: "without a sale on the day",
}


def show_report(
    books: Books, plan: Plan, result: Result, expected: Expected, *, latencies: Sequence[Latency], console: Console
) -> None:
    """Prints the report."""
    console.rule(f"{rules.BRAND_NAME}: {plan.first_day} to {plan.last_day}, {weeks_told(plan.weeks)}")
    console.print(f"[dim]{escape(rules.SIMULATED)} Drawn from the seed {escape(plan.seed)!r}.[/dim]", soft_wrap=True)
    _pairs(console, "Sales", _sales(books, result))
    _pairs(console, "Members and points", _members(books))
    _pairs(console, "Coupons", _coupons(books, plan, expected))
    _pairs(console, "Refunds and off-line tills", _exceptions(books, result))
    _pairs(console, "Suppliers", _suppliers(books, result))
    _splits(console, books)
    if latencies:
        _speed(console, result, latencies)


def show_checks(checks: Sequence[Check], books: Books, *, console: Console) -> None:
    """Prints the checks; what differs, with its first examples; and what is not compared."""
    table = Table(title="Coverage and engine", title_justify="left")
    for column in ("check", "compared", "", "detail"):
        table.add_column(column, justify="right" if column == "compared" else "left", overflow="fold")
    for check in checks:
        mark = "[green]✓[/green]" if check.ok else "[bold red]✗[/bold red]"
        table.add_row(escape(check.name), f"{check.examined:,}", mark, escape(check.detail))
    console.print(table)
    if left_out(books):
        console.print(left_out(books), soft_wrap=True)


def _sales(books: Books, result: Result) -> list[Row]:
    orders = books.orders.values()
    off: Counter[str] = Counter()
    for order in orders:
        off.update(order.by_source)
    coverage = result.coverage
    return [
        ("sales", f"{len(books.orders):,} with {sum(len(order.lines) for order in orders):,} lines"),
        ("shelf price", _money(sum(order.shelf for order in orders))),
        ("member prices", _money(-off["LINE_PROMOTION"])),
        ("weekend offer", _money(-off["ORDER_PROMOTION"])),
        ("coupons", _money(-off["COUPON"])),
        ("given by off-line tills", _money(-sum(off.values()) + _known(off))),
        ("charged", _money(sum(order.net for order in orders))),
        ("of it with points", _money(sum(tender for order in orders for _, _, tender, _, _ in order.lines.values()))),
        (
            "the chain itself had charged",
            f"{_money(coverage.accepted_shelf_cents - coverage.accepted_discount_cents)}; its discounts differed from "
            "line to line, Siyu's member prices are one per product and week",
        ),
        ("left out", f"{sum(coverage.rejected.values()):,} lines of the files in which nothing was sold"),
        (
            "taken as they are",
            f"{coverage.fuel_lines:,} of fuel in 1/1000 gallon, {coverage.one_piece_lines:,} without a count as one "
            f"piece, {coverage.free_lines:,} given away",
        ),
        *_own_sales(books),
    ]


def _own_sales(books: Books) -> list[Row]:
    """What stands beside the figures of the files; nothing if nobody sold by hand."""
    if not books.own_sales:
        return []
    return [("sold by hand since", f"{books.own_sales:,}, charged {_money(books.own_net)}: not in the figures above")]


def _known(off: Counter[str]) -> int:
    return off["LINE_PROMOTION"] + off["ORDER_PROMOTION"] + off["COUPON"]


def _members(books: Books) -> list[Row]:
    members = books.members.values()
    kinds: Counter[str] = Counter()
    for member in members:
        kinds.update(member.by_kind)
    tiers = Counter(member.tier for member in members)
    welcome = sum(member.welcome for member in members)
    return [
        ("members", f"{len(books.members):,}"),
        ("tiers", ", ".join(f"{tiers[tier.tier_id]:,} {tier.tier_id}" for tier in rules.TIERS)),
        ("points of the welcome", f"{welcome:,}"),
        ("points earned", f"{kinds['EARN'] - welcome:,}"),
        ("burnt", _less(kinds["BURN"])),
        ("given back by refunds", f"{kinds['GIVE_BACK']:,}"),
        ("taken back by refunds", _less(-sum(member.taken_back for member in members))),
        ("expired", _less(kinds["EXPIRE"])),
        ("at the end", f"{sum(member.gained for member in members):,}"),
        ("of it available", f"{sum(member.available + member.held for member in members):,}"),
        ("of it pending", f"{sum(member.pending for member in members):,}"),
        ("of it owed", _less(-sum(member.debt for member in members))),
        *_own_members(books),
    ]


def _own_members(books: Books) -> list[Row]:
    """A member's points are of all its sales, by hand or not."""
    if not books.own_households:
        return []
    return [("with points by hand since", f"{len(books.own_households):,} of the members: in the figures above")]


def _coupons(books: Books, plan: Plan, expected: Expected) -> list[Row]:
    used = sum(len(order.coupons) for order in books.orders.values())
    shown = sum(len(codes) for codes in plan.coupon_uses.values())
    return [
        ("recorded redemptions", f"{shown + sum(plan.unmatched_redemptions.values()):,}"),
        ("shown at a till", f"{shown:,}"),
        ("not matched", _counted({UNMATCHED[why]: count for why, count in plan.unmatched_redemptions.items()})),
        ("took something off", f"{used:,} templates in {sum(bool(o.coupons) for o in books.orders.values()):,} sales"),
        ("came back with a whole refund", f"{expected['coupons'].get('returned', 0):,}"),
    ]


def _exceptions(books: Books, result: Result) -> list[Row]:
    refunded = [order.refunded for order in books.orders.values() if order.refunded]
    by_suppliers = sum(result.suppliers[answer] for answer in ANSWERS_THAT_REFUND)
    return [
        (
            "refunds",
            f"{result.refunds + by_suppliers:,}: {result.refunds:,} at a till, {by_suppliers:,} of what suppliers did "
            "not accept",
        ),
        ("sales that they were of", f"{len(refunded):,}, and {_money(sum(refunded))} in all"),
        ("off-line sales uploaded", f"{result.uploaded_twice:,} in {result.uploads:,} batches, each sent twice"),
        ("exceptions that they left", f"{result.exceptions.total():,}, for somebody to look at"),
        *(
            (f"  {reason}", f"{count:,}; {EXPECTED_EXCEPTIONS.get(reason, 'no part of the plan')}")
            for reason, count in sorted(result.exceptions.items())
        ),
    ]


def _suppliers(books: Books, result: Result) -> list[Row]:
    return [
        ("supplier orders", f"{sum(books.supplier_states.values()):,}"),
        ("answers", ", ".join(f"{result.suppliers[each]:,} {said}" for each, said in ANSWERS.items())),
        ("now", _counted(books.supplier_states)),
    ]


def _splits(console: Console, books: Books) -> None:
    sums: dict[str, Counter[str]] = {}
    for party, (earned, reversed_) in books.parties.items():
        kind = party.partition("/")[0]
        name = "all stores" if kind == "STORE" else party.partition("/")[2]
        sums.setdefault(name, Counter()).update({"earned": earned, "reversed": reversed_})
    table = Table(title="Who got what of the suppliers' goods", title_justify="left")
    for column in ("party", "earned", "reversed", "sum"):
        table.add_column(column, justify="left" if column == "party" else "right")
    for name, figures in sorted(sums.items()):
        rest = figures["earned"] - figures["reversed"]
        table.add_row(escape(name), *(_money(cents) for cents in (figures["earned"], figures["reversed"], rest)))
    console.print(table)
    if books.own_supplied:
        console.print("The suppliers' goods that were sold by hand since are in these sums.", soft_wrap=True)


def _speed(console: Console, result: Result, latencies: Sequence[Latency]) -> None:
    calls = sum(latency.calls for latency in latencies)
    console.print(
        f"{result.sales:,} sales and {calls:,} calls in {result.seconds:.1f} s: "
        f"{result.sales / result.seconds:,.0f} sales and {calls / result.seconds:,.0f} calls per second",
        soft_wrap=True,
    )
    table = Table()
    for column in ("call", "calls", "p50 ms", "p99 ms", "refused", "repeated"):
        table.add_column(column, justify="left" if column == "call" else "right")
    for each in latencies:
        table.add_row(
            each.rpc,
            f"{each.calls:,}",
            f"{each.p50_ms:.1f}",
            f"{each.p99_ms:.1f}",
            f"{each.refused:,}",
            f"{each.repeated:,}",
        )
    console.print(table)
    if result.phases_s:
        phases = [(name, f"{seconds:.1f} s") for name, seconds in result.phases_s.items()]
        _pairs(console, "Where the time went", phases)
    if result.cpu_s:
        per_sale = {name: 1000 * seconds / result.sales for name, seconds in result.cpu_s.items()}
        rows = [(name, f"{ms:.1f} ms") for name, ms in sorted(per_sale.items(), key=lambda pair: -pair[1]) if ms > 0]
        _pairs(console, f"CPU per sale: {sum(per_sale.values()):.1f} ms", rows)


def _pairs(console: Console, title: str, rows: Iterable[Row]) -> None:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("figure", overflow="fold")
    for name, figure in rows:
        table.add_row(escape(name), escape(figure))
    console.print(table)


def _less(number: int) -> str:
    return f"−{-number:,}" if number < 0 else f"{number:,}"


def weeks_told(weeks: Sequence[int]) -> str:
    """`week 1`, `weeks 1 to 53`, `weeks 3, 5`."""
    if len(weeks) == 1:
        return f"week {weeks[0]}"
    contiguous = list(weeks) == list(range(weeks[0], weeks[-1] + 1))
    return f"weeks {weeks[0]} to {weeks[-1]}" if contiguous else f"weeks {', '.join(map(str, weeks))}"


def _counted(counts: "Counter[str] | dict[str, int]") -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"


def _money(cents: int) -> str:
    sign = "−" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d} {rules.CURRENCY}"
