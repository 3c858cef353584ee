"""From a basket to frozen lines: who buys, list or shelf prices, campaign's discounts, points as tender and earned."""

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from services.commerce.domain.catalogue import Product, shelf_price
from services.commerce.domain.freezing import (
    NO_POINTS,
    PointsTender,
    PricedLine,
    freeze,
    points_as_tender,
)
from services.commerce.domain.orders import (
    DEFAULT_POINT_CURRENCY,
    DEFAULT_RETURN_WINDOW_DAYS,
    Discount,
    Line,
    PriceSource,
)
from services.commerce.domain.refusals import MOST_TOLD, OutOfStock, PriceNotYours, UnknownPrice, UnknownProduct
from services.commerce.domain.saga import BudgetUse, CouponUse
from services.commerce.store import catalogue, settlement
from services.commerce.store.stores import OpenStores
from services.commerce.usecases.peers import (
    Candidate,
    EarningLine,
    Identifier,
    Peers,
    Quote,
    QuoteBasket,
    QuoteLine,
)
from services.runtime.call import Call
from services.runtime.clock import end_of_day, local_day
from services.runtime.database import Connection
from services.runtime.errors import Invalid, Missing, Refused
from services.runtime.ids import MemberId, Sku, StoreId, SupplierId

NOBODY: Final = MemberId("")
POS_SCOPE: Final = "commerce.pos.sell"
INSUFFICIENT_POINTS: Final = "INSUFFICIENT_POINTS"
"""loyalty's, for points that a member does not have."""
MAX_LINE_MINOR: Final = 1_000_000_000_000
"""As in the contract: what a till may send as a line's price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasketLine:
    """A line to sell; `shelf_minor` counts where the till sets the price."""

    line_id: str
    sku: Sku
    quantity: int
    price_source: PriceSource
    shelf_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    """What is sold, to whom, where; `sale_path` is where the request has the sale: "sale", or "" where it is one."""

    sale_path: str
    store_id: StoreId
    channel: str
    lines: tuple[BasketLine, ...]
    coupon_codes: tuple[str, ...]
    burn_points: int
    point_currency: str
    guide_id: str
    currency_code: str
    member_id: MemberId = NOBODY
    identifier: Identifier | None = None

    def field(self, name: str) -> str:
        """One of its fields as a refusal names it: "sale.basket.store_id"."""
        return self.beside(f"basket.{name}")

    def beside(self, name: str) -> str:
        """A field that the sale has next to it: "sale.occurred_at"."""
        return f"{self.sale_path}.{name}" if self.sale_path else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Goods:
    """What is known of a basket's lines and store: products, list prices, split rules in force; is it open?"""

    products: dict[Sku, Product]
    list_prices: dict[Sku, int]
    rule_versions: dict[SupplierId, int]
    store_is_open: bool


NO_GOODS: Final = Goods(products={}, list_prices={}, rule_versions={}, store_is_open=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A basket with every share frozen, and what the order must hold."""

    member_id: MemberId
    occurred_at: datetime
    closes_at: datetime
    currency_code: str
    point_currency: str
    discounts: tuple[Discount, ...]
    lines: tuple[Line, ...]
    tender: PointsTender
    quoted_points: int
    candidates: tuple[Candidate, ...]
    coupons: tuple[CouponUse, ...]
    budgets: tuple[BudgetUse, ...]

    @property
    def shelf_minor(self) -> int:
        """Before discounts."""
        return sum(line.shelf_minor for line in self.lines)

    @property
    def net_minor(self) -> int:
        """After discounts."""
        return sum(line.net_minor for line in self.lines)

    @property
    def due_minor(self) -> int:
        """What is paid otherwise than with points."""
        return self.net_minor - self.tender.value_minor


def check_basket(call: Call, basket: Basket) -> None:
    """Raises Invalid for a line id that stands twice, PriceNotYours for a price that is not the caller's to set."""
    call.actor.check_store(basket.store_id, field=basket.field("store_id"))
    seen: set[str] = set()
    for at, line in enumerate(basket.lines):
        if line.line_id in seen:
            raise Invalid(f"line {line.line_id!r} stands twice", field=basket.field(f"lines[{at}].line_id"))
        seen.add(line.line_id)
        if line.price_source is PriceSource.POS and POS_SCOPE not in call.actor.scopes:
            raise PriceNotYours(field=basket.field(f"lines[{at}].price_source"))


def with_field(refusal: Refused, basket: Basket) -> Refused:
    """The refusal with the basket's field that it is about, if any: stock, loyalty and campaign know no basket."""
    field = "" if "field" in refusal.metadata else _field_of(refusal, basket)
    return Refused(
        f"{field}: {refusal.message}" if field else refusal.message,
        subject=refusal.subject,
        reason=refusal.reason,
        metadata=refusal.metadata | ({"field": field} if field else {}),
    )


def _field_of(refusal: Refused, basket: Basket) -> str:
    if refusal.reason == OutOfStock.reason:
        short = (at for at, line in enumerate(basket.lines) if line.sku == refusal.metadata["sku"])
        return ", ".join(basket.field(f"lines[{at}].sku") for at in islice(short, MOST_TOLD))
    if refusal.reason == INSUFFICIENT_POINTS:
        return basket.field("burn_points")
    return basket.field("coupon_codes") if "coupon_id" in refusal.metadata else ""


async def goods_of(connection: Connection, tenant_id: str, basket: Basket, open_stores: OpenStores) -> Goods:
    """Reads the catalogue and the store; what is missing is left out, and refused or recorded by the caller."""
    skus = [line.sku for line in basket.lines]
    products = await catalogue.find(connection, tenant_id, skus)
    listed = [line.sku for line in basket.lines if line.price_source is PriceSource.LIST]
    prices: dict[Sku, int] = {}
    if listed:
        prices = await catalogue.prices(connection, tenant_id, listed, store_id=basket.store_id, channel=basket.channel)
    suppliers = {product.supplier_id for product in products.values() if product.supplier_id}
    versions: dict[SupplierId, int] = {}
    if suppliers:
        versions = await settlement.versions_in_force(connection, tenant_id, sorted(suppliers))
    store_is_open = await open_stores.has(connection, tenant_id, basket.store_id)
    return Goods(products=products, list_prices=prices, rule_versions=versions, store_is_open=store_is_open)


def check_goods(basket: Basket, goods: Goods) -> None:
    """Raises UnknownProduct for the lines that the catalogue does not know, or UnknownPrice for the first without."""
    skus = {basket.field(f"lines[{at}].sku"): line for at, line in enumerate(basket.lines)}
    unknown = {field: line.sku for field, line in skus.items() if line.sku not in goods.products}
    if unknown:
        raise UnknownProduct(unknown)
    for field, line in skus.items():
        if line.price_source is PriceSource.LIST and line.sku not in goods.list_prices:
            raise UnknownPrice(line.sku, field=field)


async def buyer_of(call: Call, basket: Basket, peers: Peers) -> MemberId:
    """The surviving member who buys; empty: not a member. Raises Missing (MEMBER_NOT_FOUND), IDENTIFIER_REFUSED."""
    field = basket.field("member_id" if basket.identifier is None else "identifier")
    try:
        if basket.identifier is not None:
            return await peers.members.resolve(call, basket.identifier)
        if basket.member_id:
            return await peers.members.survivor(call, basket.member_id)
    except Missing as unknown:
        # identity names the field of what it was asked, which the caller did not write
        raise Missing(
            f"{field}: {unknown.message}",
            kind=unknown.kind,
            name=unknown.name,
            reason=unknown.reason,
            metadata=unknown.metadata | {"field": field},
        ) from unknown
    except Invalid as refused:
        violations = tuple((basket.field(path), why) for path, why in refused.violations)
        raise Invalid(
            refused.message, violations=violations, reason=refused.reason, metadata=refused.metadata
        ) from refused
    return NOBODY


async def quote_discounts(
    call: Call,
    basket: Basket,
    goods: Goods,
    peers: Peers,
    *,
    member_id: MemberId,
    occurred_at: datetime,
    currency_code: str,
) -> tuple[tuple[PricedLine, ...], Quote]:
    """The lines with their shelf prices and campaign's shares, and the engine's whole answer."""
    shelf = [
        _shelf_of(line, goods, field=basket.field(f"lines[{at}].quantity")) for at, line in enumerate(basket.lines)
    ]
    quote = await peers.offers.quote(
        call,
        QuoteBasket(
            member_id=member_id,
            store_id=basket.store_id,
            channel=basket.channel,
            occurred_at=occurred_at,
            currency_code=currency_code,
            lines=tuple(_to_quote(line, goods, price) for line, price in zip(basket.lines, shelf, strict=True)),
            coupon_codes=basket.coupon_codes,
        ),
    )
    lines = tuple(
        _priced(line, goods, price, shares)
        for line, price, shares in zip(basket.lines, shelf, quote.shares, strict=True)
    )
    return lines, quote


async def price(
    call: Call,
    basket: Basket,
    goods: Goods,
    peers: Peers,
    *,
    member_id: MemberId,
    occurred_at: datetime,
    currency_code: str,
) -> Priced:
    """The whole evaluation: shelf, discounts, points as tender, points earned. Nothing is stored or held."""
    point_currency = basket.point_currency or DEFAULT_POINT_CURRENCY
    (lines, quote), programme = await asyncio.gather(
        quote_discounts(
            call,
            basket,
            goods,
            peers,
            member_id=member_id,
            occurred_at=occurred_at,
            currency_code=currency_code,
        ),
        peers.points.programme(call, point_currency),
    )
    tender = NO_POINTS
    if member_id and basket.burn_points and programme is not None:
        net_minor = sum(line.net_minor for line in lines)
        tender = points_as_tender(basket.burn_points, value=programme.value, net_minor=net_minor)
    discounts, frozen = freeze(lines, tender=tender)
    days = DEFAULT_RETURN_WINDOW_DAYS if programme is None else programme.return_window_days
    priced = Priced(
        member_id=member_id,
        occurred_at=occurred_at,
        closes_at=window_end(call, occurred_at, days=days),
        currency_code=currency_code,
        point_currency=point_currency,
        discounts=discounts,
        lines=frozen,
        tender=tender,
        quoted_points=0,
        candidates=quote.candidates,
        coupons=quote.coupons,
        budgets=quote.budgets,
    )
    return await with_quoted_points(call, priced, peers, store_id=basket.store_id, has_programme=programme is not None)


async def with_quoted_points(call: Call, priced: Priced, peers: Peers, *, store_id: str, has_programme: bool) -> Priced:
    """The same with the points that it would earn; a customer who is no member earns none."""
    if not (priced.member_id and has_programme and priced.due_minor):
        return priced
    points = await peers.points.earned(
        call,
        member_id=priced.member_id,
        point_currency=priced.point_currency,
        lines=[
            EarningLine(
                line_id=line.line_id,
                sku=line.sku,
                category=line.category,
                quantity=line.quantity,
                accrual_base_minor=line.accrual_base_minor,
            )
            for line in priced.lines
        ],
        occurred_at=priced.occurred_at,
        store_id=store_id,
    )
    return replace(priced, quoted_points=points)


def window_end(call: Call, occurred_at: datetime, *, days: int) -> datetime:
    """The end of the last brand-local day on which the goods may come back."""
    return end_of_day(local_day(occurred_at, call.time_zone) + timedelta(days=days), call.time_zone)


def _shelf_of(line: BasketLine, goods: Goods, *, field: str) -> int:
    if line.price_source is PriceSource.POS:
        return line.shelf_minor
    product = goods.products.get(line.sku)
    shelf_minor = shelf_price(
        goods.list_prices.get(line.sku, 0),
        quantity=line.quantity,
        price_quantity=1 if product is None else product.price_quantity,
    )
    if shelf_minor > MAX_LINE_MINOR:
        raise Invalid(f"{line.quantity} units of {line.sku!r} cost more than a line can", field=field)
    return shelf_minor


def _to_quote(line: BasketLine, goods: Goods, shelf_minor: int) -> QuoteLine:
    product = goods.products.get(line.sku)
    return QuoteLine(
        line_id=line.line_id,
        sku=line.sku,
        category="" if product is None else product.category,
        quantity=line.quantity,
        price_quantity=1 if product is None else product.price_quantity,
        shelf_minor=shelf_minor,
    )


def _priced(line: BasketLine, goods: Goods, shelf_minor: int, shares: tuple[tuple[Discount, int], ...]) -> PricedLine:
    product = goods.products.get(line.sku)
    if product is None:
        # only an off-line sale comes here: what the catalogue does not know has no stock to take
        return PricedLine(
            line_id=line.line_id,
            sku=line.sku,
            category="",
            quantity=line.quantity,
            price_source=line.price_source,
            shelf_minor=shelf_minor,
            shares=shares,
            from_stock=False,
        )
    return PricedLine(
        line_id=line.line_id,
        sku=line.sku,
        category=product.category,
        quantity=line.quantity,
        price_source=line.price_source,
        shelf_minor=shelf_minor,
        shares=shares,
        supplier_id=product.supplier_id,
        rule_version=goods.rule_versions.get(product.supplier_id, 0),
        from_stock=product.from_stock,
    )
