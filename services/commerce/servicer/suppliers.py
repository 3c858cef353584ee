"""SupplierService and SettlementService."""

from dataclasses import dataclass
from typing import Final

from services.commerce.convert import suppliers as convert
from services.commerce.convert.orders import moment
from services.commerce.domain.sourcing import OnUnfilled
from services.commerce.domain.splits import PartyKind
from services.commerce.servicer.marks import MAX_LINE, MAX_REFUND, number_of
from services.commerce.store.settlement import StatementMark
from services.commerce.usecases import settling, sourcing, supplying
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.ids import OrderId, Sku, SupplierId, SupplierOrderId
from services.runtime.pages import foreign, id_in, key_of, time_in, token_after
from siyu.commerce.v1 import supplier_pb2

SUPPLIER_SERVICE = supplier_pb2.DESCRIPTOR.services_by_name["SupplierService"]
SETTLEMENT_SERVICE = supplier_pb2.DESCRIPTOR.services_by_name["SettlementService"]
DEFAULT_SUPPLIER_ORDERS: Final = 50
DEFAULT_ENTRIES: Final = 100
_SUPPLIERS = rule_of(SUPPLIER_SERVICE.methods_by_name["PutSupplier"]).family
_SUPPLIER_ORDERS = rule_of(SUPPLIER_SERVICE.methods_by_name["AcceptSupplierOrder"]).family
_SPLIT_RULES = rule_of(SETTLEMENT_SERVICE.methods_by_name["PublishSplitRule"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierServicer:
    """Serves SupplierService."""

    shop: Shop

    async def put_supplier(
        self, request: supplier_pb2.PutSupplierRequest, call: Call
    ) -> supplier_pb2.PutSupplierResponse:
        """Makes or changes a supplier."""
        once = idempotency.once(call, family=_SUPPLIERS, request=request, encode=convert.supplier_reply)
        reply = await supplying.put(self.shop, call, convert.supplier(request.supplier), once)
        return supplier_pb2.PutSupplierResponse.FromString(reply)

    async def list_supplier_orders(
        self, request: supplier_pb2.ListSupplierOrdersRequest, call: Call
    ) -> supplier_pb2.ListSupplierOrdersResponse:
        """Lists a supplier's orders, oldest first."""
        limit = request.page_size or DEFAULT_SUPPLIER_ORDERS
        key = key_of(request.page_token)
        found = await supplying.page(
            self.shop,
            call,
            supplier_id=SupplierId(request.supplier_id),
            state=request.state,
            after=id_in(key) if key else "",
            limit=limit,
        )
        return supplier_pb2.ListSupplierOrdersResponse(
            supplier_orders=[convert.supplier_order_message(order) for order in found],
            next_page_token=token_after(found[-1].supplier_order_id) if len(found) == limit else "",
        )

    async def accept_supplier_order(
        self, request: supplier_pb2.AcceptSupplierOrderRequest, call: Call
    ) -> supplier_pb2.AcceptSupplierOrderResponse:
        """Accepts all or a part."""
        once = idempotency.once(
            call, family=_SUPPLIER_ORDERS, request=request, encode=convert.accepted_reply, keep_refusals=True
        )
        supplier_order_id = SupplierOrderId(request.supplier_order_id.lower())
        reply = await supplying.accept(self.shop, call, supplier_order_id, convert.units(request.lines), once)
        return supplier_pb2.AcceptSupplierOrderResponse.FromString(reply)

    async def reject_supplier_order(
        self, request: supplier_pb2.RejectSupplierOrderRequest, call: Call
    ) -> supplier_pb2.RejectSupplierOrderResponse:
        """Rejects all of it."""
        once = idempotency.once(
            call, family=_SUPPLIER_ORDERS, request=request, encode=convert.rejected_reply, keep_refusals=True
        )
        supplier_order_id = SupplierOrderId(request.supplier_order_id.lower())
        reply = await supplying.reject(self.shop, call, supplier_order_id, reason=request.reason, once=once)
        return supplier_pb2.RejectSupplierOrderResponse.FromString(reply)

    async def ship_parcel(self, request: supplier_pb2.ShipParcelRequest, call: Call) -> supplier_pb2.ShipParcelResponse:
        """Records a parcel."""
        once = idempotency.once(
            call, family=_SUPPLIER_ORDERS, request=request, encode=convert.shipped_reply, keep_refusals=True
        )
        reply = await supplying.ship(
            self.shop,
            call,
            SupplierOrderId(request.supplier_order_id.lower()),
            convert.units(request.lines),
            carrier=request.carrier,
            tracking_number=request.tracking_number,
            once=once,
        )
        return supplier_pb2.ShipParcelResponse.FromString(reply)

    async def deliver_parcel(
        self, request: supplier_pb2.DeliverParcelRequest, call: Call
    ) -> supplier_pb2.DeliverParcelResponse:
        """Records that a parcel arrived."""
        once = idempotency.once(
            call, family=_SUPPLIER_ORDERS, request=request, encode=convert.delivered_reply, keep_refusals=True
        )
        reply = await supplying.deliver(
            self.shop,
            call,
            SupplierOrderId(request.supplier_order_id.lower()),
            request.parcel_no,
            delivered_at=moment(request.delivered_at) if request.HasField("delivered_at") else None,
            once=once,
        )
        return supplier_pb2.DeliverParcelResponse.FromString(reply)

    async def put_supply_policy(
        self, request: supplier_pb2.PutSupplyPolicyRequest, call: Call
    ) -> supplier_pb2.PutSupplyPolicyResponse:
        """Sets what becomes of units that a supplier does not ship."""
        once = idempotency.once(call, family=_SUPPLIERS, request=request, encode=convert.policy_reply)
        reply = await sourcing.put_policy(self.shop, call, OnUnfilled(request.on_unfilled), once)
        return supplier_pb2.PutSupplyPolicyResponse.FromString(reply)

    async def put_sources(self, request: supplier_pb2.PutSourcesRequest, call: Call) -> supplier_pb2.PutSourcesResponse:
        """Replaces a SKU's sources."""
        once = idempotency.once(call, family=_SUPPLIERS, request=request, encode=convert.sources_reply)
        reply = await sourcing.put_sources(self.shop, call, Sku(request.sku), convert.sources(request.sources), once)
        return supplier_pb2.PutSourcesResponse.FromString(reply)

    async def get_sources(self, request: supplier_pb2.GetSourcesRequest, call: Call) -> supplier_pb2.GetSourcesResponse:
        """The policy and a SKU's sources."""
        return convert.sourcing_reply(await sourcing.of_sku(self.shop, call, Sku(request.sku)))


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementServicer:
    """Serves SettlementService."""

    shop: Shop

    async def publish_split_rule(
        self, request: supplier_pb2.PublishSplitRuleRequest, call: Call
    ) -> supplier_pb2.PublishSplitRuleResponse:
        """Publishes the next version of a supplier's split rule."""
        once = idempotency.once(call, family=_SPLIT_RULES, request=request, encode=convert.published_reply)
        shares = convert.shares(request.shares)
        reply = await settling.publish(self.shop, call, SupplierId(request.supplier_id), shares, once)
        return supplier_pb2.PublishSplitRuleResponse.FromString(reply)

    async def get_statement(
        self, request: supplier_pb2.GetStatementRequest, call: Call
    ) -> supplier_pb2.GetStatementResponse:
        """A party's statement over business days."""
        limit = request.page_size or DEFAULT_ENTRIES
        found = await settling.statement(
            self.shop,
            call,
            party=PartyKind(request.party_kind),
            party_id=request.party_id,
            days=(request.from_day, request.to_day),
            after=mark_of(request.page_token),
            limit=limit,
        )
        reply = convert.statement_reply(found)
        if len(found.entries) == limit:
            reply.next_page_token = token_of(found.entries[-1].mark)
        return reply


def token_of(mark: StatementMark) -> str:
    """The token of the page after an entry."""
    return token_after(
        f"{mark.occurred_at.isoformat()} {mark.order_id} {mark.refund_no} {mark.line_no} {mark.entry_no}"
    )


def mark_of(token: str) -> StatementMark | None:
    """Where the page begins that a token names; None: the first. Raises Invalid for a token that we did not make."""
    key = key_of(token)
    if not key:
        return None
    match key.split(" "):
        case [at, order_id, refund_no, line_no, entry_no]:
            return StatementMark(
                occurred_at=time_in(at),
                order_id=OrderId(id_in(order_id)),
                refund_no=number_of(refund_no, least=-MAX_REFUND, most=MAX_REFUND),
                line_no=number_of(line_no, most=MAX_LINE),
                entry_no=number_of(entry_no, most=MAX_LINE),
            )
        case _:
            raise foreign()
