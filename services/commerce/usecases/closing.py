"""Closing statements, and what became of their payouts."""

from dataclasses import replace
from datetime import date

from services.commerce.domain import statements as rules
from services.commerce.domain.refusals import UnknownParty, UnknownStatement
from services.commerce.domain.splits import PartyKind
from services.commerce.domain.statements import ClosedStatement, Closing, PayoutState
from services.commerce.store import statements
from services.commerce.store.settlement import StatementMark
from services.commerce.store.statements import StatementLine
from services.commerce.usecases.settling import check_own_party
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.clock import end_of_day
from services.runtime.database import Connection
from services.runtime.errors import NotAllowed
from services.runtime.idempotency import Once
from services.runtime.ids import new_id


async def close(
    shop: Shop, call: Call, *, party: PartyKind, party_id: str, to_day: date, once: Once[ClosedStatement]
) -> bytes:
    """Closes the party's statement up to the day, once; the day that was closed last is answered as it was closed.

    Raises NotAllowed for another supplier's or store's, UnknownParty, PeriodNotOver, PeriodClosed.
    """
    check_own_party(call, party, party_id)
    currency_code = await shop.currency_of(call)

    async def work(connection: Connection) -> ClosedStatement:
        if not await statements.has_entries(connection, call.tenant_id, party=party, party_id=party_id):
            raise UnknownParty(party_id)
        account = await statements.lock_account(connection, call.tenant_id, party=party, party_id=party_id)
        rules.check_period(account, to_day, now=call.now, time_zone=call.time_zone)
        if account.closed_to_day == to_day:
            return await statements.of_number(
                connection, call.tenant_id, party=party, party_id=party_id, statement_no=account.statement_no
            )
        closing = Closing(
            statement_id=new_id(),
            party=party,
            party_id=party_id,
            to_day=to_day,
            currency_code=currency_code,
            closed_at=call.now,
            closed_by=call.actor.id,
        )
        until = end_of_day(to_day, call.time_zone)
        lines = await statements.take_lines(connection, call.tenant_id, closing, until=until)
        statement, after = rules.close(account, closing, lines)
        await statements.insert(connection, call.tenant_id, statement, after)
        return statement

    return await once.run(shop.database, work)


async def page(
    shop: Shop, call: Call, *, party: PartyKind, party_id: str, before: int, limit: int
) -> tuple[ClosedStatement, ...]:
    """A party's closed statements, newest first. Raises NotAllowed for another supplier's or store's."""
    check_own_party(call, party, party_id)

    async def read(connection: Connection) -> tuple[ClosedStatement, ...]:
        return await statements.page(
            connection, call.tenant_id, party=party, party_id=party_id, before=before, limit=limit
        )

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def lines(
    shop: Shop, call: Call, statement_id: str, *, after: StatementMark | None, limit: int
) -> tuple[StatementLine, ...]:
    """The lines of a closed statement. Raises UnknownStatement, also for another party's."""

    async def read(connection: Connection) -> tuple[StatementLine, ...]:
        await _own(connection, call, statement_id)
        return await statements.lines(connection, call.tenant_id, statement_id, after=after, limit=limit)

    return await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())


async def record_payout(
    shop: Shop, call: Call, statement_id: str, told: PayoutState, *, reference: str, once: Once[ClosedStatement]
) -> bytes:
    """Records that the payout was paid, or returned by the bank.

    Raises UnknownStatement (also for another party's), PayoutNotDue, PayoutNotPaid.
    """

    async def work(connection: Connection) -> ClosedStatement:
        await statements.lock_of_statement(connection, call.tenant_id, statement_id)
        found = await _own(connection, call, statement_id)
        state = rules.advance_payout(found.payout, told, statement_id=statement_id)
        after = replace(found, payout=state, payout_reference=reference)
        await statements.tell(connection, call.tenant_id, after, told_by=call.actor.id, occurred_at=call.now)
        return after

    return await once.run(shop.database, work)


async def _own(connection: Connection, call: Call, statement_id: str) -> ClosedStatement:
    found = await statements.find(connection, call.tenant_id, statement_id)
    if found is None:
        raise UnknownStatement(statement_id)
    try:
        check_own_party(call, found.party, found.party_id)
    except NotAllowed as other:
        # that it exists is not the caller's to know
        raise UnknownStatement(statement_id) from other
    return found
