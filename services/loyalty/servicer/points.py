"""PointsService."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.loyalty import convert
from services.loyalty.usecases.points import PointsDesk
from services.runtime.call import Call
from services.runtime.clock import Clock
from services.runtime.pages import id_in, key_of, number_in, token_after
from siyu.loyalty.v1 import points_pb2

SERVICE = points_pb2.DESCRIPTOR.services_by_name["PointsService"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointsServicer:
    """Serves PointsService. `clock` is machine time, which holds live by."""

    desk: PointsDesk
    clock: Clock

    async def accrue(self, request: points_pb2.AccrueRequest, call: Call) -> points_pb2.AccrueResponse:
        """Grants points."""
        return convert.accrued_message(await self.desk.accrue(call, convert.grants([request])))

    async def batch_accrue(self, request: points_pb2.BatchAccrueRequest, call: Call) -> points_pb2.BatchAccrueResponse:
        """Grants many, each with a verdict."""
        granted = await self.desk.accrue_many(call, convert.grants(request.items))
        return convert.verdicts_message(points_pb2.BatchAccrueResponse(), granted)

    async def stream_accrue(
        self, requests: AsyncIterator[tuple[points_pb2.StreamAccrueRequest, Call]]
    ) -> AsyncIterator[points_pb2.StreamAccrueResponse]:
        """Grants many over a stream."""
        async for request, call in requests:
            granted = await self.desk.accrue_many(call, convert.grants(request.items))
            yield convert.verdicts_message(points_pb2.StreamAccrueResponse(), granted)

    async def quote_points(self, request: points_pb2.QuotePointsRequest, call: Call) -> points_pb2.QuotePointsResponse:
        """What an order would earn."""
        return convert.quote_message(*await self.desk.quote(call, convert.quote(request)))

    async def get_balance(self, request: points_pb2.GetBalanceRequest, call: Call) -> points_pb2.GetBalanceResponse:
        """A member's balance."""
        balance = await self.desk.balance(
            call, member_id=request.member_id.lower(), point_currency=request.point_currency
        )
        return convert.balance_message(balance)

    async def hold_points(self, request: points_pb2.HoldPointsRequest, call: Call) -> points_pb2.HoldPointsResponse:
        """Draws points for an order."""
        held = await self.desk.hold(call, convert.hold(request, call, machine_now=self.clock.now()))
        return points_pb2.HoldPointsResponse(hold=convert.hold_message(held), available_points=held.available_points)

    async def capture_hold(self, request: points_pb2.CaptureHoldRequest, call: Call) -> points_pb2.CaptureHoldResponse:
        """Spends a hold."""
        hold = await self.desk.resolve(call, convert.capture(request, call))
        return points_pb2.CaptureHoldResponse(hold=convert.hold_message(hold))

    async def void_hold(self, request: points_pb2.VoidHoldRequest, call: Call) -> points_pb2.VoidHoldResponse:
        """Gives a hold back."""
        hold = await self.desk.resolve(call, convert.void(request, call))
        return points_pb2.VoidHoldResponse(hold=convert.hold_message(hold))

    async def list_entries(self, request: points_pb2.ListEntriesRequest, call: Call) -> points_pb2.ListEntriesResponse:
        """A page of the member's history."""
        entries, following = await self.desk.entries(
            call,
            member_id=request.member_id.lower(),
            point_currency=request.point_currency,
            size=request.page_size,
            after=_place(request.page_token),
        )
        return points_pb2.ListEntriesResponse(
            entries=[convert.entry_message(entry) for entry in entries],
            next_page_token=token_after(f"{following[0]}/{following[1]}") if following else "",
        )


def _place(token: str) -> tuple[int, str] | None:
    key = key_of(token)
    if not key:
        return None
    version, _, entry_id = key.partition("/")
    return number_in(version), id_in(entry_id)
