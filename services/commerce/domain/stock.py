"""Stock levels and what may be done to them. Every change is a line of a document."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from services.commerce.domain.orders import Line
from services.commerce.domain.refusals import OutOfStock, StockBelowReserved
from services.runtime.errors import Invalid
from services.runtime.ids import Sku


class DocumentKind(IntEnum):
    """What a stock document is; the first three are posted by callers, the others made by orders."""

    RECEIPT = 1
    COUNT = 2
    ADJUSTMENT = 3
    SALE = 4
    RETURN = 5
    SHORTFALL = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A SKU's stock in one location, in base units.

    `shortfall` is how far reservations and off-line sales exceed the goods: max(0, reserved - on_hand). `version`
    counts the lines posted.
    """

    sku: Sku
    on_hand: int = 0
    reserved: int = 0
    shortfall: int = 0
    version: int = 0

    @property
    def available(self) -> int:
        """What can still be promised; below zero only after off-line sales."""
        return self.on_hand - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """One line of a document: a signed change and what is on hand after it."""

    sku: Sku
    kind: DocumentKind
    change: int
    on_hand_after: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """Levels after a change, and the document lines that tell of it. A reservation has no lines: nothing moved."""

    levels: tuple[Level, ...]
    postings: tuple[Posting, ...] = ()


def demand_of(lines: Iterable[Line]) -> dict[Sku, int]:
    """What the lines take from stock, summed per SKU first, in the order in which rows are locked."""
    demand: dict[Sku, int] = {}
    for line in lines:
        if line.from_stock:
            demand[line.sku] = demand.get(line.sku, 0) + line.quantity
    return dict(sorted(demand.items()))


def reserve(levels: Mapping[Sku, Level], demand: Mapping[Sku, int]) -> Movement:
    """Reserves all or nothing. Raises OutOfStock for the first SKU that is short."""
    _check(levels, demand)
    return Movement(levels=tuple(_with(levels[sku], reserved=quantity) for sku, quantity in demand.items()))


def take(levels: Mapping[Sku, Level], demand: Mapping[Sku, int]) -> Movement:
    """Takes goods that were not reserved, all or nothing. Raises OutOfStock for the first SKU that is short."""
    _check(levels, demand)
    return _moved(levels, ((sku, DocumentKind.SALE, -quantity, 0) for sku, quantity in demand.items()))


def take_reserved(levels: Mapping[Sku, Level], demand: Mapping[Sku, int]) -> Movement:
    """Takes what a reservation holds."""
    return _moved(levels, ((sku, DocumentKind.SALE, -quantity, -quantity) for sku, quantity in demand.items()))


def release(levels: Mapping[Sku, Level], demand: Mapping[Sku, int]) -> Movement:
    """Gives a reservation back."""
    return Movement(levels=tuple(_with(levels[sku], reserved=-quantity) for sku, quantity in demand.items()))


def take_as_fact(levels: Mapping[Sku, Level], demand: Mapping[Sku, int]) -> tuple[Movement, dict[Sku, int]]:
    """Takes what an off-line sale took, and how many units of each SKU were not available.

    The missing units are a shortfall beside the reservations, which stay as they are.
    """
    changes: list[tuple[Sku, DocumentKind, int, int]] = []
    missing: dict[Sku, int] = {}
    for sku, quantity in demand.items():
        covered = min(quantity, max(0, levels[sku].available))
        if covered:
            changes.append((sku, DocumentKind.SALE, -covered, 0))
        if covered < quantity:
            missing[sku] = quantity - covered
            changes.append((sku, DocumentKind.SHORTFALL, covered - quantity, 0))
    return _moved(levels, changes), missing


def bring_back(levels: Mapping[Sku, Level], returned: Mapping[Sku, int]) -> Movement:
    """Puts refunded goods back on the shelf."""
    return _moved(levels, ((sku, DocumentKind.RETURN, quantity, 0) for sku, quantity in returned.items()))


def post(levels: Mapping[Sku, Level], *, kind: DocumentKind, lines: Sequence[tuple[Sku, int]]) -> Movement:
    """A receipt adds, a count sets, an adjustment is signed; SKUs are unique.

    Raises StockBelowReserved where goods are taken from under a reservation, Invalid for a quantity that the kind does
    not take.
    """
    changes = []
    for at, (sku, quantity) in enumerate(lines):
        if (kind is DocumentKind.RECEIPT and quantity < 1) or (kind is DocumentKind.COUNT and quantity < 0):
            raise Invalid(f"a {kind.name.lower()} takes no {quantity}", field=f"lines[{at}].quantity")
        level = levels[sku]
        change = quantity - level.on_hand if kind is DocumentKind.COUNT else quantity
        if change < 0 and level.on_hand + change < level.reserved:
            raise StockBelowReserved(sku=sku, reserved=level.reserved)
        changes.append((sku, kind, change, 0))
    return _moved(levels, changes)


def _check(levels: Mapping[Sku, Level], demand: Mapping[Sku, int]) -> None:
    for sku, quantity in demand.items():
        level = levels.get(sku)
        available = 0 if level is None else max(0, level.available)
        if available < quantity:
            raise OutOfStock(sku=sku, available=available, wanted=quantity)


def _moved(levels: Mapping[Sku, Level], changes: Iterable[tuple[Sku, DocumentKind, int, int]]) -> Movement:
    after: dict[Sku, Level] = {}
    postings = []
    for sku, kind, change, reserved in changes:
        level = _with(after.get(sku) or levels[sku], on_hand=change, reserved=reserved)
        after[sku] = replace(level, version=level.version + 1)
        postings.append(
            Posting(sku=sku, kind=kind, change=change, on_hand_after=level.on_hand, version=level.version + 1)
        )
    return Movement(levels=tuple(after.values()), postings=tuple(postings))


def _with(level: Level, *, on_hand: int = 0, reserved: int = 0) -> Level:
    on_hand_after, reserved_after = level.on_hand + on_hand, level.reserved + reserved
    return replace(
        level,
        on_hand=on_hand_after,
        reserved=reserved_after,
        shortfall=max(0, reserved_after - on_hand_after),
    )
