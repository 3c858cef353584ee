"""Days and page tokens that nobody was given: refused by name, never an internal error."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.runtime.errors import DomainError, Invalid
from services.runtime.ids import new_id
from services.runtime.pages import token_after
from siyu.commerce.v1 import catalogue_pb2, order_pb2, statement_pb2, supplier_pb2
from tests.store.commerce.conftest import Brand

SUPPLIER = supplier_pb2.PARTY_KIND_SUPPLIER
UUID = new_id()
BIG = "9" * 25
NUMBERS = ("²", "١", "1_0", " 1", "+1", "-1", "2147483648", "9223372036854775808", BIG, "9" * 300)
TIMES = ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-01-01T00:00:00", "2026", "")
NOW = "2026-01-01T00:00:00+00:00"


@pytest_asyncio.fixture
async def asked(brand: Brand) -> AsyncIterator[Brand]:
    yield brand
    await brand.audited()


async def refused(awaited: object) -> list[str]:
    """The fields that were refused; none if the call was answered. Anything else is a bug."""
    try:
        await awaited  # type: ignore[misc]
    except Invalid as refusal:
        return [field for field, _ in refusal.violations]
    except DomainError as refusal:
        return [refusal.reason]
    return []


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "0000-00-00", "2026-02-30"])
async def test_days_of_statements(asked: Brand, day: str) -> None:
    for field in ("from_day", "to_day"):
        request = supplier_pb2.GetStatementRequest(party_kind=SUPPLIER, party_id="florist", **{field: day})
        assert await refused(asked.settlement.get_statement(request, asked.office())) == [field]
    closing = statement_pb2.CloseStatementRequest(
        request_id=new_id(), party_kind=SUPPLIER, party_id="florist", to_day=day
    )
    assert await refused(asked.statements.close_statement(closing, asked.office())) == ["to_day"]


async def test_the_first_and_last_days_that_there_are(asked: Brand) -> None:
    request = supplier_pb2.GetStatementRequest(
        party_kind=SUPPLIER, party_id="florist", from_day="0002-01-01", to_day="9998-12-31"
    )
    assert await refused(asked.settlement.get_statement(request, asked.office())) == []


@pytest.mark.parametrize("number", NUMBERS)
async def test_numbers_in_tokens(asked: Brand, number: str) -> None:
    token, office = token_after(number), asked.office()
    lines = catalogue_pb2.ListStockLinesRequest(store_id="S1", sku="TEA", page_token=token)
    closed = statement_pb2.ListClosedStatementsRequest(party_kind=SUPPLIER, party_id="florist", page_token=token)
    fits = number == "2147483648"
    expected = [] if fits else ["page_token"]
    assert await refused(asked.stock.list_stock_lines(lines, office)) == expected
    assert await refused(asked.statements.list_closed_statements(closed, office)) == expected


@pytest.mark.parametrize("number", [*NUMBERS, "32768"])
async def test_numbers_in_tokens_of_entries(asked: Brand, number: str) -> None:
    for at in range(3):
        numbers = ["1", "1", "1"]
        numbers[at] = number
        request = supplier_pb2.GetStatementRequest(
            party_kind=SUPPLIER, party_id="florist", page_token=token_after(" ".join((NOW, UUID, *numbers)))
        )
        # refunds are counted beyond a line's numbers, and below zero where units went to another supplier
        fits = at == 0 and number in {"32768", "-1"}
        assert await refused(asked.settlement.get_statement(request, asked.office())) == (
            [] if fits else ["page_token"]
        )


@pytest.mark.parametrize("at", TIMES)
async def test_times_in_tokens(asked: Brand, at: str) -> None:
    orders = order_pb2.ListOrdersRequest(page_token=token_after(f"{at} {UUID}"))
    assert await refused(asked.orders.list_orders(orders, asked.office())) == ["page_token"]
    entries = supplier_pb2.GetStatementRequest(
        party_kind=SUPPLIER, party_id="florist", page_token=token_after(f"{at} {UUID} 1 1 1")
    )
    assert await refused(asked.settlement.get_statement(entries, asked.office())) == ["page_token"]
    lines = statement_pb2.ListStatementLinesRequest(statement_id=new_id(), page_token=token_after(f"{at} {UUID} 1 1 1"))
    assert await refused(asked.statements.list_statement_lines(lines, asked.office())) == ["page_token"]
