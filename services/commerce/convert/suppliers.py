"""Suppliers, their orders, split rules and statements."""

from collections.abc import Iterable
from decimal import Decimal

from services.commerce.convert.orders import stamp
from services.commerce.domain.refusals import SharesNotWhole
from services.commerce.domain.sourcing import OnUnfilled, Source, Sourcing
from services.commerce.domain.splits import PartyKind, SplitShare
from services.commerce.domain.suppliers import Parcel, Supplier, SupplierOrder
from services.commerce.store.settlement import StatementEntry
from services.commerce.usecases.settling import Statement
from services.runtime.errors import Invalid
from services.runtime.ids import SupplierId
from siyu.commerce.v1 import order_pb2, supplier_pb2


def supplier(message: supplier_pb2.Supplier) -> Supplier:
    """A supplier to make or change."""
    return Supplier(
        supplier_id=SupplierId(message.supplier_id),
        display_name=message.display_name,
        accept_within_s=message.accept_within_s,
        deliver_within_s=message.deliver_within_s,
        ship_within_s=message.ship_within_s,
    )


def units(messages: Iterable[supplier_pb2.SupplierUnits]) -> dict[str, int]:
    """Units per line id. Raises Invalid for a line that stands twice."""
    by_line: dict[str, int] = {}
    for at, message in enumerate(messages):
        if message.line_id in by_line:
            raise Invalid(f"line {message.line_id!r} stands twice", field=f"lines[{at}].line_id")
        by_line[message.line_id] = message.quantity
    return by_line


def shares(messages: Iterable[supplier_pb2.SplitShare]) -> tuple[SplitShare, ...]:
    """The shares of a rule, in their order. Raises SharesNotWhole for a party that takes none."""
    found = []
    for message in messages:
        if message.party == supplier_pb2.PARTY_KIND_UNSPECIFIED:
            raise SharesNotWhole("a share without a party")
        found.append(SplitShare(party=PartyKind(message.party), percent=Decimal(message.percent)))
    return tuple(found)


def sources(messages: Iterable[supplier_pb2.Source]) -> tuple[Source, ...]:
    """Sources in the order in which they are asked."""
    return tuple(
        Source(supplier_id=SupplierId(message.supplier_id), cost_minor=message.cost_minor) for message in messages
    )


def sourcing_reply(sourcing: Sourcing) -> supplier_pb2.GetSourcesResponse:
    """The policy and a SKU's sources."""
    return supplier_pb2.GetSourcesResponse(
        on_unfilled=supplier_pb2.OnUnfilled.ValueType(sourcing.on_unfilled),
        sources=[_source(source) for source in sourcing.sources],
    )


def sources_reply(sources: tuple[Source, ...]) -> bytes:
    """PutSources' stored reply."""
    return supplier_pb2.PutSourcesResponse(sources=[_source(source) for source in sources]).SerializeToString()


def policy_reply(on_unfilled: OnUnfilled) -> bytes:
    """PutSupplyPolicy's stored reply."""
    return supplier_pb2.PutSupplyPolicyResponse(
        on_unfilled=supplier_pb2.OnUnfilled.ValueType(on_unfilled)
    ).SerializeToString()


def _source(source: Source) -> supplier_pb2.Source:
    return supplier_pb2.Source(supplier_id=source.supplier_id, cost_minor=source.cost_minor)


def supplier_order_message(order: SupplierOrder) -> supplier_pb2.SupplierOrder:
    """A supplier order as it stands."""
    message = supplier_pb2.SupplierOrder(
        supplier_order_id=order.supplier_order_id,
        order_id=order.order_id,
        supplier_id=order.supplier_id,
        state=supplier_pb2.SupplierOrderState.ValueType(order.state),
        lines=[
            supplier_pb2.SupplierOrderLine(
                line_id=line.line_id,
                sku=line.sku,
                quantity=line.quantity,
                accepted_quantity=line.accepted_quantity,
                shipped_quantity=line.shipped_quantity,
                refunded_quantity=line.refunded_quantity,
                rerouted_quantity=line.rerouted_quantity,
                cost_minor=line.cost_minor,
            )
            for line in order.lines
        ],
        version=order.version,
        replaces_supplier_order_id=order.replaces,
        parcels=[_parcel(order, parcel) for parcel in order.parcels],
    )
    if order.accept_by is not None:
        message.accept_by.CopyFrom(stamp(order.accept_by))
    if order.ship_by is not None:
        message.ship_by.CopyFrom(stamp(order.ship_by))
    if order.requested_at is not None:
        message.requested_at.CopyFrom(stamp(order.requested_at))
    return message


def statement_reply(statement: Statement) -> supplier_pb2.GetStatementResponse:
    """A statement; the page token is the servicer's."""
    return supplier_pb2.GetStatementResponse(
        earned_minor=statement.earned_minor,
        reversed_minor=statement.reversed_minor,
        sum_minor=statement.earned_minor - statement.reversed_minor,
        currency_code=statement.currency_code,
        entries=[entry_message(entry) for entry in statement.entries],
    )


def supplier_reply(supplier: Supplier) -> bytes:
    """PutSupplier's stored reply."""
    return supplier_pb2.PutSupplierResponse(
        supplier=supplier_pb2.Supplier(
            supplier_id=supplier.supplier_id,
            display_name=supplier.display_name,
            accept_within_s=supplier.accept_within_s,
            deliver_within_s=supplier.deliver_within_s,
            ship_within_s=supplier.ship_within_s,
        )
    ).SerializeToString()


def accepted_reply(order: SupplierOrder) -> bytes:
    """AcceptSupplierOrder's stored reply."""
    return supplier_pb2.AcceptSupplierOrderResponse(supplier_order=supplier_order_message(order)).SerializeToString()


def rejected_reply(order: SupplierOrder) -> bytes:
    """RejectSupplierOrder's stored reply."""
    return supplier_pb2.RejectSupplierOrderResponse(supplier_order=supplier_order_message(order)).SerializeToString()


def shipped_reply(order: SupplierOrder) -> bytes:
    """ShipParcel's stored reply."""
    return supplier_pb2.ShipParcelResponse(
        supplier_order=supplier_order_message(order), parcel_no=order.parcels[-1].parcel_no
    ).SerializeToString()


def delivered_reply(order: SupplierOrder) -> bytes:
    """DeliverParcel's stored reply."""
    return supplier_pb2.DeliverParcelResponse(supplier_order=supplier_order_message(order)).SerializeToString()


def published_reply(version: int) -> bytes:
    """PublishSplitRule's stored reply."""
    return supplier_pb2.PublishSplitRuleResponse(version=version).SerializeToString()


def _parcel(order: SupplierOrder, parcel: Parcel) -> supplier_pb2.Parcel:
    names = {line.line_no: line.line_id for line in order.lines}
    message = supplier_pb2.Parcel(
        parcel_no=parcel.parcel_no,
        carrier=parcel.carrier,
        tracking_number=parcel.tracking_number,
        lines=[
            supplier_pb2.SupplierUnits(line_id=names[line_no], quantity=quantity) for line_no, quantity in parcel.units
        ],
        shipped_at=stamp(parcel.shipped_at),
    )
    if parcel.delivered_at is not None:
        message.delivered_at.CopyFrom(stamp(parcel.delivered_at))
    return message


def entry_message(entry: StatementEntry) -> supplier_pb2.SplitEntry:
    """An entry of the settlement ledger."""
    return supplier_pb2.SplitEntry(
        entry_id=entry.entry_id,
        order_id=entry.mark.order_id,
        line_id=entry.line_id,
        refund_id=entry.refund_id,
        amount_minor=entry.amount_minor,
        rule_version=entry.rule_version,
        occurred_at=stamp(entry.mark.occurred_at),
        payments=[
            supplier_pb2.ShareOfPayment(tender=order_pb2.Tender.ValueType(tender), amount_minor=part)
            for tender, part in entry.tenders
        ],
    )
