"""proto <-> domain, and events as they are stored."""

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.identity.domain.clients import Client
from services.identity.domain.events import (
    Event,
    IdentifierLinked,
    MemberMerged,
    MemberRegistered,
    StoreChanged,
    TenantChanged,
)
from services.identity.domain.identifiers import Named
from services.identity.domain.members import Member, Merge
from services.identity.domain.stores import Store, Upserted
from services.identity.domain.tenants import Tenant
from services.identity.domain.tokens import PublicKey
from services.identity.usecases.clients import NewClient
from services.identity.usecases.naming import Said
from services.identity.usecases.registration import Ask, SignedUp
from services.identity.usecases.tenants import Founded, NewTenant
from services.runtime.call import ActorKind
from services.runtime.idempotency import fingerprint_of
from services.runtime.ids import ClientId, StoreId
from services.runtime.outbox import Recorded
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2, events_pb2, member_pb2, store_pb2, tenant_pb2

_TO_PROTO: dict[ActorKind, rule_pb2.ActorKind.ValueType] = {
    ActorKind.POS: rule_pb2.ACTOR_KIND_POS,
    ActorKind.BACKEND: rule_pb2.ACTOR_KIND_BACKEND,
    ActorKind.SUPPLIER: rule_pb2.ACTOR_KIND_SUPPLIER,
    ActorKind.PARTNER: rule_pb2.ACTOR_KIND_PARTNER,
    ActorKind.STAFF: rule_pb2.ACTOR_KIND_STAFF,
}
_FROM_PROTO = {number: kind for kind, number in _TO_PROTO.items()}


def instant(at: Timestamp) -> datetime:
    """The time in UTC, to the microsecond; the server lets none pass that no calendar has (`runtime.bounds`)."""
    return at.ToDatetime(tzinfo=UTC)


def timestamp(at: datetime) -> Timestamp:
    """The time as the contract has it."""
    said = Timestamp()
    said.FromDatetime(at)
    return said


def _optional(message: Message, name: str) -> datetime | None:
    return instant(getattr(message, name)) if message.HasField(name) else None


# --- tenants ---------------------------------------------------------------------------------------------------------


def new_tenant(request: tenant_pb2.CreateTenantRequest) -> NewTenant:
    """The tenant as it was asked for."""
    return NewTenant(
        code=request.code,
        display_name=request.display_name,
        time_zone=request.time_zone,
        currency_code=request.currency_code,
        region_code=request.region_code,
        test_clock_at=_optional(request, "test_clock_at"),
    )


def tenant_message(tenant: Tenant) -> tenant_pb2.Tenant:
    """The tenant as the contract has it."""
    return tenant_pb2.Tenant(
        tenant_id=tenant.tenant_id,
        code=tenant.code,
        display_name=tenant.display_name,
        time_zone=tenant.time_zone,
        currency_code=tenant.currency_code,
        region_code=tenant.region_code,
        test_clock_at=None if tenant.test_clock_at is None else timestamp(tenant.test_clock_at),
        created_at=timestamp(tenant.created_at),
    )


def founded_reply(founded: Founded) -> bytes:
    """The stored reply of CreateTenant: everything but the secret."""
    return tenant_pb2.CreateTenantResponse(
        tenant=tenant_message(founded.tenant), admin_client_id=founded.admin.client_id
    ).SerializeToString()


def clock_reply(tenant: Tenant) -> bytes:
    """The stored reply of AdvanceTestClock."""
    return tenant_pb2.AdvanceTestClockResponse(tenant=tenant_message(tenant)).SerializeToString()


# --- stores ----------------------------------------------------------------------------------------------------------


def store(message: store_pb2.Store) -> Store:
    """The store as it was asked for."""
    return Store(
        store_id=StoreId(message.store_id),
        display_name=message.display_name,
        time_zone=message.time_zone,
        active=message.active,
    )


def store_message(told: Store) -> store_pb2.Store:
    """The store as the contract has it."""
    return store_pb2.Store(
        store_id=told.store_id,
        display_name=told.display_name,
        time_zone=told.time_zone,
        active=told.active,
        version=told.version,
    )


def upserted_reply(upserted: Upserted) -> bytes:
    """The stored reply of BatchUpsertStores."""
    return store_pb2.BatchUpsertStoresResponse(created=upserted.created, updated=upserted.updated).SerializeToString()


# --- clients ---------------------------------------------------------------------------------------------------------


def new_client(request: client_pb2.CreateClientRequest) -> NewClient:
    """The client as it was asked for."""
    return NewClient(
        display_name=request.display_name,
        kind=_FROM_PROTO[request.kind],
        scopes=tuple(request.scopes),
        store_id=request.store_id,
        supplier_id=request.supplier_id,
    )


def client_message(client: Client) -> client_pb2.Client:
    """The client as the contract has it."""
    return client_pb2.Client(
        client_id=client.client_id,
        display_name=client.display_name,
        kind=_TO_PROTO[client.kind],
        scopes=client.scopes,
        store_id=client.store_id,
        supplier_id=client.supplier_id,
        created_at=timestamp(client.created_at),
        revoked_at=None if client.revoked_at is None else timestamp(client.revoked_at),
    )


def client(message: client_pb2.Client) -> Client:
    """The client of a stored reply."""
    return Client(
        client_id=ClientId(message.client_id),
        display_name=message.display_name,
        kind=_FROM_PROTO[message.kind],
        scopes=tuple(message.scopes),
        store_id=message.store_id,
        supplier_id=message.supplier_id,
        created_at=instant(message.created_at),
        revoked_at=_optional(message, "revoked_at"),
    )


def created_client_reply(made: Client) -> bytes:
    """The stored reply of CreateClient: everything but the secret."""
    return client_pb2.CreateClientResponse(client=client_message(made)).SerializeToString()


def revoked_client_reply(revoked: Client) -> bytes:
    """The stored reply of RevokeClient."""
    return client_pb2.RevokeClientResponse(client=client_message(revoked)).SerializeToString()


def jwk(key: PublicKey) -> client_pb2.JsonWebKey:
    """The key as a JSON Web Key."""
    return client_pb2.JsonWebKey(kty="EC", crv="P-256", x=key.x, y=key.y, kid=key.kid, use="sig", alg="ES256")


# --- members ---------------------------------------------------------------------------------------------------------


def said(message: member_pb2.Identifier) -> Said:
    """The identifier as the caller wrote it."""
    return Said(type=message.type, issuer=message.issuer, value=message.value, verified=message.verified)


def ask(request: member_pb2.RegisterMemberRequest) -> Ask:
    """The sign-up as it was asked for."""
    return Ask(
        request_id=request.request_id,
        fingerprint=fingerprint_of(request),
        identifiers=tuple(said(identifier) for identifier in request.identifiers),
        display_name=request.display_name,
        channel=request.sign_up_channel,
        store_id=request.sign_up_store_id,
        occurred_at=_optional(request, "occurred_at"),
    )


def identifier_message(named: Named) -> member_pb2.Identifier:
    """The identifier as the contract has it, in plain text."""
    return member_pb2.Identifier(
        type=member_pb2.IdentifierType.ValueType(named.type.value),
        issuer=named.issuer,
        value=named.value,
        verified=named.verified,
    )


def member_message(member: Member) -> member_pb2.Member:
    """The member as the contract has it."""
    return member_pb2.Member(
        member_id=member.member_id,
        display_name=member.display_name,
        sign_up_channel=member.sign_up_channel,
        sign_up_store_id=member.sign_up_store_id,
        signed_up_at=timestamp(member.signed_up_at),
        identifiers=[identifier_message(named) for named in member.identifiers],
        version=member.version,
    )


def signed_up_reply(signed_up: SignedUp) -> bytes:
    """The stored reply of RegisterMember, alone and in a batch."""
    return member_pb2.RegisterMemberResponse(
        member=member_message(signed_up.member), created=signed_up.created
    ).SerializeToString()


def linked_reply(member: Member) -> bytes:
    """The stored reply of LinkIdentifier."""
    return member_pb2.LinkIdentifierResponse(member=member_message(member)).SerializeToString()


def merged_reply(merge: Merge) -> bytes:
    """The stored reply of MergeMembers."""
    return member_pb2.MergeMembersResponse(
        member=member_message(merge.survivor), merged_member_id=merge.merged_member_id, merge_id=merge.merge_id
    ).SerializeToString()


# --- events ----------------------------------------------------------------------------------------------------------


def recorded(event: Event) -> Recorded:
    """The event as it is stored. A merge lies with its survivor's events."""
    match event:
        case TenantChanged():
            return _of_tenant(event)
        case StoreChanged():
            return _of_store(event)
        case MemberRegistered():
            return _of_member(
                "identity.MemberRegistered",
                event,
                event.signed_up_at,
                events_pb2.MemberRegistered(
                    member_id=event.member_id,
                    sign_up_channel=event.channel,
                    sign_up_store_id=event.store_id,
                    signed_up_at=timestamp(event.signed_up_at),
                    identifier_types=_type_names([kind.value for kind in event.identifier_types]),
                ),
            )
        case IdentifierLinked():
            (name,) = _type_names([event.identifier_type.value])
            return _of_member(
                "identity.IdentifierLinked",
                event,
                event.linked_at,
                events_pb2.IdentifierLinked(member_id=event.member_id, identifier_type=name),
            )
        case MemberMerged():
            return _of_member(
                "identity.MemberMerged",
                event,
                event.merged_at,
                events_pb2.MemberMerged(
                    merge_id=event.merge_id, member_id=event.member_id, merged_member_id=event.merged_member_id
                ),
            )


def _of_tenant(event: TenantChanged) -> Recorded:
    clock = None if event.test_clock_at is None else timestamp(event.test_clock_at)
    payload = events_pb2.TenantChanged(
        tenant_id=event.tenant_id,
        time_zone=event.time_zone,
        currency_code=event.currency_code,
        test_clock_at=clock,
        version=event.version,
    )
    return Recorded(
        type="identity.TenantChanged",
        aggregate_type="tenant",
        aggregate_id=event.tenant_id,
        version=event.version,
        partition_key=event.tenant_id,
        payload=payload.SerializeToString(),
        occurred_at=event.changed_at,
    )


def _of_store(event: StoreChanged) -> Recorded:
    store = event.store
    payload = events_pb2.StoreChanged(
        store_id=store.store_id,
        display_name=store.display_name,
        time_zone=store.time_zone,
        active=store.active,
        version=store.version,
    )
    return Recorded(
        type="identity.StoreChanged",
        aggregate_type="store",
        aggregate_id=store.store_id,
        version=store.version,
        # behind its tenant's own events: nobody hears of a store before its tenant
        partition_key=event.tenant_id,
        payload=payload.SerializeToString(),
        occurred_at=event.changed_at,
    )


def _of_member(
    name: str, event: MemberRegistered | IdentifierLinked | MemberMerged, at: datetime, payload: Message
) -> Recorded:
    return Recorded(
        type=name,
        aggregate_type="member",
        aggregate_id=event.member_id,
        version=event.version,
        partition_key=event.member_id,
        payload=payload.SerializeToString(),
        occurred_at=at,
    )


def _type_names(numbers: Sequence[int]) -> list[str]:
    return [member_pb2.IdentifierType.Name(member_pb2.IdentifierType.ValueType(number)) for number in numbers]
