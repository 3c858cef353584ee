"""StatementService."""

from dataclasses import dataclass
from typing import Final

from services.commerce.convert import statements as convert
from services.commerce.domain.splits import PartyKind
from services.commerce.domain.statements import PayoutState
from services.commerce.servicer.marks import MAX_NUMBER, number_of
from services.commerce.servicer.suppliers import mark_of, token_of
from services.commerce.usecases import closing
from services.commerce.usecases.settling import day_of
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.errors import Invalid
from services.runtime.pages import key_of, token_after
from siyu.commerce.v1 import statement_pb2

SERVICE = statement_pb2.DESCRIPTOR.services_by_name["StatementService"]
DEFAULT_STATEMENTS: Final = 20
DEFAULT_LINES: Final = 100
_STATEMENTS = rule_of(SERVICE.methods_by_name["CloseStatement"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementServicer:
    """Serves StatementService."""

    shop: Shop

    async def close_statement(
        self, request: statement_pb2.CloseStatementRequest, call: Call
    ) -> statement_pb2.CloseStatementResponse:
        """Closes a party's statement, once."""
        to_day = day_of(request.to_day, field="to_day")
        if to_day is None:
            raise Invalid("a statement has a last day", field="to_day")
        once = idempotency.once(
            call, family=_STATEMENTS, request=request, encode=convert.closed_reply, keep_refusals=True
        )
        reply = await closing.close(
            self.shop,
            call,
            party=PartyKind(request.party_kind),
            party_id=request.party_id,
            to_day=to_day,
            once=once,
        )
        return statement_pb2.CloseStatementResponse.FromString(reply)

    async def list_closed_statements(
        self, request: statement_pb2.ListClosedStatementsRequest, call: Call
    ) -> statement_pb2.ListClosedStatementsResponse:
        """A party's closed statements, newest first."""
        limit = request.page_size or DEFAULT_STATEMENTS
        key = key_of(request.page_token)
        found = await closing.page(
            self.shop,
            call,
            party=PartyKind(request.party_kind),
            party_id=request.party_id,
            before=number_of(key, most=MAX_NUMBER) if key else 0,
            limit=limit,
        )
        return statement_pb2.ListClosedStatementsResponse(
            statements=[convert.statement_message(statement) for statement in found],
            next_page_token=token_after(str(found[-1].statement_no)) if len(found) == limit else "",
        )

    async def list_statement_lines(
        self, request: statement_pb2.ListStatementLinesRequest, call: Call
    ) -> statement_pb2.ListStatementLinesResponse:
        """The lines of a closed statement."""
        limit = request.page_size or DEFAULT_LINES
        found = await closing.lines(
            self.shop, call, request.statement_id.lower(), after=mark_of(request.page_token), limit=limit
        )
        return statement_pb2.ListStatementLinesResponse(
            lines=[convert.line_message(line) for line in found],
            next_page_token=token_of(found[-1].entry.mark) if len(found) == limit else "",
        )

    async def record_payout(
        self, request: statement_pb2.RecordPayoutRequest, call: Call
    ) -> statement_pb2.RecordPayoutResponse:
        """Records that a payout was paid, or returned."""
        once = idempotency.once(
            call, family=_STATEMENTS, request=request, encode=convert.payout_reply, keep_refusals=True
        )
        reply = await closing.record_payout(
            self.shop,
            call,
            request.statement_id.lower(),
            PayoutState(request.payout_state),
            reference=request.reference,
            once=once,
        )
        return statement_pb2.RecordPayoutResponse.FromString(reply)
