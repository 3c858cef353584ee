"""A small brand for the end-to-end tests: two stores, three goods, a programme, a promotion, a coupon, a supplier."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from services.console.demo.calls import Caller, Wire
from services.console.stack.local import LocalStack
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc, promotion_pb2, promotion_pb2_grpc
from siyu.commerce.v1 import (
    catalogue_pb2,
    catalogue_pb2_grpc,
    order_pb2,
    order_pb2_grpc,
    supplier_pb2,
    supplier_pb2_grpc,
)
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import (
    client_pb2,
    client_pb2_grpc,
    member_pb2,
    member_pb2_grpc,
    store_pb2,
    store_pb2_grpc,
    tenant_pb2,
    tenant_pb2_grpc,
)
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc

STORE, OTHER_STORE = "s1", "s2"
TEA, CUP, FLOWERS = "tea", "cup", "flowers"
TEA_CENTS, CUP_CENTS, FLOWERS_CENTS = 4300, 1400, 2300
COUPON_CENTS = 299
STOCK = 1_000
CURRENCY = "points"
SETTLE_TIMEOUT_S = 30.0


def at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


@dataclass(slots=True, kw_only=True)
class Shop:
    """The brand, its callers, and what one does there most."""

    wire: Wire
    tenant_id: str
    admin: Caller
    till: Caller
    other_till: Caller
    supplier: Caller
    platform: Caller
    cards: list[str] = field(default_factory=list)
    _sales: int = 0

    async def member(self, *, points: int = 0) -> str:
        """Registers a member by a card, with points to start with; returns the member's id."""
        card = f"card-{new_id()}"
        made = await self.call(
            member_pb2_grpc.MemberServiceStub,
            "RegisterMember",
            member_pb2.RegisterMemberRequest(
                request_id=new_id(),
                identifiers=[member_pb2.Identifier(type=member_pb2.IDENTIFIER_TYPE_CARD, value=card)],
                sign_up_channel="pos",
                sign_up_store_id=STORE,
            ),
        )
        self.cards.append(card)
        if points:
            await self.call(
                points_pb2_grpc.PointsServiceStub,
                "Accrue",
                points_pb2.AccrueRequest(
                    request_id=new_id(), member_id=made.member.member_id, point_currency=CURRENCY, points=points,
                    reason="welcome",
                ),
            )  # fmt: skip
        return str(made.member.member_id)

    async def coupon(self, member_id: str, template_id: str = "welcome") -> str:
        """Issues a coupon to a member and returns its code."""
        issued = await self.call(
            coupon_pb2_grpc.CouponServiceStub,
            "BatchIssueCoupons",
            coupon_pb2.BatchIssueCouponsRequest(
                request_id=new_id(),
                coupons=[
                    coupon_pb2.IssueCoupon(template_id=template_id, member_id=member_id, code=f"C{new_id()[-12:]}")
                ],
            ),
        )
        assert not issued.verdicts[0].refusal_reason, issued.verdicts[0].refusal_reason
        return str(issued.verdicts[0].coupon.code)

    def basket(self, *goods: tuple[str, int], member_id: str = "", **more: object) -> order_pb2.Basket:
        """A basket at list prices."""
        lines = [
            order_pb2.BasketLine(line_id=str(number), sku=sku, quantity=quantity)
            for number, (sku, quantity) in enumerate(goods, 1)
        ]
        return order_pb2.Basket(store_id=STORE, channel="pos", lines=lines, member_id=member_id or None, **more)

    def sale(self, basket: order_pb2.Basket, **more: object) -> order_pb2.SellRequest:
        """A sale of the till, paid in cash."""
        self._sales += 1
        return order_pb2.SellRequest(
            request_id=new_id(),
            sale=order_pb2.Sale(
                till_id="t1",
                sale_number=f"{self._sales:06d}",
                basket=basket,
                payments=[order_pb2.Payment(tender=order_pb2.TENDER_CASH)],
                **more,
            ),
        )

    async def sell(self, basket: order_pb2.Basket) -> order_pb2.Order:
        """Sells a basket at the till."""
        reply = await self.call(order_pb2_grpc.PosServiceStub, "Sell", self.sale(basket), caller=self.till)
        return reply.order

    async def settled(self, order_id: str) -> None:
        """Waits until the services that follow by event have done their part."""
        until = time.monotonic() + SETTLE_TIMEOUT_S
        while True:
            reply = await self.call(
                order_pb2_grpc.OrderServiceStub, "WaitForOrder", order_pb2.WaitForOrderRequest(order_id=order_id)
            )
            if reply.settled:
                return
            assert time.monotonic() < until, f"still open: {list(reply.open)}"

    async def balance(self, member_id: str) -> points_pb2.GetBalanceResponse:
        """A member's points."""
        return await self.call(
            points_pb2_grpc.PointsServiceStub,
            "GetBalance",
            points_pb2.GetBalanceRequest(member_id=member_id, point_currency=CURRENCY),
        )

    async def call(self, stub: type, method: str, request: object, *, caller: Caller | None = None) -> object:
        """Calls as head office, or as another caller."""
        return await self.wire.call(getattr(self.wire.stub(stub), method), request, caller=caller or self.admin)


async def open_shop(
    stack: LocalStack, *, code: str = "", return_window_days: int = 0, clock_at: datetime | None = None
) -> Shop:
    """Makes the brand on a running stack."""
    wire = Wire(stack.addresses)
    platform = Caller(client_id="platform:tests", secret=stack.client_secret("platform:tests"))
    made = await wire.call(
        wire.stub(tenant_pb2_grpc.TenantServiceStub).CreateTenant,
        tenant_pb2.CreateTenantRequest(
            request_id=new_id(), code=code or f"shop-{new_id()[-12:]}", display_name="Shop", currency_code="CNY",
            test_clock_at=at(clock_at) if clock_at else None,
        ),
        caller=platform,
    )  # fmt: skip
    admin = Caller(client_id=made.admin_client_id, secret=made.admin_client_secret)
    tenant_id = made.tenant.tenant_id
    nobody = Caller(client_id="", secret="")
    shop = Shop(
        wire=wire,
        tenant_id=tenant_id,
        admin=admin,
        till=nobody,
        other_till=nobody,
        supplier=nobody,
        platform=platform,
    )
    await _furnish(shop, return_window_days=return_window_days, now=clock_at or datetime.now(UTC))
    shop.till = await client(shop, rule_pb2.ACTOR_KIND_POS, store_id=STORE)
    shop.other_till = await client(shop, rule_pb2.ACTOR_KIND_POS, store_id=OTHER_STORE)
    shop.supplier = await client(shop, rule_pb2.ACTOR_KIND_SUPPLIER, supplier_id="florist")
    # a brand is known to a service when identity's event has come: wait for the one that needs it
    await shop.call(
        order_pb2_grpc.OrderServiceStub, "QuoteOrder", order_pb2.QuoteOrderRequest(basket=shop.basket((TEA, 1)))
    )
    return shop


async def client(
    shop: Shop, kind: int, *, scopes: tuple[str, ...] = (), store_id: str = "", supplier_id: str = ""
) -> Caller:
    """Makes a client of the brand."""
    made = await shop.call(
        client_pb2_grpc.ClientServiceStub,
        "CreateClient",
        client_pb2.CreateClientRequest(
            request_id=new_id(),
            display_name="client",
            kind=kind,
            scopes=scopes,
            store_id=store_id,
            supplier_id=supplier_id,
        ),
    )
    return Caller(client_id=made.client.client_id, secret=made.client_secret)


async def _furnish(shop: Shop, *, return_window_days: int, now: datetime) -> None:
    stores = [store_pb2.Store(store_id=each, display_name=each, active=True) for each in (STORE, OTHER_STORE)]
    await shop.call(
        store_pb2_grpc.StoreServiceStub, "BatchUpsertStores",
        store_pb2.BatchUpsertStoresRequest(request_id=new_id(), stores=stores),
    )  # fmt: skip
    await shop.call(
        supplier_pb2_grpc.SupplierServiceStub, "PutSupplier",
        supplier_pb2.PutSupplierRequest(
            request_id=new_id(), supplier=supplier_pb2.Supplier(supplier_id="florist", display_name="Florist")
        ),
    )  # fmt: skip
    shares = (
        (supplier_pb2.PARTY_KIND_SUPPLIER, "70"),
        (supplier_pb2.PARTY_KIND_BRAND, "20"),
        (supplier_pb2.PARTY_KIND_STORE, "10"),
    )
    await shop.call(
        supplier_pb2_grpc.SettlementServiceStub, "PublishSplitRule",
        supplier_pb2.PublishSplitRuleRequest(
            request_id=new_id(), supplier_id="florist",
            shares=[supplier_pb2.SplitShare(party=party, percent=percent) for party, percent in shares],
        ),
    )  # fmt: skip
    goods = (
        (TEA, "drinks", "", TEA_CENTS),
        (CUP, "ware", "", CUP_CENTS),
        (FLOWERS, "flowers", "florist", FLOWERS_CENTS),
    )
    await shop.call(
        catalogue_pb2_grpc.CatalogueServiceStub, "BatchUpsertProducts",
        catalogue_pb2.BatchUpsertProductsRequest(
            request_id=new_id(),
            products=[
                catalogue_pb2.Product(sku=sku, display_name=sku, category=category, supplier_id=supplier_id)
                for sku, category, supplier_id, _ in goods
            ],
        ),
    )  # fmt: skip
    await shop.call(
        catalogue_pb2_grpc.CatalogueServiceStub, "BatchSetPrices",
        catalogue_pb2.BatchSetPricesRequest(
            request_id=new_id(),
            prices=[catalogue_pb2.ListPrice(sku=sku, price_minor=cents) for sku, _, _, cents in goods],
        ),
    )  # fmt: skip
    for store_id in (STORE, OTHER_STORE):
        await shop.call(
            catalogue_pb2_grpc.StockServiceStub, "PostDocument",
            catalogue_pb2.PostDocumentRequest(
                request_id=new_id(), kind=catalogue_pb2.STOCK_DOCUMENT_KIND_RECEIPT, store_id=store_id,
                lines=[catalogue_pb2.StockDocumentLine(sku=sku, quantity=STOCK) for sku in (TEA, CUP)],
            ),
        )  # fmt: skip
    await _promise(shop, return_window_days=return_window_days, now=now)


async def _promise(shop: Shop, *, return_window_days: int, now: datetime) -> None:
    programme = programme_pb2.Programme(
        point_currency=CURRENCY, display_name="Points", return_window_days=return_window_days,
        tender_value_minor=100, points_per_value=100,
        expiry_classes=[programme_pb2.ExpiryClass(class_id="base", days=365)],
        earn_rules=[programme_pb2.EarnRule(rule_id="base", points="1", per_minor=100)],
        tiers=[programme_pb2.Tier(tier_id="basic"), programme_pb2.Tier(tier_id="gold", amount_minor=100_000)],
        tier_window=programme_pb2.TierWindow(rolling_days=365),
    )  # fmt: skip
    await shop.call(
        programme_pb2_grpc.ProgrammeServiceStub, "PublishProgramme",
        programme_pb2.PublishProgrammeRequest(request_id=new_id(), programme=programme),
    )  # fmt: skip
    yesterday, next_month = at(now - timedelta(days=1)), at(now + timedelta(days=30))
    await shop.call(
        promotion_pb2_grpc.PromotionServiceStub, "PutPromotion",
        promotion_pb2.PutPromotionRequest(
            request_id=new_id(),
            promotion=promotion_pb2.Promotion(
                promotion_id="cups", display_name="A tenth off cups", kind=promotion_pb2.PROMOTION_KIND_LINE_PERCENT,
                percent="10", categories=["ware"], valid_from=yesterday,
            ),
        ),
    )  # fmt: skip
    await shop.call(
        coupon_pb2_grpc.CouponServiceStub, "PutTemplate",
        coupon_pb2.PutTemplateRequest(
            request_id=new_id(),
            template=coupon_pb2.CouponTemplate(
                template_id="welcome", display_name="Welcome", discount=coupon_pb2.COUPON_DISCOUNT_AMOUNT,
                amount_minor=COUPON_CENTS, valid_from=yesterday, valid_until=next_month, returnable=True,
            ),
        ),
    )  # fmt: skip


async def eventually(check: object, *, timeout_s: float = SETTLE_TIMEOUT_S) -> object:
    """The first truthy answer of an async check. Fails after the time-out."""
    until = time.monotonic() + timeout_s
    while not (found := await check()):  # type: ignore[operator]
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.05)
    return found
