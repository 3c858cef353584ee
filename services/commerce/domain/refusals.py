"""commerce's named refusals; the reasons are part of the contract.

DomainError
├── Invalid          SharesNotWhole, MoreThanAsked, CurrencyDiffers, OccurredOutOfRange
├── NotAllowed       PriceNotYours
├── Missing          UnknownOrder, UnknownLine, UnknownProduct, UnknownPrice, UnknownSupplier, UnknownSupplierOrder,
│                    UnknownParcel, UnknownException, UnknownParty, UnknownStatement, UnknownStore
├── AlreadyExists    SaleNumberReused
├── Conflict         SaleRace
└── Refused          StoreInactive, OutOfStock, TotalChanged, PaymentMismatch, StockBelowReserved, UnitsAlreadyRefunded,
                     OrderNotPayable, OrderNotCancellable, OrderNotPaid, OrderGivenUp, TooManyOpenOrders,
                     TooManyOpenGuestOrders,
                     SupplierOrderNotOpen, SupplierOrderNotAccepted, TooManyUnits, ExceptionResolved,
                     PeriodNotOver, PeriodClosed, PayoutNotDue, PayoutNotPaid
"""

from collections.abc import Mapping
from datetime import datetime

from services.runtime.errors import AlreadyExists, Conflict, Invalid, Missing, NotAllowed, Refused

MOST_TOLD = 5
"""So many unknown names a refusal tells."""


class SharesNotWhole(Invalid):
    """The rates of a split rule do not sum to 100, or a party stands twice."""

    reason = "SHARES_NOT_WHOLE"

    def __init__(self, why: str) -> None:
        """Says what is wrong with the shares."""
        super().__init__(why, field="shares")


class CurrencyDiffers(Invalid):
    """A basket in another currency than the brand's: prices, budgets, points' values and statements are in that one."""

    reason = "CURRENCY_DIFFERS"

    def __init__(self, currency_code: str, *, own: str, field: str) -> None:
        """Names both, and the field that asks for the other."""
        super().__init__(
            f"the brand sells in {own}, not in {currency_code}",
            field=field,
            metadata={"currency_code": own},
        )


class OccurredOutOfRange(Invalid):
    """A call says that something happened when it cannot have: an on-line sale not about now, a fact in the future."""

    reason = "OCCURRED_OUT_OF_RANGE"

    def __init__(self, what: str, *, field: str, earliest: datetime, latest: datetime, advice: str) -> None:
        """Tells what happens (noun and verb) between which bounds, in business time, and what to do about it.

        `field` is where the request tells the time.
        """
        super().__init__(
            f"{what} between {earliest.isoformat()} and {latest.isoformat()}, in business time; {advice}",
            field=field,
            metadata={"earliest": earliest.isoformat(), "latest": latest.isoformat()},
        )


class MoreThanAsked(Invalid):
    """A supplier accepts more units than it was asked for."""

    reason = "TOO_MANY_UNITS"

    def __init__(self, line_id: str, *, most: int) -> None:
        """Names the line and the most that it can take."""
        super().__init__(f"line {line_id!r} was asked for {most} units", field="lines", metadata={"line_id": line_id})


class PriceNotYours(NotAllowed):
    """Only a till sets prices."""

    reason = "PRICE_NOT_YOURS"

    def __init__(self, *, field: str) -> None:
        """Says which scope is missing, and names the field that asks for it."""
        super().__init__(
            f"{field}: PRICE_SOURCE_POS needs the scope commerce.pos.sell",
            metadata={"scope": "commerce.pos.sell", "field": field},
        )


class UnknownOrder(Missing):
    """No such order in this tenant, or it is another store's."""

    reason = "ORDER_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the order."""
        super().__init__(kind="order", name=name)


class UnknownLine(Missing):
    """The order has no such line."""

    reason = "LINE_NOT_FOUND"

    def __init__(self, name: str, *, field: str) -> None:
        """Names the line, and the field that names it."""
        super().__init__(f"{field}: no line {name!r}", kind="line", name=name, metadata={"field": field})


class UnknownProduct(Missing):
    """No such product in the catalogue."""

    reason = "PRODUCT_NOT_FOUND"

    def __init__(self, unknown: Mapping[str, str]) -> None:
        """Of the unknown SKUs, by the fields that name them, the first few."""
        fields = list(unknown)[:MOST_TOLD]
        skus = [unknown[field] for field in fields]
        named = ", ".join(f"{field} ({sku!r})" for field, sku in zip(fields, skus, strict=True))
        super().__init__(
            f"the catalogue has no product of this SKU: {named}; correct it, or make the product first "
            "(BatchUpsertProducts)",
            kind="product",
            name=", ".join(skus),
            metadata={"field": ", ".join(fields)},
        )


class UnknownPrice(Missing):
    """The price list has no price that fits store and channel."""

    reason = "PRICE_NOT_FOUND"

    def __init__(self, sku: str, *, field: str) -> None:
        """Names the SKU, and the field that names it."""
        super().__init__(
            f"{field}: {sku!r} has no price in this store and channel; set one first (BatchSetPrices)",
            kind="price",
            name=sku,
            metadata={"field": field},
        )


class UnknownSupplier(Missing):
    """No such supplier."""

    reason = "SUPPLIER_NOT_FOUND"

    def __init__(self, name: str, *, field: str) -> None:
        """Names the supplier, and the field that names it."""
        super().__init__(
            f"{field}: no supplier {name!r}; correct it, or make the supplier first (PutSupplier)",
            kind="supplier",
            name=name,
            metadata={"field": field},
        )


class UnknownSupplierOrder(Missing):
    """No such supplier order, or it is another supplier's."""

    reason = "SUPPLIER_ORDER_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the supplier order."""
        super().__init__(kind="supplier order", name=name)


class UnknownParcel(Missing):
    """The supplier order has no such parcel."""

    reason = "PARCEL_NOT_FOUND"

    def __init__(self, parcel_no: int) -> None:
        """Names the parcel by its number."""
        super().__init__(kind="parcel", name=str(parcel_no))


class UnknownException(Missing):
    """No such exception, or it is another store's."""

    reason = "EXCEPTION_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the exception."""
        super().__init__(kind="exception", name=name)


class UnknownParty(Missing):
    """The party never had a share of anything."""

    reason = "PARTY_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the party."""
        super().__init__(kind="party", name=name)


class UnknownStore(Missing):
    """The brand has no such store; identity knows them all."""

    reason = "STORE_NOT_FOUND"

    def __init__(self, store_id: str, *, field: str) -> None:
        """Names the store, and the field that names it."""
        super().__init__(
            f"{field}: the brand has no store {store_id!r}; correct it, or make the store first (BatchUpsertStores)",
            kind="store",
            name=store_id,
            metadata={"store_id": store_id, "field": field},
        )


class UnknownStatement(Missing):
    """No such statement, or it is another party's."""

    reason = "STATEMENT_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the statement."""
        super().__init__(kind="statement", name=name)


class SaleNumberReused(AlreadyExists):
    """The till used the number for another sale."""

    reason = "SALE_NUMBER_REUSED"

    def __init__(self, *, till_id: str, sale_number: str, order_id: str, field: str) -> None:
        """Names the sale that has the number, and the field that has it."""
        super().__init__(
            f"{field}: till {till_id!r} made another sale under number {sale_number!r}; a new sale needs a new number",
            metadata={"order_id": order_id, "field": field},
        )


class SaleRace(Conflict):
    """Another call made the same sale at this moment; the next look finds it."""

    def __init__(self) -> None:
        """The use case goes round again by itself."""
        super().__init__("another call makes this sale at this moment; try again")


class StoreInactive(Refused):
    """The store is not open for business."""

    reason = "STORE_INACTIVE"

    def __init__(self, store_id: str, *, field: str) -> None:
        """Names the store, and the field that names it."""
        super().__init__(
            f"{field}: store {store_id!r} is not open for business; make it active first (BatchUpsertStores)",
            subject=f"store/{store_id}",
            metadata={"store_id": store_id, "field": field},
        )


class OutOfStock(Refused):
    """Less is available than the order takes; nothing was reserved."""

    reason = "OUT_OF_STOCK"

    def __init__(self, *, sku: str, available: int, wanted: int) -> None:
        """Names the first SKU that is short, in the order of SKUs."""
        super().__init__(
            f"{available} units of {sku!r} are available, the order takes {wanted}",
            subject=f"sku/{sku}",
            metadata={"sku": sku, "available": str(available)},
        )


class TooManyOpenOrders(Refused):
    """The member has as many unpaid orders as one member may have: what they reserve nobody else can buy."""

    reason = "TOO_MANY_OPEN_ORDERS"

    def __init__(self, *, most: int) -> None:
        """Tells the limit."""
        super().__init__(
            f"the member has {most} orders that wait for payment; pay or cancel one",
            subject="orders/open",
            metadata={"limit": str(most)},
        )


class TooManyOpenGuestOrders(Refused):
    """The client has as many unpaid orders without a member in the store as one client may have."""

    reason = "TOO_MANY_OPEN_GUEST_ORDERS"

    def __init__(self, *, store_id: str, most: int) -> None:
        """Names the store, and tells the limit."""
        super().__init__(
            f"{most} orders without a member, placed by this client in store {store_id!r}, wait for payment; pay or"
            " cancel one, or say who buys",
            subject=f"store/{store_id}/orders/open",
            metadata={"limit": str(most), "store_id": store_id},
        )


class TotalChanged(Refused):
    """The total is not what the customer saw."""

    reason = "TOTAL_CHANGED"

    def __init__(self, *, expected_minor: int, due_minor: int, field: str) -> None:
        """Tells both figures, and the field that expects the other."""
        super().__init__(
            f"{due_minor} is due and not {expected_minor}; show it and ask again",
            subject=field,
            metadata={"due_minor": str(due_minor), "field": field},
        )


class PaymentMismatch(Refused):
    """The payments do not sum to what is due."""

    reason = "PAYMENT_MISMATCH"

    def __init__(self, *, paid_minor: int, due_minor: int, field: str) -> None:
        """Tells both figures, and the field that has the payments."""
        super().__init__(
            f"{due_minor} is due, the payments sum to {paid_minor}",
            subject=field,
            metadata={"due_minor": str(due_minor), "field": field},
        )


class StockBelowReserved(Refused):
    """The document would leave fewer goods than placed orders have reserved."""

    reason = "STOCK_BELOW_RESERVED"

    def __init__(self, *, sku: str, reserved: int) -> None:
        """Names the SKU and what is reserved of it."""
        super().__init__(
            f"{reserved} units of {sku!r} are reserved; cancel those orders first",
            subject=f"sku/{sku}",
            metadata={"sku": sku, "reserved": str(reserved)},
        )


class UnitsAlreadyRefunded(Refused):
    """The line has fewer units left than the refund names."""

    reason = "UNITS_ALREADY_REFUNDED"

    def __init__(self, line_id: str, *, left: int, field: str) -> None:
        """Names the line and what is left of it, and the field that asks for more."""
        super().__init__(
            f"{field}: line {line_id!r} has {left} units that are not refunded",
            subject=f"line/{line_id}",
            metadata={"line_id": line_id, "left": str(left), "field": field},
        )


class OrderNotPayable(Refused):
    """The order does not wait for payment."""

    reason = "ORDER_NOT_PAYABLE"


class OrderNotCancellable(Refused):
    """Only an order that waits for payment is cancelled; a paid one is refunded."""

    reason = "ORDER_NOT_CANCELLABLE"


class OrderNotPaid(Refused):
    """Only what was paid is refunded."""

    reason = "ORDER_NOT_PAID"


class OrderGivenUp(Refused):
    """The attempt died before payment and was undone; nothing was sold."""

    reason = "ORDER_GIVEN_UP"


class SupplierOrderNotOpen(Refused):
    """The supplier order was answered, timed out or was refunded."""

    reason = "SUPPLIER_ORDER_NOT_OPEN"


class SupplierOrderNotAccepted(Refused):
    """Only accepted units are shipped."""

    reason = "SUPPLIER_ORDER_NOT_ACCEPTED"


class TooManyUnits(Refused):
    """The parcel holds more units than are accepted and not shipped."""

    reason = "TOO_MANY_UNITS"


class ExceptionResolved(Refused):
    """Somebody has resolved the exception."""

    reason = "EXCEPTION_RESOLVED"

    def __init__(self, exception_id: str, *, resolved_by: str) -> None:
        """Names who did."""
        super().__init__(
            f"exception {exception_id} was resolved by {resolved_by!r}",
            subject=f"exception/{exception_id}",
            metadata={"resolved_by": resolved_by},
        )


class PeriodNotOver(Refused):
    """A statement is closed when its last day is over."""

    reason = "PERIOD_NOT_OVER"

    def __init__(self, to_day: str) -> None:
        """Names the day."""
        super().__init__(f"{to_day} is not over; close it after its end", subject=f"day/{to_day}")


class PeriodClosed(Refused):
    """A later day was closed before."""

    reason = "PERIOD_CLOSED"

    def __init__(self, *, closed_to_day: str) -> None:
        """Names the day up to which the party's statements are closed."""
        super().__init__(
            f"statements are closed up to {closed_to_day}; the next one ends later",
            subject=f"day/{closed_to_day}",
            metadata={"closed_to_day": closed_to_day},
        )


class PayoutNotDue(Refused):
    """There is nothing to pay, or it is paid."""

    reason = "PAYOUT_NOT_DUE"


class PayoutNotPaid(Refused):
    """Only what was paid is returned."""

    reason = "PAYOUT_NOT_PAID"
