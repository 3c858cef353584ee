"""PromotionService."""

from dataclasses import dataclass

from services.campaign import convert
from services.campaign.usecases.promotions import PromotionDesk
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from siyu.campaign.v1 import promotion_pb2

SERVICE = promotion_pb2.DESCRIPTOR.services_by_name["PromotionService"]
_FAMILY = rule_of(SERVICE.methods_by_name["PutPromotion"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionServicer:
    """Serves PromotionService."""

    desk: PromotionDesk

    async def put_promotion(
        self, request: promotion_pb2.PutPromotionRequest, call: Call
    ) -> promotion_pb2.PutPromotionResponse:
        """Makes or replaces a promotion."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.put_promotion_reply)
        stored = await self.desk.put(call, once, convert.promotion(request.promotion))
        return promotion_pb2.PutPromotionResponse.FromString(stored)

    async def batch_put_member_prices(
        self, request: promotion_pb2.BatchPutMemberPricesRequest, call: Call
    ) -> promotion_pb2.BatchPutMemberPricesResponse:
        """Makes or replaces member prices."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.put_prices_reply)
        prices = convert.member_prices(request.prices)
        stored = await self.desk.put_member_prices(call, once, request.promotion_id, prices)
        return promotion_pb2.BatchPutMemberPricesResponse.FromString(stored)

    async def get_promotion(
        self, request: promotion_pb2.GetPromotionRequest, call: Call
    ) -> promotion_pb2.GetPromotionResponse:
        """A promotion with its uses."""
        return convert.read_promotion_reply(await self.desk.read(call, request.promotion_id))
