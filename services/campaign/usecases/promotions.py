"""Making promotions and member prices, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.campaign.domain.promotions import (
    MemberPrice,
    Promotion,
    PromotionKind,
    PromotionUse,
    check_member_prices,
    check_promotion,
)
from services.campaign.domain.refusals import NotAMemberPrice, PromotionMissing
from services.campaign.store import promotions
from services.runtime.call import Call
from services.runtime.database import Connection, Database
from services.runtime.idempotency import Once


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPromotion:
    """A promotion as it stands after a change."""

    promotion: Promotion
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPromotion:
    """A promotion with its version and uses."""

    promotion: Promotion
    version: int
    use: PromotionUse


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionDesk:
    """Promotions of a tenant."""

    database: Database

    async def put(self, call: Call, once: Once[PutPromotion], promotion: Promotion) -> bytes:
        """Makes or replaces a promotion; the encoded reply. Raises Invalid for a rule that contradicts itself."""
        check_promotion(promotion)

        async def work(connection: Connection) -> PutPromotion:
            version = await promotions.put(connection, call.tenant_id, promotion)
            return PutPromotion(promotion=promotion, version=version)

        return await once.run(self.database, work)

    async def put_member_prices(
        self, call: Call, once: Once[int], promotion_id: str, prices: Sequence[MemberPrice]
    ) -> bytes:
        """Makes or replaces member prices; the encoded count of those that stand then.

        Raises PromotionMissing, NotAMemberPrice, and Invalid for a SKU that is listed twice.
        """
        check_member_prices(prices)

        async def work(connection: Connection) -> int:
            kind = await promotions.kind_of(connection, call.tenant_id, promotion_id)
            if kind is None:
                raise PromotionMissing(promotion_id)
            if kind is not PromotionKind.MEMBER_PRICE:
                raise NotAMemberPrice(promotion_id)
            return await promotions.put_member_prices(connection, call.tenant_id, promotion_id, prices)

        return await once.run(self.database, work)

    async def read(self, call: Call, promotion_id: str) -> ReadPromotion:
        """The promotion with its uses. Raises PromotionMissing."""

        async def work(connection: Connection) -> ReadPromotion:
            found = await promotions.get(connection, call.tenant_id, promotion_id)
            if found is None:
                raise PromotionMissing(promotion_id)
            promotion, version, use = found
            return ReadPromotion(promotion=promotion, version=version, use=use)

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
