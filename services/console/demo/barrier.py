"""The end of a day: all that was sold is posted, the test clock moves, and everybody has heard of it."""

import asyncio
import time
from collections.abc import Mapping
from datetime import date

from services.console.audit import CONSUMERS, Consumer
from services.console.demo.calls import Caller, Wire
from services.console.demo.opening import stamp
from services.console.demo.seed import late_evening
from siyu.common.v1 import audit_pb2, audit_pb2_grpc
from siyu.identity.v1 import tenant_pb2, tenant_pb2_grpc

NO_CHECK = "-"
SWEPT = ("loyalty.pending_points_have_matured", "loyalty.lots_have_expired", "loyalty.tiers_are_judged")
"""Loyalty's own checks that hold again when its sweeper has posted what the day's end brought."""
POLL_S = 0.02
HEARD_WITHIN_S = 60.0
CLOCK_CACHED_S = 0.25
"""Services keep a test clock for up to 200 ms."""


class NeverHeard(Exception):
    """A service did not follow the test clock in time."""


class DayEnd:
    """Waits for who follows by event, and moves the brand's clock day by day."""

    def __init__(self, wire: Wire, admin: Caller) -> None:
        """`admin` may move the clock and read where consumers stand."""
        self._wire = wire
        self._admin = admin

    async def caught_up(self) -> None:
        """Returns when every consumer of commerce's log has come to the end that the log has now."""
        heads = {head.partition: head.seq for head in (await self._positions("commerce")).log}
        deadline = time.monotonic() + HEARD_WITHIN_S
        for consumer in CONSUMERS:
            while consumer.producer == "commerce" and await self._is_behind(consumer, heads):
                await _patiently(deadline, f"{consumer} has not come to the end of the log")

    async def _is_behind(self, consumer: Consumer, heads: Mapping[int, int]) -> bool:
        at = {
            position.partition: position.seq
            for position in (await self._positions(consumer.service)).positions
            if position.producer == consumer.producer and position.queue == consumer.queue
        }
        return any(at.get(partition, 0) < seq for partition, seq in heads.items())

    async def move_to(self, day: date) -> None:
        """Sets the clock to the evening of `day` and returns when every service follows.

        The move is the newest event in identity's log: whoever has read the log to its end knows it.
        """
        told = sum(head.events_total for head in (await self._positions("identity")).log)
        reply = await self._wire.call(
            self._wire.stub(tenant_pb2_grpc.TenantServiceStub).AdvanceTestClock,
            tenant_pb2.AdvanceTestClockRequest(request_id=f"clock-{day}", to=stamp(late_evening(day))),
            caller=self._admin,
        )
        assert reply.tenant.test_clock_at.ToDatetime() == stamp(late_evening(day)).ToDatetime()
        deadline = time.monotonic() + HEARD_WITHIN_S
        while not await self._heard(more_than=told):
            await _patiently(deadline, f"the clock moved to {day}, and a service still does not know it")
        await asyncio.sleep(CLOCK_CACHED_S)
        while not await self._swept():
            await _patiently(deadline, f"the clock moved to {day}, and points that matured or expired are not posted")

    async def _swept(self) -> bool:
        answers = [await self._ask("loyalty", check) for check in SWEPT]
        return all(finding.ok for answer in answers for finding in answer.findings)

    async def _heard(self, *, more_than: int) -> bool:
        log = (await self._positions("identity")).log
        if sum(head.events_total for head in log) <= more_than:
            return False
        heads = {head.partition: head.seq for head in log}
        followers = [consumer for consumer in CONSUMERS if consumer.producer == "identity"]
        return not any([await self._is_behind(consumer, heads) for consumer in followers])

    async def _positions(self, service: str) -> audit_pb2.AuditResponse:
        return await self._ask(service, NO_CHECK)

    async def _ask(self, service: str, check_prefix: str) -> audit_pb2.AuditResponse:
        # one contract that every service serves: the channel is chosen by hand
        stub = self._wire.stub(audit_pb2_grpc.AuditServiceStub, service=service)
        request = audit_pb2.AuditRequest(check_prefix=check_prefix)
        answer: audit_pb2.AuditResponse = await self._wire.call(stub.Audit, request, caller=self._admin)
        return answer


async def _patiently(deadline: float, why: str) -> None:
    if time.monotonic() > deadline:
        raise NeverHeard(why)
    await asyncio.sleep(POLL_S)
