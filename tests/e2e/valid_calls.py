"""A valid call of every RPC that changes something, and the same request id with another body."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.message import Message

from services.console.demo.calls import Caller
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc, promotion_pb2, promotion_pb2_grpc
from siyu.commerce.v1 import (
    catalogue_pb2,
    catalogue_pb2_grpc,
    order_pb2,
    order_pb2_grpc,
    statement_pb2,
    statement_pb2_grpc,
    supplier_pb2,
    supplier_pb2_grpc,
)
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2, member_pb2, store_pb2, tenant_pb2, tenant_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2
from tests.e2e.shop import CURRENCY, FLOWERS, STORE, TEA, Shop, at, client, eventually

YESTERDAY = datetime.now(UTC) - timedelta(days=1)
NEXT_MONTH = datetime.now(UTC) + timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Valid:
    """A request, another body under its id, and who makes them (head office where it is None)."""

    request: Message
    other: Message
    caller: Caller | None = None


M = TypeVar("M", bound=Message)
Make = Callable[[Shop], Awaitable[Valid]]
CALLS: dict[str, Make] = {}


def calls(name: str) -> Callable[[Make], Make]:
    """Enters a maker under "Service.Method"."""

    def enter(make: Make) -> Make:
        CALLS[name] = make
        return make

    return enter


def changed(request: M, **fields: object) -> M:
    """A copy with other values in some fields."""
    other = type(request)()
    other.CopyFrom(request)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


# --- identity --------------------------------------------------------------------------------------------------------


@calls("TenantService.CreateTenant")
async def create_tenant(shop: Shop) -> Valid:
    request = tenant_pb2.CreateTenantRequest(
        request_id=new_id(), code=f"valid-{new_id()[-12:]}", display_name="Valid", test_clock_at=at(YESTERDAY)
    )
    return Valid(request=request, other=changed(request, display_name="Other"), caller=shop.platform)


@calls("TenantService.AdvanceTestClock")
async def advance_test_clock(shop: Shop) -> Valid:
    made = await shop.call(
        tenant_pb2_grpc.TenantServiceStub,
        "CreateTenant",
        tenant_pb2.CreateTenantRequest(
            request_id=new_id(), code=f"clock-{new_id()[-12:]}", display_name="Clock", test_clock_at=at(YESTERDAY)
        ),
        caller=shop.platform,
    )
    request = tenant_pb2.AdvanceTestClockRequest(request_id=new_id(), to=at(YESTERDAY + timedelta(hours=1)))
    other = changed(request)
    other.to.CopyFrom(at(YESTERDAY + timedelta(hours=2)))
    return Valid(
        request=request,
        other=other,
        caller=Caller(client_id=made.admin_client_id, secret=made.admin_client_secret),
    )


@calls("ClientService.CreateClient")
async def create_client(_shop: Shop) -> Valid:
    request = client_pb2.CreateClientRequest(
        request_id=new_id(), display_name="valid", kind=rule_pb2.ACTOR_KIND_POS, store_id=STORE
    )
    return Valid(request=request, other=changed(request, display_name="other"))


@calls("ClientService.RevokeClient")
async def revoke_client(shop: Shop) -> Valid:
    one, two = [await client(shop, rule_pb2.ACTOR_KIND_PARTNER) for _ in range(2)]
    request = client_pb2.RevokeClientRequest(request_id=new_id(), client_id=one.client_id)
    return Valid(request=request, other=changed(request, client_id=two.client_id))


@calls("StoreService.BatchUpsertStores")
async def batch_upsert_stores(_shop: Shop) -> Valid:
    request = store_pb2.BatchUpsertStoresRequest(
        request_id=new_id(), stores=[store_pb2.Store(store_id="valid", display_name="Valid")]
    )
    other = changed(request)
    other.stores[0].display_name = "Other"
    return Valid(request=request, other=other)


def registration() -> member_pb2.RegisterMemberRequest:
    card = member_pb2.Identifier(type=member_pb2.IDENTIFIER_TYPE_CARD, value=f"card-{new_id()}")
    return member_pb2.RegisterMemberRequest(request_id=new_id(), identifiers=[card])


@calls("MemberService.RegisterMember")
async def register_member(_shop: Shop) -> Valid:
    request = registration()
    return Valid(request=request, other=changed(request, display_name="Other"))


@calls("MemberService.BatchRegisterMembers")
async def batch_register_members(_shop: Shop) -> Valid:
    request = member_pb2.BatchRegisterMembersRequest(requests=[registration(), registration()])
    other = changed(request)
    other.requests[1].display_name = "Other"
    return Valid(request=request, other=other)


@calls("MemberService.LinkIdentifier")
async def link_identifier(shop: Shop) -> Valid:
    request = member_pb2.LinkIdentifierRequest(
        request_id=new_id(), member_id=await shop.member(), identifier=registration().identifiers[0]
    )
    other = changed(request)
    other.identifier.value = f"card-{new_id()}"
    return Valid(request=request, other=other)


@calls("MemberService.MergeMembers")
async def merge_members(shop: Shop) -> Valid:
    request = member_pb2.MergeMembersRequest(
        request_id=new_id(), member_id=await shop.member(), other_member_id=await shop.member(), evidence="same face"
    )
    return Valid(request=request, other=changed(request, evidence="same voice"))


# --- loyalty ---------------------------------------------------------------------------------------------------------


async def grant(shop: Shop) -> points_pb2.AccrueRequest:
    return points_pb2.AccrueRequest(
        request_id=new_id(), member_id=await shop.member(), point_currency=CURRENCY, points=10, reason="goodwill"
    )


@calls("PointsService.Accrue")
async def accrue(shop: Shop) -> Valid:
    request = await grant(shop)
    return Valid(request=request, other=changed(request, points=11))


@calls("PointsService.BatchAccrue")
async def batch_accrue(shop: Shop) -> Valid:
    request = points_pb2.BatchAccrueRequest(items=[await grant(shop), await grant(shop)])
    other = changed(request)
    other.items[1].points = 11
    return Valid(request=request, other=other)


@calls("PointsService.StreamAccrue")
async def stream_accrue(shop: Shop) -> Valid:
    request = points_pb2.StreamAccrueRequest(items=[await grant(shop)])
    other = changed(request)
    other.items[0].points = 11
    return Valid(request=request, other=other)


@calls("PointsService.HoldPoints")
async def hold_points(shop: Shop) -> Valid:
    request = points_pb2.HoldPointsRequest(
        request_id=new_id(),
        hold_id=new_id(),
        member_id=await shop.member(points=100),
        point_currency=CURRENCY,
        points=30,
    )
    return Valid(request=request, other=changed(request, points=31))


async def held_points(shop: Shop) -> str:
    """A hold of head office."""
    request = (await hold_points(shop)).request
    await shop.call(points_pb2_grpc.PointsServiceStub, "HoldPoints", request)
    return str(request.hold_id)


@calls("PointsService.CaptureHold")
async def capture_hold(shop: Shop) -> Valid:
    request = points_pb2.CaptureHoldRequest(request_id=new_id(), hold_id=await held_points(shop), points=20)
    return Valid(request=request, other=changed(request, points=21))


@calls("PointsService.VoidHold")
async def void_hold(shop: Shop) -> Valid:
    request = points_pb2.VoidHoldRequest(request_id=new_id(), hold_id=await held_points(shop))
    return Valid(request=request, other=changed(request, hold_id=new_id()))


@calls("ProgrammeService.PublishProgramme")
async def publish_programme(_shop: Shop) -> Valid:
    programme = programme_pb2.Programme(
        point_currency="valid", display_name="Valid", expiry_classes=[programme_pb2.ExpiryClass(class_id="base")]
    )
    request = programme_pb2.PublishProgrammeRequest(request_id=new_id(), programme=programme)
    other = changed(request)
    other.programme.display_name = "Other"
    return Valid(request=request, other=other)


# --- campaign --------------------------------------------------------------------------------------------------------


def promotion(promotion_id: str, kind: int, **more: object) -> promotion_pb2.PutPromotionRequest:
    return promotion_pb2.PutPromotionRequest(
        request_id=new_id(),
        promotion=promotion_pb2.Promotion(
            promotion_id=promotion_id, display_name="Valid", kind=kind, valid_from=at(NEXT_MONTH), **more
        ),
    )


@calls("PromotionService.PutPromotion")
async def put_promotion(_shop: Shop) -> Valid:
    request = promotion("valid", promotion_pb2.PROMOTION_KIND_LINE_PERCENT, percent="5")
    other = changed(request)
    other.promotion.percent = "6"
    return Valid(request=request, other=other)


@calls("PromotionService.BatchPutMemberPrices")
async def batch_put_member_prices(shop: Shop) -> Valid:
    await shop.call(
        promotion_pb2_grpc.PromotionServiceStub,
        "PutPromotion",
        promotion("valid-members", promotion_pb2.PROMOTION_KIND_MEMBER_PRICE),
    )
    request = promotion_pb2.BatchPutMemberPricesRequest(
        request_id=new_id(),
        promotion_id="valid-members",
        prices=[promotion_pb2.MemberPrice(sku=TEA, amount_off_minor=10)],
    )
    other = changed(request)
    other.prices[0].amount_off_minor = 11
    return Valid(request=request, other=other)


@calls("CouponService.PutTemplate")
async def put_template(_shop: Shop) -> Valid:
    request = coupon_pb2.PutTemplateRequest(
        request_id=new_id(),
        template=coupon_pb2.CouponTemplate(
            template_id="valid",
            display_name="Valid",
            discount=coupon_pb2.COUPON_DISCOUNT_AMOUNT,
            amount_minor=100,
            valid_from=at(YESTERDAY),
            valid_until=at(NEXT_MONTH),
        ),
    )
    other = changed(request)
    other.template.amount_minor = 101
    return Valid(request=request, other=other)


@calls("CouponService.BatchIssueCoupons")
async def batch_issue_coupons(shop: Shop) -> Valid:
    issue = coupon_pb2.IssueCoupon(template_id="welcome", member_id=await shop.member())
    request = coupon_pb2.BatchIssueCouponsRequest(request_id=new_id(), coupons=[issue])
    return Valid(
        request=request, other=coupon_pb2.BatchIssueCouponsRequest(request_id=request.request_id, coupons=[issue] * 2)
    )


@calls("CouponService.HoldBenefits")
async def hold_benefits(shop: Shop) -> Valid:
    member_id = await shop.member()
    await shop.coupon(member_id)
    listed = await shop.call(
        coupon_pb2_grpc.CouponServiceStub, "ListCoupons", coupon_pb2.ListCouponsRequest(member_id=member_id)
    )
    use = promotion_pb2.CouponUse(coupon_id=listed.coupons[0].coupon_id, amount_minor=299)
    request = coupon_pb2.HoldBenefitsRequest(
        request_id=new_id(), hold_id=new_id(), member_id=member_id, order_id=new_id(), coupons=[use]
    )
    return Valid(request=request, other=changed(request, ttl_s=60))


async def held_benefits(shop: Shop) -> str:
    """A hold of head office."""
    request = (await hold_benefits(shop)).request
    await shop.call(coupon_pb2_grpc.CouponServiceStub, "HoldBenefits", request)
    return str(request.hold_id)


@calls("CouponService.CaptureBenefits")
async def capture_benefits(shop: Shop) -> Valid:
    request = coupon_pb2.CaptureBenefitsRequest(request_id=new_id(), hold_id=await held_benefits(shop))
    return Valid(request=request, other=changed(request, hold_id=new_id()))


@calls("CouponService.VoidBenefits")
async def void_benefits(shop: Shop) -> Valid:
    request = coupon_pb2.VoidBenefitsRequest(request_id=new_id(), hold_id=await held_benefits(shop))
    return Valid(request=request, other=changed(request, hold_id=new_id()))


# --- commerce --------------------------------------------------------------------------------------------------------


@calls("CatalogueService.BatchUpsertProducts")
async def batch_upsert_products(_shop: Shop) -> Valid:
    request = catalogue_pb2.BatchUpsertProductsRequest(
        request_id=new_id(), products=[catalogue_pb2.Product(sku="valid", display_name="Valid")]
    )
    other = changed(request)
    other.products[0].display_name = "Other"
    return Valid(request=request, other=other)


@calls("CatalogueService.BatchSetPrices")
async def batch_set_prices(_shop: Shop) -> Valid:
    price = catalogue_pb2.ListPrice(sku=TEA, store_id=STORE, channel="valid", price_minor=100)
    request = catalogue_pb2.BatchSetPricesRequest(request_id=new_id(), prices=[price])
    other = changed(request)
    other.prices[0].price_minor = 101
    return Valid(request=request, other=other)


@calls("StockService.PostDocument")
async def post_document(_shop: Shop) -> Valid:
    request = catalogue_pb2.PostDocumentRequest(
        request_id=new_id(),
        kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT,
        store_id=STORE,
        lines=[catalogue_pb2.StockDocumentLine(sku=TEA, quantity=1)],
    )
    return Valid(request=request, other=changed(request, reason="other"))


@calls("OrderService.PlaceOrder")
async def place_order(shop: Shop) -> Valid:
    request = order_pb2.PlaceOrderRequest(request_id=new_id(), basket=shop.basket((TEA, 1)))
    return Valid(request=request, other=changed(request, payment_ttl_s=60))


async def placed(shop: Shop) -> str:
    """An order that waits for payment."""
    request = (await place_order(shop)).request
    reply = await shop.call(order_pb2_grpc.OrderServiceStub, "PlaceOrder", request)
    return str(reply.order.order_id)


@calls("OrderService.PayOrder")
async def pay_order(shop: Shop) -> Valid:
    request = order_pb2.PayOrderRequest(
        request_id=new_id(), order_id=await placed(shop), payments=[order_pb2.Payment(tender=order_pb2.TENDER_CARD)]
    )
    other = changed(request)
    other.payments[0].tender = order_pb2.TENDER_CASH
    return Valid(request=request, other=other)


@calls("OrderService.CancelOrder")
async def cancel_order(shop: Shop) -> Valid:
    request = order_pb2.CancelOrderRequest(request_id=new_id(), order_id=await placed(shop))
    return Valid(request=request, other=changed(request, reason="other"))


@calls("OrderService.RefundOrder")
async def refund_order(shop: Shop) -> Valid:
    order = await shop.sell(shop.basket((TEA, 3)))
    request = order_pb2.RefundOrderRequest(
        request_id=new_id(), order_id=order.order_id, lines=[order_pb2.RefundLine(line_id="1", quantity=1)]
    )
    other = changed(request)
    other.lines[0].quantity = 2
    return Valid(request=request, other=other)


@calls("PosService.Sell")
async def sell(shop: Shop) -> Valid:
    request = shop.sale(shop.basket((TEA, 1)))
    other = changed(request)
    other.sale.sale_number = f"other-{new_id()}"
    return Valid(request=request, other=other, caller=shop.till)


@calls("PosService.ReplayOfflineSales")
async def replay_offline_sales(shop: Shop) -> Valid:
    sale = shop.sale(shop.basket((TEA, 1))).sale
    sale.occurred_at.GetCurrentTime()
    request = order_pb2.ReplayOfflineSalesRequest(
        store_id=STORE, sales=[order_pb2.OfflineSale(request_id=new_id(), sale=sale, charged_minor=[4_300])]
    )
    other = changed(request)
    other.sales[0].sale.sale_number = f"other-{new_id()}"
    return Valid(request=request, other=other, caller=shop.till)


@calls("PosService.ResolveException")
async def resolve_exception(shop: Shop) -> Valid:
    request = (await replay_offline_sales(shop)).request
    request.sales[0].charged_minor[0] = 4_200
    replayed = await shop.call(order_pb2_grpc.PosServiceStub, "ReplayOfflineSales", request, caller=shop.till)
    resolve = order_pb2.ResolveExceptionRequest(
        request_id=new_id(), exception_id=replayed.verdicts[0].exceptions[0].exception_id, note="agreed with the guest"
    )
    return Valid(request=resolve, other=changed(resolve, note="other"))


@calls("SupplierService.PutSupplyPolicy")
async def put_supply_policy(_shop: Shop) -> Valid:
    request = supplier_pb2.PutSupplyPolicyRequest(request_id=new_id(), on_unfilled=supplier_pb2.ON_UNFILLED_REFUND)
    return Valid(request=request, other=changed(request, on_unfilled=supplier_pb2.ON_UNFILLED_REROUTE))


@calls("SupplierService.PutSources")
async def put_sources(_shop: Shop) -> Valid:
    request = supplier_pb2.PutSourcesRequest(
        request_id=new_id(), sku=TEA, sources=[supplier_pb2.Source(supplier_id="florist", cost_minor=100)]
    )
    other = changed(request)
    other.sources[0].cost_minor = 101
    return Valid(request=request, other=other)


@calls("SupplierService.PutSupplier")
async def put_supplier(_shop: Shop) -> Valid:
    request = supplier_pb2.PutSupplierRequest(
        request_id=new_id(), supplier=supplier_pb2.Supplier(supplier_id="valid", display_name="Valid")
    )
    other = changed(request)
    other.supplier.display_name = "Other"
    return Valid(request=request, other=other)


async def requested(shop: Shop) -> str:
    """A supplier order that waits for the florist's answer."""
    order = await shop.sell(shop.basket((FLOWERS, 2)))

    async def asked() -> str:
        listed = await shop.call(
            supplier_pb2_grpc.SupplierServiceStub,
            "ListSupplierOrders",
            supplier_pb2.ListSupplierOrdersRequest(
                supplier_id="florist", state=supplier_pb2.SUPPLIER_ORDER_STATE_REQUESTED, page_size=500
            ),
        )
        return next((each.supplier_order_id for each in listed.supplier_orders if each.order_id == order.order_id), "")

    return str(await eventually(asked))


@calls("SupplierService.AcceptSupplierOrder")
async def accept_supplier_order(shop: Shop) -> Valid:
    request = supplier_pb2.AcceptSupplierOrderRequest(request_id=new_id(), supplier_order_id=await requested(shop))
    other = changed(request)
    other.lines.add(line_id="1", quantity=1)
    return Valid(request=request, other=other, caller=shop.supplier)


@calls("SupplierService.RejectSupplierOrder")
async def reject_supplier_order(shop: Shop) -> Valid:
    request = supplier_pb2.RejectSupplierOrderRequest(request_id=new_id(), supplier_order_id=await requested(shop))
    return Valid(request=request, other=changed(request, reason="other"), caller=shop.supplier)


@calls("SupplierService.ShipParcel")
async def ship_parcel(shop: Shop) -> Valid:
    supplier_order_id = await requested(shop)
    await shop.call(
        supplier_pb2_grpc.SupplierServiceStub,
        "AcceptSupplierOrder",
        supplier_pb2.AcceptSupplierOrderRequest(request_id=new_id(), supplier_order_id=supplier_order_id),
        caller=shop.supplier,
    )
    request = supplier_pb2.ShipParcelRequest(request_id=new_id(), supplier_order_id=supplier_order_id, carrier="SF")
    return Valid(request=request, other=changed(request, carrier="YTO"), caller=shop.supplier)


@calls("SupplierService.DeliverParcel")
async def deliver_parcel(shop: Shop) -> Valid:
    shipped = await shop.call(
        supplier_pb2_grpc.SupplierServiceStub,
        "ShipParcel",
        (await ship_parcel(shop)).request,
        caller=shop.supplier,
    )
    request = supplier_pb2.DeliverParcelRequest(
        request_id=new_id(),
        supplier_order_id=shipped.supplier_order.supplier_order_id,
        parcel_no=shipped.parcel_no,
    )
    return Valid(request=request, other=changed(request, parcel_no=1_000_000), caller=shop.supplier)


async def payable(shop: Shop) -> statement_pb2.CloseStatementRequest:
    """The statement of a supplier of its own: what it sold long ago has arrived, and its return window is over."""
    name = f"grower-{new_id()[-12:]}"
    stub, now = supplier_pb2_grpc.SupplierServiceStub, datetime.now(UTC)
    supplier = supplier_pb2.Supplier(supplier_id=name, display_name="Grower")
    await shop.call(stub, "PutSupplier", supplier_pb2.PutSupplierRequest(request_id=new_id(), supplier=supplier))
    await shop.call(
        supplier_pb2_grpc.SettlementServiceStub,
        "PublishSplitRule",
        supplier_pb2.PublishSplitRuleRequest(
            request_id=new_id(),
            supplier_id=name,
            shares=[supplier_pb2.SplitShare(party=supplier_pb2.PARTY_KIND_SUPPLIER, percent="100")],
        ),
    )
    await shop.call(
        catalogue_pb2_grpc.CatalogueServiceStub,
        "BatchUpsertProducts",
        catalogue_pb2.BatchUpsertProductsRequest(
            request_id=new_id(), products=[catalogue_pb2.Product(sku=name, display_name="Seeds", supplier_id=name)]
        ),
    )
    basket = shop.basket((name, 2))
    basket.lines[0].price_source, basket.lines[0].shelf_minor = order_pb2.PRICE_SOURCE_POS, 1_000
    sale = shop.sale(basket, occurred_at=at(now - timedelta(days=9))).sale
    sold = order_pb2.ReplayOfflineSalesRequest(
        store_id=STORE, sales=[order_pb2.OfflineSale(request_id=new_id(), sale=sale, charged_minor=[1_000])]
    )
    (verdict,) = (await shop.call(order_pb2_grpc.PosServiceStub, "ReplayOfflineSales", sold, caller=shop.till)).verdicts
    order = verdict.order

    async def asked() -> str:
        request = supplier_pb2.ListSupplierOrdersRequest(
            supplier_id=name, state=supplier_pb2.SUPPLIER_ORDER_STATE_REQUESTED
        )
        return next(
            (each.supplier_order_id for each in (await shop.call(stub, "ListSupplierOrders", request)).supplier_orders),
            "",
        )

    named = {"supplier_order_id": str(await eventually(asked))}
    await shop.call(stub, "AcceptSupplierOrder", supplier_pb2.AcceptSupplierOrderRequest(request_id=new_id(), **named))
    shipped = await shop.call(stub, "ShipParcel", supplier_pb2.ShipParcelRequest(request_id=new_id(), **named))
    await shop.call(
        stub,
        "DeliverParcel",
        supplier_pb2.DeliverParcelRequest(request_id=new_id(), parcel_no=shipped.parcel_no, **named),
    )

    async def closed() -> bool:
        found = await shop.call(
            order_pb2_grpc.OrderServiceStub, "GetOrder", order_pb2.GetOrderRequest(order_id=order.order_id)
        )
        return bool(found.order.state == order_pb2.ORDER_STATE_CLOSED)

    await eventually(closed)
    return statement_pb2.CloseStatementRequest(
        request_id=new_id(),
        party_kind=supplier_pb2.PARTY_KIND_SUPPLIER,
        party_id=name,
        to_day=(YESTERDAY - timedelta(days=1)).date().isoformat(),
    )


@calls("StatementService.CloseStatement")
async def close_statement(shop: Shop) -> Valid:
    request = await payable(shop)
    return Valid(request=request, other=changed(request, party_id="florist"))


@calls("StatementService.RecordPayout")
async def record_payout(shop: Shop) -> Valid:
    closed = await shop.call(statement_pb2_grpc.StatementServiceStub, "CloseStatement", await payable(shop))
    assert closed.statement.payable_minor == 1_000
    request = statement_pb2.RecordPayoutRequest(
        request_id=new_id(),
        statement_id=closed.statement.statement_id,
        payout_state=statement_pb2.PAYOUT_STATE_PAID,
        reference="valid",
    )
    return Valid(request=request, other=changed(request, reference="other"))


@calls("SettlementService.PublishSplitRule")
async def publish_split_rule(_shop: Shop) -> Valid:
    shares = ((supplier_pb2.PARTY_KIND_SUPPLIER, "70"), (supplier_pb2.PARTY_KIND_BRAND, "30"))
    request = supplier_pb2.PublishSplitRuleRequest(
        request_id=new_id(),
        supplier_id="florist",
        shares=[supplier_pb2.SplitShare(party=party, percent=percent) for party, percent in shares],
    )
    other = changed(request)
    other.shares[0].percent, other.shares[1].percent = "60", "40"
    return Valid(request=request, other=other)
