"""QuoteService."""

from dataclasses import dataclass

from services.campaign import convert
from services.campaign.usecases.quoting import Quoting
from services.runtime.call import Call
from siyu.campaign.v1 import promotion_pb2

SERVICE = promotion_pb2.DESCRIPTOR.services_by_name["QuoteService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteServicer:
    """Serves QuoteService."""

    quoting: Quoting

    async def quote(self, request: promotion_pb2.QuoteRequest, call: Call) -> promotion_pb2.QuoteResponse:
        """The best allowed total, explained."""
        return convert.quote_reply(await self.quoting.quote(call, convert.to_quote(request)))
