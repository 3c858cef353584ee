"""PosService: the till's own calls."""

from dataclasses import dataclass
from typing import Final

from services.commerce.convert import offline as convert_offline
from services.commerce.convert import orders as convert
from services.commerce.usecases import offline, reading, resolving, selling
from services.commerce.usecases.shop import Shop
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call, out_of_scope
from services.runtime.errors import AlreadyExists, Invalid, NotAllowed
from services.runtime.ids import is_id
from services.runtime.pages import key_of, token_after
from siyu.commerce.v1 import order_pb2

SERVICE = order_pb2.DESCRIPTOR.services_by_name["PosService"]
DEFAULT_EXCEPTIONS: Final = 50
_EXCEPTIONS = rule_of(SERVICE.methods_by_name["ResolveException"]).family
assert rule_of(SERVICE.methods_by_name["Sell"]).family == selling.FAMILY
assert rule_of(SERVICE.methods_by_name["ReplayOfflineSales"]).family == offline.FAMILY


@dataclass(frozen=True, slots=True, kw_only=True)
class PosServicer:
    """Serves PosService."""

    shop: Shop

    async def sell(self, request: order_pb2.SellRequest, call: Call) -> order_pb2.SellResponse:
        """The whole sale."""
        once = idempotency.once(
            call, family=selling.FAMILY, request=request, encode=convert.sold_reply, keep_refusals=True
        )
        reply = await selling.sell(self.shop, call, convert.till_sale(request.sale), once)
        return order_pb2.SellResponse.FromString(reply)

    async def replay_offline_sales(
        self, request: order_pb2.ReplayOfflineSalesRequest, call: Call
    ) -> order_pb2.ReplayOfflineSalesResponse:
        """Records off-line sales, one after the other: a customer's second sale rests on the first."""
        verdicts = [await self._record(message, request.store_id, call) for message in request.sales]
        return order_pb2.ReplayOfflineSalesResponse(verdicts=verdicts)

    async def list_exceptions(
        self, request: order_pb2.ListExceptionsRequest, call: Call
    ) -> order_pb2.ListExceptionsResponse:
        """Differences between off-line sales and the books."""
        limit = request.page_size or DEFAULT_EXCEPTIONS
        before = key_of(request.page_token)
        if before and not is_id(before):
            raise Invalid("not a token of this list", field="page_token")
        found = await reading.exceptions(
            self.shop,
            call,
            store_id=request.store_id,
            resolved=request.state == order_pb2.EXCEPTION_STATE_RESOLVED,
            before=before,
            limit=limit,
        )
        return order_pb2.ListExceptionsResponse(
            exceptions=[convert.exception_message(exception) for exception in found],
            next_page_token=token_after(found[-1].exception_id) if len(found) == limit else "",
        )

    async def resolve_exception(
        self, request: order_pb2.ResolveExceptionRequest, call: Call
    ) -> order_pb2.ResolveExceptionResponse:
        """Resolves an exception, once."""
        once = idempotency.once(
            call, family=_EXCEPTIONS, request=request, encode=convert.resolved_reply, keep_refusals=True
        )
        reply = await resolving.resolve(self.shop, call, request.exception_id.lower(), note=request.note, once=once)
        return order_pb2.ResolveExceptionResponse.FromString(reply)

    async def _record(self, message: order_pb2.OfflineSale, store_id: str, call: Call) -> order_pb2.OfflineVerdict:
        once = idempotency.once(call, family=offline.FAMILY, request=message, encode=convert_offline.recorded_reply)
        try:
            if message.sale.basket.store_id != store_id:
                raise out_of_scope("the sale is another store's", field="sale.basket.store_id")
            reply, duplicate = await offline.record(self.shop, call, convert_offline.offline_sale(message), once)
        except (Invalid, NotAllowed, AlreadyExists) as refusal:
            return convert_offline.refused(refusal)
        return convert_offline.verdict(reply, duplicate=duplicate)
