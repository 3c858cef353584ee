"""Closed statements and their lines."""

from services.commerce.convert.orders import stamp
from services.commerce.convert.suppliers import entry_message
from services.commerce.domain.statements import ClosedStatement
from services.commerce.store.statements import StatementLine
from siyu.commerce.v1 import statement_pb2, supplier_pb2


def statement_message(statement: ClosedStatement) -> statement_pb2.ClosedStatement:
    """A statement as it was closed, and where its payout stands."""
    return statement_pb2.ClosedStatement(
        statement_id=statement.statement_id,
        party_kind=supplier_pb2.PartyKind.ValueType(statement.party),
        party_id=statement.party_id,
        statement_no=statement.statement_no,
        from_day="" if statement.from_day is None else statement.from_day.isoformat(),
        to_day=statement.to_day.isoformat(),
        carried_in_minor=statement.carried_in_minor,
        earned_minor=statement.lines.earned_minor,
        clawed_back_minor=statement.lines.clawed_back_minor,
        payable_minor=statement.payable_minor,
        carried_out_minor=statement.carried_out_minor,
        line_count=statement.lines.count,
        currency_code=statement.currency_code,
        closed_at=stamp(statement.closed_at),
        closed_by=statement.closed_by,
        payout_state=statement_pb2.PayoutState.ValueType(statement.payout),
        payout_reference=statement.payout_reference,
    )


def line_message(line: StatementLine) -> statement_pb2.StatementLine:
    """A line of a statement."""
    return statement_pb2.StatementLine(entry=entry_message(line.entry), claw_back=line.claw_back)


def closed_reply(statement: ClosedStatement) -> bytes:
    """CloseStatement's stored reply."""
    return statement_pb2.CloseStatementResponse(statement=statement_message(statement)).SerializeToString()


def payout_reply(statement: ClosedStatement) -> bytes:
    """RecordPayout's stored reply."""
    return statement_pb2.RecordPayoutResponse(statement=statement_message(statement)).SerializeToString()
