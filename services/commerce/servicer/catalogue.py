"""CatalogueService."""

from dataclasses import dataclass

from services.commerce.convert import goods
from services.commerce.usecases import stocking
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.ids import Sku
from siyu.commerce.v1 import catalogue_pb2

SERVICE = catalogue_pb2.DESCRIPTOR.services_by_name["CatalogueService"]
_PRODUCTS = rule_of(SERVICE.methods_by_name["BatchUpsertProducts"]).family
_PRICES = rule_of(SERVICE.methods_by_name["BatchSetPrices"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueServicer:
    """Serves CatalogueService."""

    shop: Shop

    async def batch_upsert_products(
        self, request: catalogue_pb2.BatchUpsertProductsRequest, call: Call
    ) -> catalogue_pb2.BatchUpsertProductsResponse:
        """Makes or changes products."""
        once = idempotency.once(call, family=_PRODUCTS, request=request, encode=goods.upserted_reply)
        products = [goods.product(message) for message in request.products]
        reply = await stocking.upsert_products(self.shop, call, products, once)
        return catalogue_pb2.BatchUpsertProductsResponse.FromString(reply)

    async def get_product(
        self, request: catalogue_pb2.GetProductRequest, call: Call
    ) -> catalogue_pb2.GetProductResponse:
        """Reads a product."""
        found = await stocking.product(self.shop, call, Sku(request.sku))
        return catalogue_pb2.GetProductResponse(product=goods.product_message(found))

    async def batch_set_prices(
        self, request: catalogue_pb2.BatchSetPricesRequest, call: Call
    ) -> catalogue_pb2.BatchSetPricesResponse:
        """Sets list prices."""
        once = idempotency.once(call, family=_PRICES, request=request, encode=goods.prices_reply)
        prices = [goods.list_price(message) for message in request.prices]
        reply = await stocking.set_prices(self.shop, call, prices, once)
        return catalogue_pb2.BatchSetPricesResponse.FromString(reply)
