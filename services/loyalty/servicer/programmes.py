"""ProgrammeService."""

from dataclasses import dataclass

from services.loyalty import convert
from services.loyalty.usecases.programmes import ProgrammeDesk
from services.runtime import idempotency
from services.runtime.call import Call
from siyu.loyalty.v1 import programme_pb2

SERVICE = programme_pb2.DESCRIPTOR.services_by_name["ProgrammeService"]
FAMILY = "loyalty.programmes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgrammeServicer:
    """Serves ProgrammeService."""

    desk: ProgrammeDesk

    async def publish_programme(
        self, request: programme_pb2.PublishProgrammeRequest, call: Call
    ) -> programme_pb2.PublishProgrammeResponse:
        """Publishes the next version."""
        once = idempotency.once(call, family=FAMILY, request=request, encode=convert.published)
        reply = await self.desk.publish(
            call,
            once,
            convert.programme(request.programme),
            effective_at=convert.optional(request, "effective_at"),
        )
        return programme_pb2.PublishProgrammeResponse.FromString(reply)

    async def get_programme(
        self, request: programme_pb2.GetProgrammeRequest, call: Call
    ) -> programme_pb2.GetProgrammeResponse:
        """The version in force."""
        return convert.programme_message(await self.desk.get(call, request.point_currency))
