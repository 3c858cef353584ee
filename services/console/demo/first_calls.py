"""What a person pastes into a second terminal: a log-in, a member's points, a sale, over REST and over gRPC."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

from services.console.demo import rules
from services.console.demo.books import Books
from services.console.demo.brand import Brand
from services.console.demo.intake import accepted_lines, is_fuel, sku, store_id, supplier_of
from services.console.demo.opening import Opening, OpeningFailed
from siyu.commerce.v1 import catalogue_pb2, catalogue_pb2_grpc

LEAST_STOCK = 5
LEAST_PRICE_CENTS = 200
TRIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Showcase:
    """Who buys what where in the first calls: the member with the most points, a store with a till, goods in stock."""

    member_id: str
    store_id: str
    sku: str

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        """What `text` told."""
        return cls(**json.loads(text))


async def choose(opening: Opening, books: Books) -> Showcase:
    """Raises OpeningFailed if no store has any goods left to sell."""
    household = max(books.members, key=lambda number: books.members[number].available)
    stub = opening.wire.stub(catalogue_pb2_grpc.StockServiceStub)
    for store, name in _candidates(opening):
        reply = await opening.call(stub.GetStock, catalogue_pb2.GetStockRequest(store_id=store, sku=name))
        if reply.available >= LEAST_STOCK:
            return Showcase(member_id=opening.brand.members[household], store_id=store, sku=name)
    raise OpeningFailed("no store has anything left to sell")


def _candidates(opening: Opening) -> Iterator[tuple[str, str]]:
    """Stores and goods that they sold on-line from stock in the first week, at most `TRIES`."""
    left = TRIES
    for basket in opening.plan.baskets(opening.data, opening.plan.weeks[0]):
        for line in accepted_lines(basket):
            product = opening.products[line.product_id]
            stocked = not is_fuel(product) and not supplier_of(product) and basket.basket_id not in opening.plan.offline
            if stocked and line.shelf_cents >= LEAST_PRICE_CENTS * line.quantity > 0 and left:
                left -= 1
                yield store_id(basket.store_id), sku(line.product_id)


def first_calls(brand: Brand, shown: Showcase, *, edge: str) -> str:
    """The commands, with the client of the store's tills."""
    client_id, secret = brand.clients[shown.store_id]
    return f"""
Your first calls, as a till of {shown.store_id} of {rules.BRAND_NAME!r}. In another terminal, in this folder:

  export SIYU={edge} CLIENT_ID={client_id} \\
    CLIENT_SECRET={secret}
  export MEMBER_ID={shown.member_id} STORE_ID={shown.store_id} SKU={shown.sku}

  # log in: a token for ten minutes
  export TOKEN=$(curl -fsS http://$SIYU/v1/token \\
    -d '{{"client_id": "'$CLIENT_ID'", "client_secret": "'$CLIENT_SECRET'"}}' \\
    | sed -n 's/.*"accessToken": *"\\([^"]*\\)".*/\\1/p')

  # a member's points
  curl -sS -w '\\n' -H "authorization: Bearer $TOKEN" http://$SIYU/v1/members/$MEMBER_ID/points/{rules.POINT_CURRENCY}

  # a sale to that member; sent twice with one request id it would still be one
  curl -sS -w '\\n' -H "authorization: Bearer $TOKEN" http://$SIYU/v1/pos:sell -d '{{
    "request_id": "'$(python3 -c 'import uuid; print(uuid.uuid4())')'",
    "sale": {{"till_id": "t1", "sale_number": "'$(date +%s)'", "payments": [{{"tender": "TENDER_CASH"}}],
      "basket": {{"store_id": "'$STORE_ID'", "channel": "pos", "member_id": "'$MEMBER_ID'",
        "lines": [{{"line_id": "1", "sku": "'$SKU'", "quantity": 1}}]}}}}}}'

  The same over gRPC, from Python and Node: README.md, "First calls", with what is exported above.
  The API as a page: http://{edge}/docs    its description: http://{edge}/openapi.json
"""
