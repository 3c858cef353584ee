"""MemberService."""

from dataclasses import dataclass

from services.identity import convert
from services.identity.usecases.members import MemberDesk
from services.identity.usecases.registration import Answer, Registration
from services.runtime import idempotency
from services.runtime.auth import rule_of
from services.runtime.call import Call
from services.runtime.errors import DomainError
from siyu.identity.v1 import member_pb2

SERVICE = member_pb2.DESCRIPTOR.services_by_name["MemberService"]
_FAMILY = rule_of(SERVICE.methods_by_name["LinkIdentifier"]).family


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberServicer:
    """Serves MemberService."""

    desk: MemberDesk
    registration: Registration

    async def register_member(
        self, request: member_pb2.RegisterMemberRequest, call: Call
    ) -> member_pb2.RegisterMemberResponse:
        """Makes a member, or answers the one that owns the identifiers."""
        (answer,) = await self.registration.register(call, (convert.ask(request),))
        if isinstance(answer, DomainError):
            raise answer
        return member_pb2.RegisterMemberResponse.FromString(answer)

    async def batch_register_members(
        self, request: member_pb2.BatchRegisterMembersRequest, call: Call
    ) -> member_pb2.BatchRegisterMembersResponse:
        """Registers many, each by itself."""
        answers = await self.registration.register(call, [convert.ask(each) for each in request.requests])
        return member_pb2.BatchRegisterMembersResponse(results=[_result(answer) for answer in answers])

    async def resolve_member(
        self, request: member_pb2.ResolveMemberRequest, call: Call
    ) -> member_pb2.ResolveMemberResponse:
        """The owner of an identifier."""
        member_id, version = await self.desk.resolve(call, convert.said(request.identifier))
        return member_pb2.ResolveMemberResponse(member_id=member_id, version=version)

    async def get_member(self, request: member_pb2.GetMemberRequest, call: Call) -> member_pb2.GetMemberResponse:
        """A member, or the one that it was merged into."""
        member = await self.desk.get(call, request.member_id.lower())
        return member_pb2.GetMemberResponse(member=convert.member_message(member))

    async def link_identifier(
        self, request: member_pb2.LinkIdentifierRequest, call: Call
    ) -> member_pb2.LinkIdentifierResponse:
        """Links an identifier to a member."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.linked_reply)
        stored = await self.desk.link(
            call, once, member_id=request.member_id.lower(), said=convert.said(request.identifier)
        )
        return member_pb2.LinkIdentifierResponse.FromString(stored)

    async def merge_members(
        self, request: member_pb2.MergeMembersRequest, call: Call
    ) -> member_pb2.MergeMembersResponse:
        """Merges two members."""
        once = idempotency.once(call, family=_FAMILY, request=request, encode=convert.merged_reply)
        stored = await self.desk.merge(
            call,
            once,
            member_id=request.member_id.lower(),
            other_id=request.other_member_id.lower(),
            evidence=request.evidence,
        )
        return member_pb2.MergeMembersResponse.FromString(stored)


def _result(answer: Answer) -> member_pb2.BatchRegisterMembersResult:
    if isinstance(answer, DomainError):
        return member_pb2.BatchRegisterMembersResult(refusal_reason=answer.reason, refusal_message=answer.message)
    registered = member_pb2.RegisterMemberResponse.FromString(answer)
    return member_pb2.BatchRegisterMembersResult(member=registered.member, created=registered.created)
