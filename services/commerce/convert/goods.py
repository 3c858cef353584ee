"""Products, prices and stock."""

from services.commerce.convert.orders import moment, stamp
from services.commerce.domain.catalogue import ListPrice, Product, Upserted
from services.commerce.domain.stock import DocumentKind, Level
from services.commerce.store.stock import StockLine
from services.commerce.usecases.stocking import StockDocument
from services.runtime.ids import Sku, StoreId, SupplierId
from siyu.commerce.v1 import catalogue_pb2


def product(message: catalogue_pb2.Product) -> Product:
    """A product to make or change; price_quantity 0 takes 1 there."""
    return Product(
        sku=Sku(message.sku),
        display_name=message.display_name,
        category=message.category,
        base_unit=message.base_unit or catalogue_pb2.BASE_UNIT_PIECE,
        price_quantity=message.price_quantity,
        supplier_id=SupplierId(message.supplier_id),
        cost_minor=message.cost_minor,
        untracked=message.untracked,
    )


def product_message(product: Product) -> catalogue_pb2.Product:
    """A product as it stands."""
    return catalogue_pb2.Product(
        sku=product.sku,
        display_name=product.display_name,
        category=product.category,
        base_unit=catalogue_pb2.BaseUnit.ValueType(product.base_unit),
        price_quantity=product.price_quantity,
        supplier_id=product.supplier_id,
        cost_minor=product.cost_minor,
        untracked=product.untracked,
    )


def list_price(message: catalogue_pb2.ListPrice) -> ListPrice:
    """A list price."""
    return ListPrice(
        sku=Sku(message.sku),
        store_id=StoreId(message.store_id),
        channel=message.channel,
        price_minor=message.price_minor,
    )


def document(request: catalogue_pb2.PostDocumentRequest) -> StockDocument:
    """A document to post."""
    return StockDocument(
        kind=DocumentKind(request.kind),
        store_id=StoreId(request.store_id),
        lines=tuple((Sku(line.sku), line.quantity) for line in request.lines),
        reason=request.reason,
        occurred_at=moment(request.occurred_at) if request.HasField("occurred_at") else None,
    )


def level_reply(level: Level) -> catalogue_pb2.GetStockResponse:
    """Stock in a location."""
    return catalogue_pb2.GetStockResponse(on_hand=level.on_hand, reserved=level.reserved, available=level.available)


def stock_line_message(line: StockLine) -> catalogue_pb2.StockLine:
    """One posted line."""
    return catalogue_pb2.StockLine(
        document_id=line.document_id,
        kind=catalogue_pb2.StockDocumentKind.ValueType(line.kind),
        change=line.change,
        on_hand_after=line.on_hand_after,
        order_id=line.order_id,
        occurred_at=stamp(line.occurred_at),
        reason=line.reason,
    )


def upserted_reply(upserted: Upserted) -> bytes:
    """BatchUpsertProducts' stored reply."""
    return catalogue_pb2.BatchUpsertProductsResponse(
        created=upserted.created, updated=upserted.updated
    ).SerializeToString()


def prices_reply(count: int) -> bytes:
    """BatchSetPrices' stored reply."""
    return catalogue_pb2.BatchSetPricesResponse(set=count).SerializeToString()


def document_reply(document_id: str) -> bytes:
    """PostDocument's stored reply."""
    return catalogue_pb2.PostDocumentResponse(document_id=document_id).SerializeToString()
