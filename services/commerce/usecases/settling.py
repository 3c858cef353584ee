"""Split rules, and what each party earned."""

from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, date

from services.commerce.domain.refusals import UnknownSupplier
from services.commerce.domain.splits import PartyKind, SplitShare, check_shares
from services.commerce.store import settlement
from services.commerce.store.settlement import Period, StatementEntry, StatementMark
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.clock import end_of_day, start_of_day
from services.runtime.database import Connection
from services.runtime.errors import Invalid
from services.runtime.idempotency import Once
from services.runtime.ids import SupplierId


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A party's sums over the whole period, both positive, and a page of its entries."""

    earned_minor: int
    reversed_minor: int
    currency_code: str
    entries: tuple[StatementEntry, ...]


async def publish(
    shop: Shop, call: Call, supplier_id: SupplierId, shares: tuple[SplitShare, ...], once: Once[int]
) -> bytes:
    """Publishes the next version of the supplier's rule; the encoded number. Orders already placed keep theirs.

    Raises SharesNotWhole, UnknownSupplier.
    """
    check_shares(shares)

    async def work(connection: Connection) -> int:
        if not await settlement.lock_supplier(connection, call.tenant_id, supplier_id):
            raise UnknownSupplier(supplier_id, field="supplier_id")
        return await settlement.publish(connection, call.tenant_id, supplier_id, shares)

    return await once.run(shop.database, work)


async def statement(
    shop: Shop,
    call: Call,
    *,
    party: PartyKind,
    party_id: str,
    days: tuple[str, str],
    after: StatementMark | None,
    limit: int,
) -> Statement:
    """The statement over business days, both included; an empty day is open.

    Raises NotAllowed for a supplier's or store's statement that is not the caller's, Invalid for a day that is none.
    """
    check_own_party(call, party, party_id)
    first, last = day_of(days[0], field="from_day"), day_of(days[1], field="to_day")
    period = Period(
        since=start_of_day(first, call.time_zone) if first else None,
        until=end_of_day(last, call.time_zone) if last else None,
    )

    async def read(connection: Connection) -> tuple[tuple[int, int], tuple[StatementEntry, ...]]:
        sums = await settlement.sums(connection, call.tenant_id, party=party, party_id=party_id, period=period)
        entries = await settlement.page(
            connection, call.tenant_id, party=party, party_id=party_id, period=period, after=after, limit=limit
        )
        return sums, entries

    (earned, reversed_minor), entries = await shop.database.read(call.tenant_id, read, timeout_s=call.remaining_s())
    return Statement(
        earned_minor=earned,
        reversed_minor=reversed_minor,
        currency_code=await shop.currency_of(call),
        entries=entries,
    )


def check_own_party(call: Call, party: PartyKind, party_id: str) -> None:
    """Raises NotAllowed where a caller that is bound to a supplier or store asks for another party."""
    if party is PartyKind.SUPPLIER or call.actor.supplier_id:
        call.actor.check_supplier(party_id if party is PartyKind.SUPPLIER else "", field="party_id")
    if party is PartyKind.STORE or call.actor.store_id:
        call.actor.check_store(party_id if party is PartyKind.STORE else "", field="party_id")


def day_of(text: str, *, field: str) -> date | None:
    """A day as the contract has it; None where there is none. Raises Invalid for a day that is none."""
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise Invalid("not a day of the calendar", field=field) from error
    if day.year in {MINYEAR, MAXYEAR}:
        # such a day begins or ends, in some time zone, at no moment that can be told
        raise Invalid("a day of the calendar's first or last year; an open period has no day", field=field)
    return day
