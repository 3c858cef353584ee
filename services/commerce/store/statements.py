"""Closed statements, their lines and payouts. A party's account is locked by whoever closes its next statement."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.commerce.domain.splits import PartyKind
from services.commerce.domain.statements import Account, ClosedStatement, Closing, Lines, PayoutState
from services.commerce.store.bounds import LAST_NUMBER
from services.commerce.store.settlement import FIRST, StatementEntry, StatementMark, entry_of
from services.runtime.database import Connection, raw

_KNOWN = """
    SELECT EXISTS (
        SELECT 1 FROM settlement_entries AS e
        WHERE e.tenant_id = $1::uuid AND e.party_kind = $2 AND e.party_id = $3 AND e.party_kind <> 0
    )
"""
_OPEN_ACCOUNT = """
    INSERT INTO settlement_accounts (tenant_id, party_kind, party_id, statement_no, carried_minor)
    VALUES ($1::uuid, $2, $3, 0, 0)
    ON CONFLICT (tenant_id, party_kind, party_id) DO NOTHING
"""
_LOCK_ACCOUNT = """
    SELECT a.statement_no, a.closed_to_day, a.carried_minor
    FROM settlement_accounts AS a
    WHERE a.tenant_id = $1::uuid AND a.party_kind = $2 AND a.party_id = $3
    FOR NO KEY UPDATE
"""
# due: what is on no statement and happened in time, of closed orders (5) whose return window was over in time, and of
# which no supplier refused anything later (`closes_at` lies after that);
# claw-back: a refund of a line that an earlier statement holds
_TAKE_LINES = """
    WITH due AS (
        SELECT e.order_id, e.refund_no, e.line_no, e.entry_no, e.amount_minor,
               e.refund_no > 0 AND EXISTS (
                   SELECT 1
                   FROM statement_lines AS p
                   JOIN settlement_entries AS s
                     ON s.tenant_id = p.tenant_id AND s.order_id = p.order_id AND s.refund_no = p.refund_no
                    AND s.line_no = p.line_no AND s.entry_no = p.entry_no
                   WHERE p.tenant_id = e.tenant_id AND p.order_id = e.order_id AND p.line_no = e.line_no
                     AND p.refund_no <= 0 AND s.party_kind = e.party_kind AND s.party_id = e.party_id
               ) AS claw_back
        FROM settlement_entries AS e
        JOIN orders AS o ON o.tenant_id = e.tenant_id AND o.order_id = e.order_id
        WHERE e.tenant_id = $1::uuid AND e.party_kind = $2 AND e.party_id = $3 AND e.party_kind <> 0
          AND e.occurred_at < $5 AND o.state = 5 AND o.closes_at <= $5
          AND NOT EXISTS (
              SELECT 1 FROM statement_lines AS t
              WHERE t.tenant_id = e.tenant_id AND t.order_id = e.order_id AND t.refund_no = e.refund_no
                AND t.line_no = e.line_no AND t.entry_no = e.entry_no
          )
    ), taken AS (
        INSERT INTO statement_lines (tenant_id, order_id, refund_no, line_no, entry_no, statement_id, claw_back)
        SELECT $1::uuid, d.order_id, d.refund_no, d.line_no, d.entry_no, $4::uuid, d.claw_back FROM due AS d
    )
    SELECT count(*) AS lines, coalesce(sum(d.amount_minor) FILTER (WHERE NOT d.claw_back), 0)::bigint AS earned_minor,
           coalesce(-sum(d.amount_minor) FILTER (WHERE d.claw_back), 0)::bigint AS clawed_back_minor
    FROM due AS d
"""
_INSERT = """
    INSERT INTO statements (tenant_id, statement_id, party_kind, party_id, statement_no, from_day, to_day,
                            carried_in_minor, earned_minor, clawed_back_minor, payable_minor, carried_out_minor,
                            line_count, currency_code, closed_at, closed_by)
    VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
"""
_MOVE_ACCOUNT = """
    UPDATE settlement_accounts
    SET statement_no = $4, closed_to_day = $5, carried_minor = $6
    WHERE tenant_id = $1::uuid AND party_kind = $2 AND party_id = $3
"""
_COLUMNS = """
    s.statement_id::text, s.party_kind, s.party_id, s.statement_no, s.from_day, s.to_day, s.carried_in_minor,
    s.earned_minor, s.clawed_back_minor, s.payable_minor, s.line_count, s.currency_code, s.closed_at, s.closed_by,
    p.state AS payout_state, coalesce(p.reference, '') AS payout_reference
"""
_LAST_PAYOUT = """
    LEFT JOIN LATERAL (
        SELECT o.state, o.reference
        FROM payouts AS o
        WHERE o.tenant_id = s.tenant_id AND o.statement_id = s.statement_id
        ORDER BY o.payout_no DESC
        LIMIT 1
    ) AS p ON true
"""
_FIND = f"""
    SELECT {_COLUMNS}
    FROM statements AS s
    {_LAST_PAYOUT}
    WHERE s.tenant_id = $1::uuid AND s.statement_id = $2::uuid
"""
_OF_NUMBER = f"""
    SELECT {_COLUMNS}
    FROM statements AS s
    {_LAST_PAYOUT}
    WHERE s.tenant_id = $1::uuid AND s.party_kind = $2 AND s.party_id = $3 AND s.statement_no = $4
"""
_PAGE = f"""
    SELECT {_COLUMNS}
    FROM statements AS s
    {_LAST_PAYOUT}
    WHERE s.tenant_id = $1::uuid AND s.party_kind = $2 AND s.party_id = $3 AND s.statement_no < $4
    ORDER BY s.statement_no DESC
    LIMIT $5
"""
_LINES = """
    SELECT l.order_id::text, l.refund_no, l.line_no, l.entry_no, l.claw_back, e.line_id,
           coalesce(e.refund_id::text, '') AS refund_id, e.amount_minor, e.tenders_minor, e.rule_version,
           e.occurred_at,
           (SELECT array_agg(p.tender ORDER BY p.payment_no) FROM order_payments AS p
            WHERE p.tenant_id = e.tenant_id AND p.order_id = e.order_id) AS tenders
    FROM statement_lines AS l
    JOIN settlement_entries AS e
      ON e.tenant_id = l.tenant_id AND e.order_id = l.order_id AND e.refund_no = l.refund_no AND e.line_no = l.line_no
     AND e.entry_no = l.entry_no
    WHERE l.tenant_id = $1::uuid AND l.statement_id = $2::uuid
      AND (l.order_id, l.refund_no, l.line_no, l.entry_no) > ($3::uuid, $4, $5, $6)
    ORDER BY l.order_id, l.refund_no, l.line_no, l.entry_no
    LIMIT $7
"""
# the account is locked: two who tell of one payout at once take turns
_LOCK_OF_STATEMENT = """
    SELECT 1
    FROM settlement_accounts AS a
    JOIN statements AS s ON s.tenant_id = a.tenant_id AND s.party_kind = a.party_kind AND s.party_id = a.party_id
    WHERE s.tenant_id = $1::uuid AND s.statement_id = $2::uuid
    FOR NO KEY UPDATE OF a
"""
_TELL = """
    INSERT INTO payouts (tenant_id, statement_id, payout_no, state, reference, told_by, occurred_at)
    SELECT $1::uuid, $2::uuid, count(*) + 1, $3, $4, $5, $6
    FROM payouts AS p
    WHERE p.tenant_id = $1::uuid AND p.statement_id = $2::uuid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementLine:
    """An entry on a closed statement; a claw-back takes back what an earlier one paid."""

    entry: StatementEntry
    claw_back: bool


async def has_entries(connection: Connection, tenant_id: str, *, party: PartyKind, party_id: str) -> bool:
    """Whether the party ever had a share of anything."""
    found: bool = await raw(connection).fetchval(_KNOWN, tenant_id, party, party_id)
    return found


async def lock_account(connection: Connection, tenant_id: str, *, party: PartyKind, party_id: str) -> Account:
    """The party's account, locked; it is opened where there is none."""
    await raw(connection).execute(_OPEN_ACCOUNT, tenant_id, party, party_id)
    row = await raw(connection).fetchrow(_LOCK_ACCOUNT, tenant_id, party, party_id)
    return Account(
        statement_no=row["statement_no"], closed_to_day=row["closed_to_day"], carried_minor=row["carried_minor"]
    )


async def take_lines(connection: Connection, tenant_id: str, closing: Closing, *, until: datetime) -> Lines:
    """Puts on the statement what is due by `until`, and answers the sums; the account is locked."""
    row = await raw(connection).fetchrow(
        _TAKE_LINES, tenant_id, closing.party, closing.party_id, closing.statement_id, until
    )
    return Lines(count=row["lines"], earned_minor=row["earned_minor"], clawed_back_minor=row["clawed_back_minor"])


async def insert(connection: Connection, tenant_id: str, statement: ClosedStatement, after: Account) -> None:
    """Writes a statement, and the locked account after it."""
    await raw(connection).execute(
        _INSERT,
        tenant_id,
        statement.statement_id,
        statement.party,
        statement.party_id,
        statement.statement_no,
        statement.from_day,
        statement.to_day,
        statement.carried_in_minor,
        statement.lines.earned_minor,
        statement.lines.clawed_back_minor,
        statement.payable_minor,
        statement.carried_out_minor,
        statement.lines.count,
        statement.currency_code,
        statement.closed_at,
        statement.closed_by,
    )
    await raw(connection).execute(
        _MOVE_ACCOUNT,
        tenant_id,
        statement.party,
        statement.party_id,
        after.statement_no,
        after.closed_to_day,
        after.carried_minor,
    )


async def find(connection: Connection, tenant_id: str, statement_id: str) -> ClosedStatement | None:
    """One statement; None if there is none."""
    row = await raw(connection).fetchrow(_FIND, tenant_id, statement_id)
    return None if row is None else _statement(row)


async def of_number(
    connection: Connection, tenant_id: str, *, party: PartyKind, party_id: str, statement_no: int
) -> ClosedStatement:
    """A party's statement that is known to be there."""
    return _statement(await raw(connection).fetchrow(_OF_NUMBER, tenant_id, party, party_id, statement_no))


async def page(
    connection: Connection, tenant_id: str, *, party: PartyKind, party_id: str, before: int, limit: int
) -> tuple[ClosedStatement, ...]:
    """A party's statements, newest first, below a number; 0: from the newest."""
    rows = await raw(connection).fetch(_PAGE, tenant_id, party, party_id, before or LAST_NUMBER, limit)
    return tuple(_statement(row) for row in rows)


async def lines(
    connection: Connection, tenant_id: str, statement_id: str, *, after: StatementMark | None, limit: int
) -> tuple[StatementLine, ...]:
    """A statement's lines, in the order of orders."""
    mark = after or FIRST
    rows = await raw(connection).fetch(
        _LINES,
        tenant_id,
        statement_id,
        mark.order_id,
        mark.refund_no,
        mark.line_no,
        mark.entry_no,
        limit,
    )
    return tuple(StatementLine(entry=entry_of(row), claw_back=row["claw_back"]) for row in rows)


async def lock_of_statement(connection: Connection, tenant_id: str, statement_id: str) -> None:
    """Locks the account of the statement's party."""
    await raw(connection).execute(_LOCK_OF_STATEMENT, tenant_id, statement_id)


async def tell(
    connection: Connection,
    tenant_id: str,
    statement: ClosedStatement,
    *,
    told_by: str,
    occurred_at: datetime,
) -> None:
    """Writes what was told of the payout of a statement whose account is locked."""
    await raw(connection).execute(
        _TELL,
        tenant_id,
        statement.statement_id,
        statement.payout,
        statement.payout_reference,
        told_by,
        occurred_at,
    )


def _statement(row: Any) -> ClosedStatement:
    unpaid = PayoutState.DUE if row["payable_minor"] else PayoutState.NOTHING
    return ClosedStatement(
        statement_id=row["statement_id"],
        party=PartyKind(row["party_kind"]),
        party_id=row["party_id"],
        statement_no=row["statement_no"],
        from_day=row["from_day"],
        to_day=row["to_day"],
        carried_in_minor=row["carried_in_minor"],
        lines=Lines(
            count=row["line_count"],
            earned_minor=row["earned_minor"],
            clawed_back_minor=row["clawed_back_minor"],
        ),
        currency_code=row["currency_code"],
        closed_at=row["closed_at"],
        closed_by=row["closed_by"],
        payout=unpaid if row["payout_state"] is None else PayoutState(row["payout_state"]),
        payout_reference=row["payout_reference"],
    )
