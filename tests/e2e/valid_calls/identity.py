"""Valid calls of identity."""

from datetime import timedelta

from services.console.demo.calls import Caller
from services.runtime.ids import new_id
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2, member_pb2, store_pb2, tenant_pb2, tenant_pb2_grpc
from tests.e2e.shop import STORE, Shop, at, client
from tests.e2e.valid_calls.table import YESTERDAY, Valid, calls, changed


@calls("TenantService.CreateTenant")
async def create_tenant(shop: Shop) -> Valid:
    request = tenant_pb2.CreateTenantRequest(
        request_id=new_id(), code=f"valid-{new_id()[-12:]}", display_name="Valid", test_clock_at=at(YESTERDAY)
    )
    return Valid(request=request, other=changed(request, display_name="Other"), caller=shop.platform)


@calls("TenantService.AdvanceTestClock")
async def advance_test_clock(shop: Shop) -> Valid:
    made = await shop.call(
        tenant_pb2_grpc.TenantServiceStub,
        "CreateTenant",
        tenant_pb2.CreateTenantRequest(
            request_id=new_id(), code=f"clock-{new_id()[-12:]}", display_name="Clock", test_clock_at=at(YESTERDAY)
        ),
        caller=shop.platform,
    )
    request = tenant_pb2.AdvanceTestClockRequest(request_id=new_id(), to=at(YESTERDAY + timedelta(hours=1)))
    other = changed(request)
    other.to.CopyFrom(at(YESTERDAY + timedelta(hours=2)))
    return Valid(
        request=request,
        other=other,
        caller=Caller(client_id=made.admin_client_id, secret=made.admin_client_secret),
    )


@calls("ClientService.CreateClient")
async def create_client(_shop: Shop) -> Valid:
    request = client_pb2.CreateClientRequest(
        request_id=new_id(), display_name="valid", kind=rule_pb2.ACTOR_KIND_POS, store_id=STORE
    )
    return Valid(request=request, other=changed(request, display_name="other"))


@calls("ClientService.RevokeClient")
async def revoke_client(shop: Shop) -> Valid:
    one, two = [await client(shop, rule_pb2.ACTOR_KIND_PARTNER) for _ in range(2)]
    request = client_pb2.RevokeClientRequest(request_id=new_id(), client_id=one.client_id)
    return Valid(request=request, other=changed(request, client_id=two.client_id))


@calls("StoreService.BatchUpsertStores")
async def batch_upsert_stores(_shop: Shop) -> Valid:
    request = store_pb2.BatchUpsertStoresRequest(
        request_id=new_id(), stores=[store_pb2.Store(store_id="valid", display_name="Valid")]
    )
    other = changed(request)
    other.stores[0].display_name = "Other"
    return Valid(request=request, other=other)


def registration() -> member_pb2.RegisterMemberRequest:
    card = member_pb2.Identifier(type=member_pb2.IDENTIFIER_TYPE_CARD, value=f"card-{new_id()}")
    return member_pb2.RegisterMemberRequest(request_id=new_id(), identifiers=[card])


@calls("MemberService.RegisterMember")
async def register_member(_shop: Shop) -> Valid:
    request = registration()
    return Valid(request=request, other=changed(request, display_name="Other"))


@calls("MemberService.BatchRegisterMembers")
async def batch_register_members(_shop: Shop) -> Valid:
    request = member_pb2.BatchRegisterMembersRequest(requests=[registration(), registration()])
    other = changed(request)
    other.requests[1].display_name = "Other"
    return Valid(request=request, other=other)


@calls("MemberService.LinkIdentifier")
async def link_identifier(shop: Shop) -> Valid:
    request = member_pb2.LinkIdentifierRequest(
        request_id=new_id(), member_id=await shop.member(), identifier=registration().identifiers[0]
    )
    other = changed(request)
    other.identifier.value = f"card-{new_id()}"
    return Valid(request=request, other=other)


@calls("MemberService.MergeMembers")
async def merge_members(shop: Shop) -> Valid:
    request = member_pb2.MergeMembersRequest(
        request_id=new_id(), member_id=await shop.member(), other_member_id=await shop.member(), evidence="same face"
    )
    return Valid(request=request, other=changed(request, evidence="same voice"))
