"""CouponService."""

from collections.abc import Callable
from dataclasses import dataclass

from services.campaign import convert
from services.campaign.domain.benefits import BenefitsHold, HoldKey, Operation, ToCapture, ToVoid
from services.campaign.usecases.coupons import CouponDesk
from services.campaign.usecases.holds import FAMILY, Asked, HoldDesk
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.ids import HoldId
from siyu.campaign.v1 import coupon_pb2

SERVICE = coupon_pb2.DESCRIPTOR.services_by_name["CouponService"]
_TEMPLATES = rule_of(SERVICE.methods_by_name["PutTemplate"]).family
_ISSUE = rule_of(SERVICE.methods_by_name["BatchIssueCoupons"]).family
assert rule_of(SERVICE.methods_by_name["HoldBenefits"]).family == FAMILY, "the contract names another family"

HoldRequest = coupon_pb2.HoldBenefitsRequest | coupon_pb2.CaptureBenefitsRequest | coupon_pb2.VoidBenefitsRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponServicer:
    """Serves CouponService."""

    desk: CouponDesk
    holds: HoldDesk

    async def put_template(self, request: coupon_pb2.PutTemplateRequest, call: Call) -> coupon_pb2.PutTemplateResponse:
        """Makes or replaces a template."""
        once = idempotency.once(call, family=_TEMPLATES, request=request, encode=convert.put_template_reply)
        stored = await self.desk.put_template(call, once, convert.template(request.template))
        return coupon_pb2.PutTemplateResponse.FromString(stored)

    async def get_template(self, request: coupon_pb2.GetTemplateRequest, call: Call) -> coupon_pb2.GetTemplateResponse:
        """A template with its counts."""
        return convert.read_template_reply(await self.desk.read_template(call, request.template_id))

    async def batch_issue_coupons(
        self, request: coupon_pb2.BatchIssueCouponsRequest, call: Call
    ) -> coupon_pb2.BatchIssueCouponsResponse:
        """Issues coupons. What is stored has no codes: they are put in here, for a repeated request as well."""
        once = idempotency.once(call, family=_ISSUE, request=request, encode=convert.issued_reply)
        stored = await self.desk.issue(call, once, convert.to_issue(request.coupons))
        reply = coupon_pb2.BatchIssueCouponsResponse.FromString(stored)
        for verdict, asked in zip(reply.verdicts, request.coupons, strict=True):
            if verdict.HasField("coupon"):
                coupon = verdict.coupon
                coupon.code = self.desk.code_to_tell(call, coupon.coupon_id, chosen=asked.code)
        return reply

    async def list_coupons(self, request: coupon_pb2.ListCouponsRequest, call: Call) -> coupon_pb2.ListCouponsResponse:
        """A page of a member's coupons."""
        found, following = await self.desk.of_member(
            call,
            request.member_id.lower(),
            usable_only=request.usable_only,
            size=request.page_size,
            token=request.page_token,
        )
        return coupon_pb2.ListCouponsResponse(
            coupons=[convert.coupon_message(coupon) for coupon in found], next_page_token=following
        )

    async def hold_benefits(
        self, request: coupon_pb2.HoldBenefitsRequest, call: Call
    ) -> coupon_pb2.HoldBenefitsResponse:
        """Holds coupons and budgets, all or none."""
        wanted = convert.to_hold(
            request, client_id=call.client_id, machine_now=self.holds.clock.now(), business_now=call.now
        )
        stored = await self.holds.ask(_asked(request, call, wanted, convert.held_reply))
        return coupon_pb2.HoldBenefitsResponse.FromString(stored)

    async def capture_benefits(
        self, request: coupon_pb2.CaptureBenefitsRequest, call: Call
    ) -> coupon_pb2.CaptureBenefitsResponse:
        """Spends a hold."""
        wanted = ToCapture(key=_key(call, request.hold_id))
        stored = await self.holds.ask(_asked(request, call, wanted, convert.captured_reply))
        return coupon_pb2.CaptureBenefitsResponse.FromString(stored)

    async def void_benefits(
        self, request: coupon_pb2.VoidBenefitsRequest, call: Call
    ) -> coupon_pb2.VoidBenefitsResponse:
        """Gives a hold back."""
        wanted = ToVoid(key=_key(call, request.hold_id))
        stored = await self.holds.ask(_asked(request, call, wanted, convert.voided_reply))
        return coupon_pb2.VoidBenefitsResponse.FromString(stored)


def _asked(request: HoldRequest, call: Call, operation: Operation, encode: Callable[[BenefitsHold], bytes]) -> Asked:
    return Asked(
        call=call,
        request_id=request.request_id,
        fingerprint=idempotency.fingerprint_of(request),
        operation=operation,
        encode=encode,
    )


def _key(call: Call, hold_id: str) -> HoldKey:
    """A hold is bound to the client that named it."""
    return HoldKey(client_id=call.client_id, hold_id=HoldId(hold_id))
