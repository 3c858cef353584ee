"""TierService."""

from dataclasses import dataclass

from services.loyalty import convert
from services.loyalty.usecases.tiers import TierDesk
from services.runtime.call import Call
from services.runtime.pages import key_of, number_in, token_after
from siyu.loyalty.v1 import programme_pb2

SERVICE = programme_pb2.DESCRIPTOR.services_by_name["TierService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierServicer:
    """Serves TierService."""

    desk: TierDesk

    async def get_tier(self, request: programme_pb2.GetTierRequest, call: Call) -> programme_pb2.GetTierResponse:
        """The member's tier."""
        seen = await self.desk.get(call, member_id=request.member_id.lower(), point_currency=request.point_currency)
        return convert.tier_message(seen)

    async def list_tier_changes(
        self, request: programme_pb2.ListTierChangesRequest, call: Call
    ) -> programme_pb2.ListTierChangesResponse:
        """A page of the member's changes of tier."""
        changes, before = await self.desk.changes(
            call,
            member_id=request.member_id.lower(),
            point_currency=request.point_currency,
            size=request.page_size,
            before=_version(request.page_token),
        )
        return programme_pb2.ListTierChangesResponse(
            changes=[convert.change_message(change) for change in changes],
            next_page_token=token_after(str(before)) if before else "",
        )


def _version(token: str) -> int | None:
    key = key_of(token)
    return number_in(key) if key else None
