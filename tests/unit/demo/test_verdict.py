"""The comparison is green for the reference's own books, and one cent, one point or one order turns it red."""

import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.console.demo.books import BookedMember, BookedOrder, Books, basket_of
from services.console.demo.calls import StopWatch, percentile
from services.console.demo.dataset import DataSet, Product
from services.console.demo.intake import Coverage
from services.console.demo.plan import Plan, make_plan
from services.console.demo.reference import expected_books
from services.console.demo.replay import Result
from services.console.demo.report import show_checks, show_report, weeks_told
from services.console.demo.verdict import Check, Expected, coverage_checks, engine_checks, left_out
from siyu.commerce.v1 import order_pb2

WEEK = 1


@pytest.fixture(scope="module")
def plan(data: DataSet) -> Plan:
    """The shortest week: the first day of the year."""
    return make_plan(data, weeks=(WEEK,), seed="test")


@pytest.fixture(scope="module")
def coverage(data: DataSet, products: dict[int, Product]) -> Coverage:
    """Its lines."""
    added = Coverage()
    added.add(data.baskets(WEEK), products)
    return added


@pytest.fixture(scope="module")
async def expected(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """What the reference says, by its own process."""
    folder: Path = tmp_path_factory.mktemp("reference")
    (folder / "plan.json").write_text(plan.text())
    return await expected_books(folder / "plan.json", folder / "expected.json")


@pytest.fixture
def books(expected: Expected) -> Books:
    """Books that agree with the reference."""
    return Books(
        orders={int(number): _order(wanted) for number, wanted in expected["orders"].items()},
        members={int(number): _member(wanted) for number, wanted in expected["customers"].items()},
        parties={
            party: (sums.get("earned", 0), sums.get("reversed", 0)) for party, sums in expected["parties"].items()
        },
    )


def _order(wanted: Expected) -> BookedOrder:
    sources = {"LINE_PROMOTION": "member_off", "ORDER_PROMOTION": "weekend_off", "COUPON": "coupon_off"}
    coupons: dict[str, int] = {}
    for code, cents in wanted["coupons"].items():
        template = "c" + "-".join(code.split("-")[:2])
        coupons[template] = coupons.get(template, 0) + cents
    return BookedOrder(
        shelf=wanted["shelf"],
        net=wanted["net"],
        refunded=wanted["refunded"],
        burnt=wanted["burnt"],
        quoted=wanted["earned"],
        by_source={source: wanted[name] for source, name in sources.items() if wanted[name]},
        coupons=coupons,
        lines={number: tuple(figures) for number, figures in wanted["lines"].items()},
    )


def _member(wanted: Expected) -> BookedMember:
    return BookedMember(
        available=wanted["available"],
        pending=wanted["pending"],
        held=0,
        debt=wanted["debt"],
        tier=wanted["tier"],
        by_kind={
            "EARN": wanted["earned"],
            "BURN": -wanted["burnt"],
            "GIVE_BACK": wanted["given_back"],
            "TAKE_BACK": wanted["owed"] - wanted["taken_back"],
            "REPAY": wanted["debt"] - wanted["owed"],
            "EXPIRE": -wanted["expired"],
        },
    )


@pytest.fixture
def judge(data: DataSet, plan: Plan, coverage: Coverage, expected: Expected) -> Callable[[Books], list[Check]]:
    """All checks of some books."""
    window_cents = data.sales_cents_of(plan.weeks)

    def checks(books: Books) -> list[Check]:
        covered = coverage_checks(
            coverage, books, whole_set_cents=data.sales_cents, window_cents=window_cents, sales=plan.sales
        )
        return [*covered, *engine_checks(books, expected, plan)]

    return checks


def test_equal_books_are_green(books: Books, judge: Callable[[Books], list[Check]]) -> None:
    checks = judge(books)
    assert [check.name for check in checks if not check.ok] == []
    assert all(check.examined for check in checks if "coupons" not in check.name)


def test_points_add_up(books: Books) -> None:
    for number, member in books.members.items():
        assert member.gained == member.pending + member.available - member.debt, number


def test_points_taken_back_count_what_is_owed_and_what_was_repaid() -> None:
    # 300 and 200 earned; 400 taken back after 300 were burnt: 200 there, 200 owed; then 50 earned and repaid
    kinds = {"EARN": 550, "BURN": -300, "TAKE_BACK": -200, "DEBT": 0, "REPAY": -50}
    member = BookedMember(available=0, pending=0, held=0, debt=150, tier="basic", by_kind=kinds)
    assert member.taken_back == 400
    assert member.gained == 550 - 300 - 400 == -member.debt


def test_what_a_person_sold_is_left_out_and_told(books: Books, judge: Callable[[Books], list[Check]]) -> None:
    assert left_out(books) == ""
    before = {check.name: check.examined for check in judge(books)}
    number, member = next(iter(books.members.items()))
    books.members[number] = replace(member, pending=member.pending + 29, tier="gold")
    books.own_sales = 1
    books.own_households.add(number)
    assert [check.name for check in judge(books) if not check.ok] == []
    fewer = {check.name for check in judge(books) if check.examined < before[check.name]}
    assert all("member" in name for name in fewer)
    assert len(fewer) == 3
    assert left_out(books) == (
        "Left out of the comparison: 1 sale of yours is not in the files; 1 member with sales or points of yours."
    )


def test_a_sale_of_suppliers_goods_leaves_their_split_out(books: Books, judge: Callable[[Books], list[Check]]) -> None:
    _one_share(books)
    books.own_sales, books.own_supplied = 2, True
    assert [check.name for check in judge(books) if not check.ok] == []
    assert "2 sales of yours are not in the files; the suppliers' split" in left_out(books)


@pytest.mark.parametrize(
    ("till", "number", "basket"),
    [
        pytest.param("store-7-2", "31198459905", 31198459905, id="a sale of the replay"),
        pytest.param("t1", "31198459905", None, id="its number at another till"),
        pytest.param("t1", "A-1", None, id="a number that is none"),
        pytest.param("", "", None, id="no till's sale at all"),
    ],
)
def test_a_sale_of_the_replay_is_known_by_its_number_and_till(till: str, number: str, basket: int | None) -> None:
    assert basket_of(order_pb2.Order(store_id="store-7", till_id=till, sale_number=number)) == basket


def _one_cent(books: Books) -> None:
    number, order = next(iter(books.orders.items()))
    books.orders[number] = replace(order, net=order.net - 1)


def _one_cent_between_lines(books: Books) -> None:
    number, order = next((number, order) for number, order in books.orders.items() if len(order.lines) > 1)
    moved = {line: list(figures) for line, figures in order.lines.items()}
    first, second = list(moved)[:2]
    moved[first][1] += 1
    moved[second][1] -= 1
    lines = {line: tuple(figures) for line, figures in moved.items()}
    books.orders[number] = replace(order, lines=lines)


def _one_point(books: Books) -> None:
    number, member = next(iter(books.members.items()))
    books.members[number] = replace(member, available=member.available + 1)


def _one_held_point(books: Books) -> None:
    number, member = next(iter(books.members.items()))
    books.members[number] = replace(member, held=1)


def _one_order(books: Books) -> None:
    del books.orders[next(iter(books.orders))]


def _one_order_twice(books: Books) -> None:
    books.sold_twice += 1


def _one_share(books: Books) -> None:
    party, (earned, reversed_) = next(iter(books.parties.items()))
    books.parties[party] = (earned + 1, reversed_)


def _one_tier(books: Books) -> None:
    number, member = next(iter(books.members.items()))
    books.members[number] = replace(member, tier="platinum")


@pytest.mark.parametrize(
    "harm",
    [
        _one_cent,
        _one_cent_between_lines,
        _one_point,
        _one_held_point,
        _one_order,
        _one_order_twice,
        _one_share,
        _one_tier,
    ],
    ids=lambda harm: harm.__name__.strip("_").replace("_", " "),
)
def test_one_difference_is_red(
    books: Books, judge: Callable[[Books], list[Check]], harm: Callable[[Books], None]
) -> None:
    harm(books)
    assert any(not check.ok for check in judge(books))


def test_the_report_is_readable_without_a_terminal(
    plan: Plan, coverage: Coverage, books: Books, expected: Expected, judge: Callable[[Books], list[Check]]
) -> None:
    written = StringIO()
    console = Console(file=written, width=120, color_system=None)
    result = Result(coverage=coverage, sales=plan.sales, seconds=2.0)
    watch = StopWatch()
    watch.durations_ms["Sell"].extend([1.0, 2.0, 30.0])
    show_report(books, plan, result, expected, latencies=watch.latencies(), console=console)
    show_checks(judge(books), books, console=console)
    text = written.getvalue()
    assert "simulated data, based on real shopping patterns" in text
    assert "30.0" in text
    assert "\x1b" not in text


def _reported(books: Books, plan: Plan, result: Result, expected: Expected) -> str:
    """The report in one line, without the lines of its tables."""
    written = StringIO()
    show_report(books, plan, result, expected, latencies=(), console=Console(file=written, width=200))
    return " ".join(re.sub("[│┃]", " ", written.getvalue()).split())


def test_the_report_tells_what_was_sold_by_hand(
    plan: Plan, coverage: Coverage, books: Books, expected: Expected
) -> None:
    result = Result(coverage=coverage, sales=plan.sales, seconds=2.0)
    assert "by hand" not in _reported(books, plan, result, expected)
    books.own_sales, books.own_net, books.own_supplied = 2, 1234, True
    books.own_households.update((1, 2, 3))
    told = _reported(books, plan, result, expected)
    assert "sold by hand since 2, charged 12.34 USD: not in the figures above" in told
    assert "with points by hand since 3 of the members: in the figures above" in told
    assert "The suppliers' goods that were sold by hand since are in these sums." in told


def test_the_report_says_which_exceptions_were_to_be_expected(
    plan: Plan, coverage: Coverage, books: Books, expected: Expected
) -> None:
    result = Result(coverage=coverage, sales=plan.sales, seconds=2.0)
    result.exceptions.update({"PRICE_DIFFERS": 12, "STOCK_SHORTFALL": 5, "COUPON_EXCESS": 1})
    told = _reported(books, plan, result, expected)
    assert "exceptions that they left 18, for somebody to look at" in told
    assert "PRICE_DIFFERS 12; expected: an off-line till charges by its own copy of the member prices" in told
    assert "STOCK_SHORTFALL 5; expected: some receipts of goods are left unbooked" in told
    assert "COUPON_EXCESS 1; no part of the plan" in told


def test_percentiles_are_nearest_ranks() -> None:
    watch = StopWatch()
    watch.durations_ms["Sell"].extend(float(number) for number in range(100))
    assert percentile(watch.durations_ms["Sell"], 0.5) == 50.0
    assert percentile(watch.durations_ms["Sell"], 0.99) == 99.0
    assert percentile(watch.durations_ms["Other"], 0.5) == 0.0


def test_a_result_is_the_same_after_it_was_kept(coverage: Coverage) -> None:
    result = Result(coverage=coverage, sales=3, seconds=1.5)
    result.exceptions["PRICE_DIFFERS"] += 2
    assert Result.of(result.text()) == result


@pytest.mark.parametrize(
    ("weeks", "told"),
    [
        pytest.param((1,), "week 1", id="one"),
        pytest.param((33, 34), "weeks 33 to 34", id="neighbours"),
        pytest.param((3, 5, 6), "weeks 3, 5, 6", id="a gap"),
    ],
)
def test_weeks_are_told_shortly(weeks: tuple[int, ...], told: str) -> None:
    assert weeks_told(weeks) == told
