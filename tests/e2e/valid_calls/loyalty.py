"""Valid calls of loyalty."""

from services.runtime.ids import new_id
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2
from tests.e2e.shop import CURRENCY, Shop
from tests.e2e.valid_calls.table import Valid, calls, changed


async def grant(shop: Shop) -> points_pb2.AccrueRequest:
    return points_pb2.AccrueRequest(
        request_id=new_id(), member_id=await shop.member(), point_currency=CURRENCY, points=10, reason="goodwill"
    )


@calls("PointsService.Accrue")
async def accrue(shop: Shop) -> Valid:
    request = await grant(shop)
    return Valid(request=request, other=changed(request, points=11))


@calls("PointsService.BatchAccrue")
async def batch_accrue(shop: Shop) -> Valid:
    request = points_pb2.BatchAccrueRequest(items=[await grant(shop), await grant(shop)])
    other = changed(request)
    other.items[1].points = 11
    return Valid(request=request, other=other)


@calls("PointsService.StreamAccrue")
async def stream_accrue(shop: Shop) -> Valid:
    request = points_pb2.StreamAccrueRequest(items=[await grant(shop)])
    other = changed(request)
    other.items[0].points = 11
    return Valid(request=request, other=other)


@calls("PointsService.HoldPoints")
async def hold_points(shop: Shop) -> Valid:
    request = points_pb2.HoldPointsRequest(
        request_id=new_id(),
        hold_id=new_id(),
        member_id=await shop.member(points=100),
        point_currency=CURRENCY,
        points=30,
    )
    return Valid(request=request, other=changed(request, points=31))


async def held_points(shop: Shop) -> str:
    """A hold of head office."""
    request = (await hold_points(shop)).request
    await shop.call(points_pb2_grpc.PointsServiceStub, "HoldPoints", request)
    return str(request.hold_id)


@calls("PointsService.CaptureHold")
async def capture_hold(shop: Shop) -> Valid:
    request = points_pb2.CaptureHoldRequest(request_id=new_id(), hold_id=await held_points(shop), points=20)
    return Valid(request=request, other=changed(request, points=21))


@calls("PointsService.VoidHold")
async def void_hold(shop: Shop) -> Valid:
    request = points_pb2.VoidHoldRequest(request_id=new_id(), hold_id=await held_points(shop))
    return Valid(request=request, other=changed(request, hold_id=new_id()))


@calls("ProgrammeService.PublishProgramme")
async def publish_programme(_shop: Shop) -> Valid:
    programme = programme_pb2.Programme(
        point_currency="valid", display_name="Valid", expiry_classes=[programme_pb2.ExpiryClass(class_id="base")]
    )
    request = programme_pb2.PublishProgrammeRequest(request_id=new_id(), programme=programme)
    other = changed(request)
    other.programme.display_name = "Other"
    return Valid(request=request, other=other)
