"""Who gets what of a supplier's line, by the rule version frozen with the order; and the exact reversal."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import IntEnum
from typing import Final

from services.commerce.domain.orders import Line, Order
from services.commerce.domain.refunds import RefundedLine, shares_of_units
from services.commerce.domain.refusals import SharesNotWhole
from services.runtime.ids import SupplierId
from services.runtime.money import allocate, tenders_by_line

BRAND_ID: Final = "brand"
PLATFORM_ID: Final = "platform"
_RATE_SCALE: Final = 10_000


class PartyKind(IntEnum):
    """Who takes a share. CUSTOMER is the other side of the books: what was paid, with the opposite sign."""

    CUSTOMER = 0
    SUPPLIER = 1
    BRAND = 2
    STORE = 3
    GUIDE = 4
    DISTRIBUTOR = 5
    PLATFORM = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitShare:
    """One party's rate, per cent of what was paid for the line."""

    party: PartyKind
    percent: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """A supplier's split rule. Versions count from 1 and never change."""

    supplier_id: SupplierId
    version: int
    shares: tuple[SplitShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitEntry:
    """One entry of the settlement ledger; those of a line and refund sum to zero with the customer's.

    `tenders_minor` is the amount by payment, as the order's payments stand; empty where nothing was due. Entries that
    were posted before shares were divided have None, and their refunds as well.
    """

    line_no: int
    party: PartyKind
    party_id: str
    amount_minor: int
    rule_version: int
    tenders_minor: tuple[int, ...] | None


Holdings = tuple[tuple[SupplierId, int], ...]
"""Units of a line by supplier, in the order in which they were asked."""


def check_shares(shares: Sequence[SplitShare]) -> None:
    """Raises SharesNotWhole unless the rates sum to 100 and every party stands once."""
    if len({share.party for share in shares}) < len(shares):
        raise SharesNotWhole("a party stands twice")
    whole = sum((share.percent for share in shares), Decimal(0))
    if whole != 100:
        raise SharesNotWhole(f"the rates sum to {whole} and not to 100")


def unruled(supplier_id: SupplierId) -> SplitRule:
    """The rule of a supplier that has none published: all is the brand's, which settles by hand. Version 0."""
    return SplitRule(
        supplier_id=supplier_id, version=0, shares=(SplitShare(party=PartyKind.BRAND, percent=Decimal(100)),)
    )


def parties_of(order: Order, line: Line) -> dict[PartyKind, str]:
    """Who the parties are for this line; a kind that is not there takes no share. An order has no distributor yet."""
    present = {
        PartyKind.SUPPLIER: line.supplier_id,
        PartyKind.BRAND: BRAND_ID,
        PartyKind.STORE: order.store_id,
        PartyKind.GUIDE: order.guide_id,
        PartyKind.PLATFORM: PLATFORM_ID,
    }
    return {kind: party_id for kind, party_id in present.items() if party_id}


def split_amount(amount_minor: int, rule: SplitRule, *, present: Iterable[PartyKind]) -> dict[PartyKind, int]:
    """Each party's share in the rule's order, by largest remainder; they sum to the amount.

    The share of a party that the order lacks goes to the brand.
    """
    there = frozenset(present)
    weights = [int(share.percent * _RATE_SCALE) for share in rule.shares]
    shares: dict[PartyKind, int] = {}
    for share, part_minor in zip(rule.shares, allocate(amount_minor, weights), strict=True):
        party = share.party if share.party in there else PartyKind.BRAND
        shares[party] = shares.get(party, 0) + part_minor
    return shares


def sale_entries(order: Order, rules: Mapping[tuple[str, int], SplitRule]) -> tuple[SplitEntry, ...]:
    """The entries of every supplier line of a paid order. `rules` by (supplier, version).

    A share is divided over the line's payments as a line is over the order's: parties in the rule's order, each by
    largest remainder over what remains of every payment. So the shares of a payment sum to it, line by line.
    """
    entries: list[SplitEntry] = []
    for line in order.lines:
        if not line.supplier_id:
            continue
        rule = rules.get((line.supplier_id, line.rule_version)) or unruled(line.supplier_id)
        names = parties_of(order, line)
        shares = split_amount(line.net_minor, rule, present=names)
        assert sum(shares.values()) == line.net_minor
        divided = tenders_by_line(list(shares.values()), line.tenders_minor)
        entries.append(_entry(line, PartyKind.CUSTOMER, "", tuple(-paid for paid in line.tenders_minor)))
        entries += [_entry(line, party, names[party], parts) for party, parts in zip(shares, divided, strict=True)]
    return tuple(entries)


def held_by_units(
    sale: Sequence[SplitEntry], *, units: int, first: int, count: int
) -> tuple[tuple[SplitEntry, tuple[int, ...]], ...]:
    """What the units [first, first + count) of a line hold of each share, by payment. `sale` has the line's shares.

    The cells stand payment by payment, and within it party by party, so that the units' running sums give each payment
    what the customer gets of it (`domain/refunds.py`), no cell is negative, and all units together are the sale.
    """
    cells = [_cells(entry) for entry in sale]
    payments = len(cells[0]) if cells else 0
    flat = [row[payment] for payment in range(payments) for row in cells]
    shares = shares_of_units(flat, units, first=first, count=count)
    return tuple((entry, tuple(shares[at :: len(cells)])) for at, entry in enumerate(sale))


def reversal_entries(sale: Sequence[SplitEntry], line: Line, taken: RefundedLine) -> tuple[SplitEntry, ...]:
    """The exact inverse, for the refunded units, of the line's entries: same parties, same version, same payments."""
    entries = shares_of_line(sale, line)
    if not entries:
        return ()
    held = held_by_units(entries, units=line.quantity, first=taken.refunded_before, count=taken.quantity)
    back = tuple(sum(column) for column in zip(*(cells for _, cells in held), strict=True))
    assert sum(back) == taken.amount_minor, "the parties give back another amount than the customer gets"
    if entries[0].tenders_minor is None:
        return tuple(_undivided(entry) for entry in _reversed(line, held, back))
    assert back == taken.tenders_minor, "the parties give back other payments than the customer gets"
    return _reversed(line, held, back)


def refund_entries(
    sale: Sequence[SplitEntry], line: Line, taken: RefundedLine, *, before: Holdings, after: Holdings
) -> tuple[SplitEntry, ...]:
    """The reversal where several suppliers may hold the line's units: together they give back what one would."""
    entries = reversal_entries(sale, line, taken)
    if len(before) <= 1:
        return entries
    upto = taken.refunded_before + taken.quantity
    return (
        *(entry for entry in entries if entry.party is not PartyKind.SUPPLIER),
        *moved_entries(sale, line, before=(taken.refunded_before, before), after=(upto, after)),
    )


def moved_entries(
    sale: Sequence[SplitEntry], line: Line, *, before: tuple[int, Holdings], after: tuple[int, Holdings]
) -> tuple[SplitEntry, ...]:
    """What the suppliers' shares change by when units go from one to another, or back to the customer.

    Of the units that are not refunded, each supplier holds as many as it ships, one after the other in the order in
    which they were asked, at the rates that were frozen with the order: whatever moves, their shares sum to those of
    the units. `before` and `after` are the units refunded, and who holds the others.
    """
    shares = shares_of_line(sale, line)
    was, now = _entitled(shares, line, *before), _entitled(shares, line, *after)
    own = next((entry for entry in shares if entry.party is PartyKind.SUPPLIER), None)
    if own is None:
        return ()  # the rule gives suppliers nothing
    nothing = tuple(0 for _ in _cells(own))
    entries = []
    for supplier_id in dict.fromkeys((*was, *now)):
        change = tuple(
            new - old for new, old in zip(now.get(supplier_id, nothing), was.get(supplier_id, nothing), strict=True)
        )
        if any(change):
            moved = _entry(line, PartyKind.SUPPLIER, supplier_id, change)
            entries.append(_undivided(moved) if own.tenders_minor is None else moved)
    return tuple(entries)


def _entitled(shares: Sequence[SplitEntry], line: Line, refunded: int, held: Holdings) -> dict[str, tuple[int, ...]]:
    first = refunded
    found: dict[str, tuple[int, ...]] = {}
    for supplier_id, count in held:
        units = held_by_units(shares, units=line.quantity, first=first, count=count)
        own = next((cells for entry, cells in units if entry.party is PartyKind.SUPPLIER), None)
        if own is not None:
            found[supplier_id] = own
        first += count
    assert first == line.quantity, "the suppliers hold other units than the customer has"
    return found


def shares_of_line(sale: Sequence[SplitEntry], line: Line) -> tuple[SplitEntry, ...]:
    """The parties' entries of one line, without the customer's."""
    return tuple(entry for entry in sale if entry.line_no == line.line_no and entry.party is not PartyKind.CUSTOMER)


def _reversed(
    line: Line, held: Iterable[tuple[SplitEntry, tuple[int, ...]]], back: tuple[int, ...]
) -> tuple[SplitEntry, ...]:
    return (
        _entry(line, PartyKind.CUSTOMER, "", back),
        *(_entry(line, entry.party, entry.party_id, tuple(-cell for cell in cells)) for entry, cells in held),
    )


def _cells(entry: SplitEntry) -> tuple[int, ...]:
    # what was never divided counts as paid in one
    return (entry.amount_minor,) if entry.tenders_minor is None else entry.tenders_minor


def _undivided(entry: SplitEntry) -> SplitEntry:
    return replace(entry, tenders_minor=None)


def _entry(line: Line, party: PartyKind, party_id: str, tenders_minor: tuple[int, ...]) -> SplitEntry:
    return SplitEntry(
        line_no=line.line_no,
        party=party,
        party_id=party_id,
        amount_minor=sum(tenders_minor),
        rule_version=line.rule_version,
        tenders_minor=tenders_minor,
    )
