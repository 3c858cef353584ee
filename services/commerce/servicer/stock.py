"""StockService."""

from dataclasses import dataclass
from typing import Final

from services.commerce.convert import goods
from services.commerce.servicer.marks import number_of
from services.commerce.usecases import stocking
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.ids import Sku, StoreId
from services.runtime.pages import key_of, token_after
from siyu.commerce.v1 import catalogue_pb2

SERVICE = catalogue_pb2.DESCRIPTOR.services_by_name["StockService"]
DEFAULT_LINES: Final = 50
NEWEST: Final = 2**62
_FAMILY = rule_of(SERVICE.methods_by_name["PostDocument"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class StockServicer:
    """Serves StockService."""

    shop: Shop

    async def post_document(
        self, request: catalogue_pb2.PostDocumentRequest, call: Call
    ) -> catalogue_pb2.PostDocumentResponse:
        """Posts a receipt, a count or an adjustment."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=goods.document_reply)
        reply = await stocking.post_document(self.shop, call, goods.document(request), once)
        return catalogue_pb2.PostDocumentResponse.FromString(reply)

    async def get_stock(self, request: catalogue_pb2.GetStockRequest, call: Call) -> catalogue_pb2.GetStockResponse:
        """Reads a SKU's stock in one location."""
        level = await stocking.level(self.shop, call, store_id=StoreId(request.store_id), sku=Sku(request.sku))
        return goods.level_reply(level)

    async def list_stock_lines(
        self, request: catalogue_pb2.ListStockLinesRequest, call: Call
    ) -> catalogue_pb2.ListStockLinesResponse:
        """The document lines behind a figure, newest first."""
        limit = request.page_size or DEFAULT_LINES
        key = key_of(request.page_token)
        found = await stocking.lines(
            self.shop,
            call,
            store_id=StoreId(request.store_id),
            sku=Sku(request.sku),
            before=number_of(key, most=NEWEST) if key else NEWEST,
            limit=limit,
        )
        return catalogue_pb2.ListStockLinesResponse(
            lines=[goods.stock_line_message(line) for line in found],
            next_page_token=token_after(str(found[-1].version)) if len(found) == limit else "",
        )
