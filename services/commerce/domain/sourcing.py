"""Where units go that a supplier does not ship: back to the customer's money, or to the next source of the SKU."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from services.commerce.domain.suppliers import SupplierLine, SupplierOrder, chain_of
from services.runtime.errors import Invalid
from services.runtime.ids import Sku, SupplierId


class OnUnfilled(IntEnum):
    """The brand's policy for units that a supplier rejects, or does not answer for in time."""

    REFUND = 1
    REROUTE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A supplier of a SKU, and what it asks per `price_quantity` units; for the record: the split stays the order's."""

    supplier_id: SupplierId
    cost_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourcing:
    """The policy, and a SKU's sources in the order in which they are asked."""

    on_unfilled: OnUnfilled
    sources: tuple[Source, ...]


def check_sources(sources: Sequence[Source]) -> None:
    """Raises Invalid for a supplier that stands twice."""
    if len({source.supplier_id for source in sources}) < len(sources):
        raise Invalid("a supplier stands twice", field="sources")


def next_sources(
    asked: SupplierOrder,
    refused: Iterable[str],
    sources: Mapping[Sku, Sequence[Source]],
    *,
    theirs: Sequence[SupplierOrder],
) -> dict[str, Source]:
    """The next source of each refused line, by line id; a line without one is left out, and refunded.

    A source is asked once for a unit: who stands before `asked` in its chain was asked already. So a chain ends after
    as many suppliers as there are sources.
    """
    before = {order.supplier_id for order in chain_of(asked, theirs)}
    wanted = frozenset(refused)
    found: dict[str, Source] = {}
    for line in asked.lines:
        if line.line_id in wanted:
            left = (source for source in sources.get(line.sku, ()) if source.supplier_id not in before)
            source = next(left, None)
            if source is not None:
                found[line.line_id] = source
    return found


def lines_by_source(
    asked: SupplierOrder, refused: Mapping[str, int], routes: Mapping[str, Source]
) -> dict[SupplierId, tuple[SupplierLine, ...]]:
    """What each next source must ship instead."""
    lines: dict[SupplierId, tuple[SupplierLine, ...]] = {}
    for line in asked.lines:
        source = routes.get(line.line_id)
        if source is not None:
            moved = SupplierLine(
                line_no=line.line_no,
                line_id=line.line_id,
                sku=line.sku,
                quantity=refused[line.line_id],
                cost_minor=source.cost_minor,
            )
            lines[source.supplier_id] = (*lines.get(source.supplier_id, ()), moved)
    return lines
