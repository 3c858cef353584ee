"""Split rules by version, and the settlement ledger."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from services.commerce.domain.orders import Tender
from services.commerce.domain.splits import PartyKind, SplitEntry, SplitRule, SplitShare
from services.commerce.store.arrays import as_text
from services.commerce.store.bounds import EARLIEST, FIRST_ID, LATEST
from services.runtime.database import Connection, raw
from services.runtime.ids import OrderId, SupplierId, derive_id

# the supplier's row is locked before: two publishers never count the same version
_LOCK_SUPPLIER = "SELECT 1 FROM suppliers WHERE tenant_id = $1::uuid AND supplier_id = $2 FOR UPDATE"
_PUBLISH = """
    INSERT INTO split_rules (tenant_id, supplier_id, version, shares)
    SELECT $1::uuid, $2, coalesce(max(r.version), 0) + 1, $3::jsonb
    FROM split_rules AS r
    WHERE r.tenant_id = $1::uuid AND r.supplier_id = $2
    RETURNING version
"""
_IN_FORCE = """
    SELECT r.supplier_id, max(r.version) AS version
    FROM split_rules AS r
    WHERE r.tenant_id = $1::uuid AND r.supplier_id = ANY($2::text[])
    GROUP BY r.supplier_id
"""
_RULES = """
    SELECT r.supplier_id, r.version, r.shares
    FROM split_rules AS r
    JOIN unnest($2::text[], $3::bigint[]) AS w(supplier_id, version)
      ON r.supplier_id = w.supplier_id AND r.version = w.version
    WHERE r.tenant_id = $1::uuid
"""
_POST = """
    INSERT INTO settlement_entries (tenant_id, order_id, refund_no, line_no, entry_no, line_id, refund_id, party_kind,
                                    party_id, amount_minor, tenders_minor, rule_version, occurred_at)
    SELECT $1::uuid, $2::uuid, $3, e.line_no, e.entry_no, e.line_id, $4::uuid, e.party_kind, e.party_id,
           e.amount_minor, e.tenders::bigint[], e.rule_version, $5
    FROM unnest($6::smallint[], $7::smallint[], $8::text[], $9::smallint[], $10::text[], $11::bigint[], $12::text[],
                $13::bigint[])
         AS e(line_no, entry_no, line_id, party_kind, party_id, amount_minor, tenders, rule_version)
"""
_OF_SALE = """
    SELECT e.line_no, e.party_kind, e.party_id, e.amount_minor, e.tenders_minor, e.rule_version
    FROM settlement_entries AS e
    WHERE e.tenant_id = $1::uuid AND e.order_id = $2::uuid AND e.refund_no = 0
    ORDER BY e.line_no, e.entry_no
"""
_LAST_MOVE = """
    SELECT coalesce(min(e.refund_no), 0)
    FROM settlement_entries AS e
    WHERE e.tenant_id = $1::uuid AND e.order_id = $2::uuid
"""
# Party kind 0 is the customer's side: the index of the parties leaves it out, and no plan for any values takes an index
# that may lack what is asked for. Refund 0 is the sale; below it units
# went from one supplier to another: who gets them earns, who loses them loses
_SUMS = """
    SELECT coalesce(sum(e.amount_minor) FILTER (WHERE e.refund_no = 0 OR (e.refund_no < 0 AND e.amount_minor > 0)), 0)
               ::bigint AS earned_minor,
           coalesce(-sum(e.amount_minor) FILTER (WHERE e.refund_no > 0 OR (e.refund_no < 0 AND e.amount_minor < 0)), 0)
               ::bigint AS reversed_minor
    FROM settlement_entries AS e
    WHERE e.tenant_id = $1::uuid AND e.party_kind = $2 AND e.party_kind <> 0 AND e.party_id = $3
      AND e.occurred_at >= $4 AND e.occurred_at < $5
"""
_PAGE = """
    SELECT e.order_id::text, e.refund_no, e.line_no, e.entry_no, e.line_id,
           coalesce(e.refund_id::text, '') AS refund_id, e.amount_minor, e.tenders_minor, e.rule_version,
           e.occurred_at,
           (SELECT array_agg(p.tender ORDER BY p.payment_no) FROM order_payments AS p
            WHERE p.tenant_id = e.tenant_id AND p.order_id = e.order_id) AS tenders
    FROM settlement_entries AS e
    WHERE e.tenant_id = $1::uuid AND e.party_kind = $2 AND e.party_kind <> 0 AND e.party_id = $3
      AND e.occurred_at >= $4 AND e.occurred_at < $5
      AND (e.occurred_at, e.order_id, e.refund_no, e.line_no, e.entry_no) > ($6, $7::uuid, $8, $9, $10)
    ORDER BY e.occurred_at, e.order_id, e.refund_no, e.line_no, e.entry_no
    LIMIT $11
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementMark:
    """Where a page of entries ended."""

    occurred_at: datetime
    order_id: OrderId
    refund_no: int
    line_no: int
    entry_no: int


FIRST: Final = StatementMark(occurred_at=EARLIEST, order_id=OrderId(FIRST_ID), refund_no=0, line_no=0, entry_no=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEntry:
    """One entry of a party's statement. `tenders` are (tender, minor units), and sum to the amount.

    Empty `tenders`: nothing was due, or the entry is older than the division of shares over payments.
    """

    entry_id: str
    line_id: str
    refund_id: str
    amount_minor: int
    tenders: tuple[tuple[Tender, int], ...]
    rule_version: int
    mark: StatementMark


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From inclusive, until exclusive; None is open."""

    since: datetime | None
    until: datetime | None

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """Both ends; an open one beyond every entry."""
        return self.since or EARLIEST, self.until or LATEST


async def lock_supplier(connection: Connection, tenant_id: str, supplier_id: SupplierId) -> bool:
    """Locks the supplier's row; False if there is none."""
    return await raw(connection).fetchval(_LOCK_SUPPLIER, tenant_id, supplier_id) is not None


async def publish(connection: Connection, tenant_id: str, supplier_id: SupplierId, shares: Sequence[SplitShare]) -> int:
    """Writes the next version of a locked supplier's rule; answers its number, from 1."""
    stored = json.dumps([[int(share.party), str(share.percent)] for share in shares])
    version: int = await raw(connection).fetchval(_PUBLISH, tenant_id, supplier_id, stored)
    return version


async def versions_in_force(
    connection: Connection, tenant_id: str, supplier_ids: Sequence[SupplierId]
) -> dict[SupplierId, int]:
    """The newest version of each supplier's rule; suppliers without one are left out."""
    rows = await raw(connection).fetch(_IN_FORCE, tenant_id, sorted(set(supplier_ids)))
    return {row["supplier_id"]: row["version"] for row in rows}


async def rules(
    connection: Connection, tenant_id: str, wanted: Sequence[tuple[SupplierId, int]]
) -> dict[tuple[str, int], SplitRule]:
    """Rules by supplier and version; version 0 has no row."""
    chosen = sorted(set(wanted))
    rows = await raw(connection).fetch(
        _RULES, tenant_id, [supplier for supplier, _ in chosen], [version for _, version in chosen]
    )
    return {
        (row["supplier_id"], row["version"]): SplitRule(
            supplier_id=row["supplier_id"],
            version=row["version"],
            shares=tuple(
                SplitShare(party=PartyKind(party), percent=Decimal(percent)) for party, percent in row["shares"]
            ),
        )
        for row in rows
    }


async def post(
    connection: Connection,
    tenant_id: str,
    order_id: OrderId,
    entries: Sequence[SplitEntry],
    *,
    line_ids: Sequence[str],
    occurred_at: datetime,
    refund_no: int = 0,
    refund_id: str | None = None,
) -> None:
    """Posts the entries of a sale (refund 0), a refund, or a move between suppliers (below 0).

    `line_ids` are by line number.
    """
    if not entries:
        return
    numbers: dict[int, int] = {}
    entry_nos = []
    for entry in entries:
        numbers[entry.line_no] = numbers.get(entry.line_no, -1) + 1
        entry_nos.append(numbers[entry.line_no])
    await raw(connection).execute(
        _POST,
        tenant_id,
        order_id,
        refund_no,
        refund_id,
        occurred_at,
        [entry.line_no for entry in entries],
        entry_nos,
        [line_ids[entry.line_no] for entry in entries],
        [entry.party for entry in entries],
        [entry.party_id for entry in entries],
        [entry.amount_minor for entry in entries],
        [None if entry.tenders_minor is None else as_text(entry.tenders_minor) for entry in entries],
        [entry.rule_version for entry in entries],
    )


async def next_move(connection: Connection, tenant_id: str, order_id: OrderId) -> int:
    """The number under which a locked order's next move of units between suppliers is posted: -1, -2 and so on."""
    last: int = await raw(connection).fetchval(_LAST_MOVE, tenant_id, order_id)
    return last - 1


async def of_sale(connection: Connection, tenant_id: str, order_id: OrderId) -> tuple[SplitEntry, ...]:
    """The entries of an order's sale, in the order in which they were posted."""
    return tuple(
        SplitEntry(
            line_no=row["line_no"],
            party=PartyKind(row["party_kind"]),
            party_id=row["party_id"],
            amount_minor=row["amount_minor"],
            rule_version=row["rule_version"],
            tenders_minor=None if row["tenders_minor"] is None else tuple(row["tenders_minor"]),
        )
        for row in await raw(connection).fetch(_OF_SALE, tenant_id, order_id)
    )


async def sums(
    connection: Connection, tenant_id: str, *, party: PartyKind, party_id: str, period: Period
) -> tuple[int, int]:
    """What the party earned and what refunds took from it, both positive, in minor units."""
    row = await raw(connection).fetchrow(_SUMS, tenant_id, party, party_id, *period.bounds)
    return row["earned_minor"], row["reversed_minor"]


async def page(
    connection: Connection,
    tenant_id: str,
    *,
    party: PartyKind,
    party_id: str,
    period: Period,
    after: StatementMark | None,
    limit: int,
) -> tuple[StatementEntry, ...]:
    """The party's entries, oldest first."""
    mark = after or FIRST
    rows = await raw(connection).fetch(
        _PAGE,
        tenant_id,
        party,
        party_id,
        *period.bounds,
        mark.occurred_at,
        mark.order_id,
        mark.refund_no,
        mark.line_no,
        mark.entry_no,
        limit,
    )
    return tuple(entry_of(row) for row in rows)


def entry_of(row: Any) -> StatementEntry:
    """A row of a party's entries, with the tenders of its order."""
    return StatementEntry(
        entry_id=derive_id("split", row["order_id"], str(row["refund_no"]), str(row["line_no"]), str(row["entry_no"])),
        line_id=row["line_id"],
        refund_id=row["refund_id"],
        amount_minor=row["amount_minor"],
        tenders=tuple(
            (Tender(tender), part)
            for tender, part in zip(row["tenders"] or (), row["tenders_minor"] or (), strict=False)
            if part
        ),
        rule_version=row["rule_version"],
        mark=StatementMark(
            occurred_at=row["occurred_at"],
            order_id=row["order_id"],
            refund_no=row["refund_no"],
            line_no=row["line_no"],
            entry_no=row["entry_no"],
        ),
    )
