"""identity's servicers over a migrated schema of the test's own, called as the server calls them."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import jwt
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from services.identity import convert
from services.identity.domain import scopes
from services.identity.domain.credentials import Keys
from services.identity.servicer.clients import ClientServicer
from services.identity.servicer.members import MemberServicer
from services.identity.servicer.stores import StoreServicer
from services.identity.servicer.tenants import TenantServicer
from services.identity.servicer.tokens import TokenServicer
from services.identity.store import audit as audit_store
from services.identity.store.attempts import CountedAttempts
from services.identity.store.members import Members
from services.identity.usecases.clients import ClientDesk
from services.identity.usecases.members import MemberDesk, resolver
from services.identity.usecases.naming import Naming
from services.identity.usecases.registration import Registration
from services.identity.usecases.signing import SigningKeys
from services.identity.usecases.stores import StoreDesk
from services.identity.usecases.tenants import TenantDesk
from services.identity.usecases.tokens import TokenDesk, client_lookup
from services.runtime import log
from services.runtime.audit import AuditDesk, AuditServicer
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import FixedClock
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.ids import new_id
from services.runtime.outbox import Outbox
from services.runtime.relay import Relay
from services.runtime.settings import Settings
from services.runtime.tenants import Tenants
from siyu.common.v1 import event_pb2, rule_pb2
from siyu.identity.v1 import client_pb2, member_pb2, store_pb2, tenant_pb2
from tests.conftest import ROLE_PASSWORD

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ROOT_SECRET = "0123456789abcdef0123456789abcdef"
OPERATOR = Actor(kind=ActorKind.PLATFORM, id="platform:operator", scopes=scopes.PLATFORM)
PARTITIONS = 2

PHONE = member_pb2.IDENTIFIER_TYPE_PHONE
CARD = member_pb2.IDENTIFIER_TYPE_CARD
UNIONID = member_pb2.IDENTIFIER_TYPE_WECHAT_UNIONID
OPENID = member_pb2.IDENTIFIER_TYPE_WECHAT_OPENID


@dataclass(slots=True, kw_only=True)
class Identity:
    """The whole service without its transport."""

    app: Database
    system: Database
    keys: Keys
    clock: FixedClock
    tenants: TenantServicer
    stores: StoreServicer
    clients: ClientServicer
    tokens: TokenServicer
    members: MemberServicer
    audit: AuditServicer
    signing: SigningKeys
    known_tenants: list[str] = field(default_factory=list)

    def operator(self) -> Call:
        """A call of whoever runs the installation."""
        return Call(
            tenant_id="",
            client_id=OPERATOR.id,
            actor=OPERATOR,
            now=self.clock.now(),
            time_zone="UTC",
            deadline_at=deadline_in(30),
        )

    async def found(self, code: str = "", **given: object) -> tenant_pb2.CreateTenantResponse:
        """A new tenant."""
        request = tenant_pb2.CreateTenantRequest(
            request_id=new_id(), code=code or new_id(), display_name="Brand", **given
        )
        return await self.tenants.create_tenant(request, self.operator())

    async def brand(self, **given: object) -> "Brand":
        """A new tenant and its admin's calls."""
        reply = await self.found(**given)
        return Brand(identity=self, tenant_id=reply.tenant.tenant_id, admin_id=reply.admin_client_id)

    async def events(self) -> list[event_pb2.EventEnvelope]:
        """Every event in the log, after the outbox was drained."""
        await Relay(database=self.system, redis_url="redis://localhost:1/0", holder="test").drain()

        async def work(connection: Connection) -> list[event_pb2.EventEnvelope]:
            found: list[event_pb2.EventEnvelope] = []
            for partition in range(PARTITIONS):
                blocks, _ = await log.read(connection, partition=partition, after_seq=0, max_blocks=256)
                found += [event for block in blocks for event in log.unpack(block.payload).events]
            return found

        return await self.system.read(EVERY_TENANT, work)


@dataclass(slots=True, kw_only=True)
class Brand:
    """One tenant, and calls in it."""

    identity: Identity
    tenant_id: str
    admin_id: str

    def call(self, *, at: datetime = NOON, actor: Actor | None = None, client_id: str = "") -> Call:
        """A call of the admin, or of another actor."""
        admin = Actor(kind=ActorKind.BACKEND, id=self.admin_id, scopes=scopes.TENANT)
        return Call(
            tenant_id=self.tenant_id,
            client_id=client_id or self.admin_id,
            actor=actor or admin,
            now=at,
            time_zone="Asia/Shanghai",
            deadline_at=deadline_in(30),
        )

    def till(self, store_id: str = "S1") -> Call:
        """A call of a till."""
        till = Actor(kind=ActorKind.POS, id=f"till-{store_id}", scopes=scopes.USUAL[ActorKind.POS], store_id=store_id)
        return self.call(actor=till, client_id=till.id)

    async def add_stores(self, *store_ids: str) -> None:
        """Opens stores."""
        told = [store_pb2.Store(store_id=each, display_name=each, active=True) for each in store_ids]
        await self.identity.stores.batch_upsert_stores(
            store_pb2.BatchUpsertStoresRequest(request_id=new_id(), stores=told), self.call()
        )

    async def register(
        self, *named: member_pb2.Identifier, call: Call | None = None, **given: object
    ) -> member_pb2.RegisterMemberResponse:
        """Registers one member."""
        return await self.identity.members.register_member(sign_up(*named, **given), call or self.call())

    async def register_many(
        self, requests: Sequence[member_pb2.RegisterMemberRequest]
    ) -> list[member_pb2.BatchRegisterMembersResult]:
        """Registers a batch."""
        reply = await self.identity.members.batch_register_members(
            member_pb2.BatchRegisterMembersRequest(requests=requests), self.call()
        )
        return list(reply.results)

    async def resolve(self, named: member_pb2.Identifier) -> str:
        """The owner's id."""
        request = member_pb2.ResolveMemberRequest(identifier=named)
        return (await self.identity.members.resolve_member(request, self.call())).member_id

    async def get(self, member_id: str) -> member_pb2.Member:
        """The member."""
        return (
            await self.identity.members.get_member(member_pb2.GetMemberRequest(member_id=member_id), self.call())
        ).member

    async def link(self, member_id: str, named: member_pb2.Identifier, *, request_id: str = "") -> member_pb2.Member:
        """Links an identifier."""
        request = member_pb2.LinkIdentifierRequest(
            request_id=request_id or new_id(), member_id=member_id, identifier=named
        )
        return (await self.identity.members.link_identifier(request, self.call())).member

    async def merge(self, one: str, other: str, *, request_id: str = "") -> member_pb2.MergeMembersResponse:
        """Merges two members."""
        request = member_pb2.MergeMembersRequest(
            request_id=request_id or new_id(), member_id=one, other_member_id=other, evidence="said so at the till"
        )
        return await self.identity.members.merge_members(request, self.call())


def sign_up(*named: member_pb2.Identifier, request_id: str = "", **given: object) -> member_pb2.RegisterMemberRequest:
    """A request to register."""
    return member_pb2.RegisterMemberRequest(request_id=request_id or new_id(), identifiers=named, **given)


def card(value: str) -> member_pb2.Identifier:
    """A card's number."""
    return member_pb2.Identifier(type=CARD, value=value)


def phone(value: str, *, verified: bool = True) -> member_pb2.Identifier:
    """A phone number."""
    return member_pb2.Identifier(type=PHONE, value=value, verified=verified)


def openid(value: str, issuer: str = "wxapp") -> member_pb2.Identifier:
    """An openid."""
    return member_pb2.Identifier(type=OPENID, value=value, issuer=issuer)


@pytest_asyncio.fixture(loop_scope="session")
async def identity_settings(database_url: str) -> Settings:
    """Settings over an empty database."""
    return Settings(database_url=database_url, role_password=ROLE_PASSWORD, log_partitions=PARTITIONS)


@pytest.fixture
def clock() -> FixedClock:
    """Machine time, which stands still."""
    return FixedClock(NOON)


@pytest_asyncio.fixture
async def identity(identity_settings: Settings, clock: FixedClock) -> AsyncIterator[Identity]:
    """identity, constructed as main does."""
    app = Database.open(identity_settings, service="identity", pool_size=8)
    system = Database.open(identity_settings, service="identity", role="system", pool_size=2)
    lanes = [await app.lane(), await app.lane()]
    keys = Keys.derive(ROOT_SECRET)
    rows = Members(master_key=keys.data)
    naming = Naming(database=app, keys=keys)
    outbox = Outbox(encode=convert.recorded, partitions=PARTITIONS)
    resolving, looking_up = resolver(lanes[:1], rows, max_queue=1000), client_lookup(lanes[1:])
    signing = SigningKeys(database=app, keys=keys, clock=clock, seconds=time.monotonic)
    token_desk = TokenDesk(
        database=app, keys=keys, signing=signing, lookup=looking_up, attempts=CountedAttempts(), clock=clock
    )
    yield Identity(
        app=app,
        system=system,
        keys=keys,
        clock=clock,
        tenants=TenantServicer(
            desk=TenantDesk(database=app, keys=keys, clock=clock, outbox=outbox, known=Tenants(app, clock))
        ),
        stores=StoreServicer(desk=StoreDesk(database=app, outbox=outbox)),
        clients=ClientServicer(desk=ClientDesk(database=app, keys=keys, clock=clock)),
        tokens=TokenServicer(desk=token_desk, signing=signing),
        members=MemberServicer(
            desk=MemberDesk(database=app, members=rows, naming=naming, resolver=resolving, outbox=outbox),
            registration=Registration(
                database=app, members=rows, naming=naming, outbox=outbox, encode=convert.signed_up_reply
            ),
        ),
        audit=AuditServicer(desk=AuditDesk(books=audit_store, database=system)),
        signing=signing,
    )
    await resolving.close()
    await looking_up.close()
    for lane in lanes:
        await lane.close()
    await app.close()
    await system.close()


@pytest_asyncio.fixture
async def brand(identity: Identity) -> Brand:
    """A tenant."""
    return await identity.brand()


def as_kind(call: Call, actor: Actor) -> Call:
    """The call, made by another actor."""
    return call._replace(actor=actor)


def at(moment: datetime) -> Timestamp:
    told = Timestamp()
    told.FromDatetime(moment)
    return told


def new_client(
    kind: rule_pb2.ActorKind.ValueType, request_id: str = "", **given: object
) -> client_pb2.CreateClientRequest:
    return client_pb2.CreateClientRequest(
        request_id=request_id or new_id(), display_name="a client", kind=kind, **given
    )


async def token_of(identity: Identity, client_id: str, secret: str, tenant_id: str = "") -> dict[str, object]:
    """The claims of a token, verified as the other services verify it."""
    request = client_pb2.IssueTokenRequest(client_id=client_id, client_secret=secret, tenant_id=tenant_id)
    reply = await identity.tokens.issue_token(request, identity.operator())
    assert reply.expires_in_s == 600
    keys = (await identity.tokens.get_jwks(client_pb2.GetJwksRequest(), identity.operator())).keys
    key_id = jwt.get_unverified_header(reply.access_token)["kid"]
    (found,) = [{f.name: value for f, value in key.ListFields()} for key in keys if key.kid == key_id]
    # the tests' clock stands still in 2026
    return jwt.decode(
        reply.access_token,
        jwt.PyJWK(found, algorithm="ES256"),
        algorithms=["ES256"],
        audience="siyu",
        issuer="siyu",
        options={"verify_exp": False, "verify_iat": False},
    )
