"""Constructs identity: its roles, and what each of them needs. Nothing else does."""

import time
from dataclasses import dataclass
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.identity import convert
from services.identity.domain.credentials import ROOT_SECRET_MIN_CHARS, Keys
from services.identity.servicer import clients, members, stores, tenants, tokens
from services.identity.store import audit as audit_store
from services.identity.store.attempts import CountedAttempts
from services.identity.store.members import Members
from services.identity.usecases.clients import ClientDesk
from services.identity.usecases.members import MemberDesk, Resolver, resolver
from services.identity.usecases.naming import Naming
from services.identity.usecases.registration import Registration
from services.identity.usecases.signing import SigningKeys
from services.identity.usecases.stores import StoreDesk
from services.identity.usecases.tenants import TenantDesk
from services.identity.usecases.tokens import ClientLookup, TokenDesk, client_lookup
from services.runtime import audit, idempotency, log
from services.runtime.clock import SystemClock
from services.runtime.database import Database, Lane
from services.runtime.feed import Feed
from services.runtime.forgetting import until_done
from services.runtime.leases import repeat_leased, this_process
from services.runtime.outbox import Outbox
from services.runtime.process import Context, Role, Started, running
from services.runtime.relay import Relay
from services.runtime.server import Mounted
from services.runtime.settings import from_environment
from siyu.common.v1 import feed_pb2

SERVICE: Final = "identity"
SWEEP_EVERY_S: Final = 30.0
FEED = feed_pb2.DESCRIPTOR.services_by_name["FeedService"]


class IdentitySettings(BaseSettings):
    """What only identity is told."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    root_secret: str = Field(min_length=ROOT_SECRET_MIN_CHARS, validation_alias="SIYU_ROOT_SECRET", repr=False)
    resolve_queue: int = Field(default=8192, ge=1, validation_alias="SIYU_RESOLVE_QUEUE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The role that serves calls, with what has to be closed after it."""

    resolver: Resolver
    lookup: ClientLookup
    lanes: tuple[Lane, ...]

    async def stop(self) -> None:
        """Answers what waits, then closes the lanes."""
        await self.resolver.close()
        await self.lookup.close()
        for lane in self.lanes:
            await lane.close()


async def start_api(context: Context) -> Started:
    """Mounts identity's services."""
    settings = from_environment(IdentitySettings)
    keys = Keys.derive(settings.root_secret)
    resolving = [await context.database().lane() for _ in range(context.settings.batch_lanes)]
    looking_up = [await context.database().lane()]
    rows = Members(master_key=keys.data)
    api = Api(
        resolver=resolver(resolving, rows, max_queue=settings.resolve_queue),
        lookup=client_lookup(looking_up),
        lanes=(*resolving, *looking_up),
    )
    context.server.mount(_services(context, keys, rows, api))
    return api


def _services(context: Context, keys: Keys, rows: Members, api: Api) -> list[Mounted]:
    database, clock = context.database(), SystemClock()
    outbox = Outbox(encode=convert.recorded, partitions=context.settings.log_partitions)
    naming = Naming(database=database, keys=keys)
    signing = SigningKeys(database=database, keys=keys, clock=clock, seconds=time.monotonic)
    token_desk = TokenDesk(
        database=database,
        keys=keys,
        signing=signing,
        lookup=api.lookup,
        attempts=CountedAttempts(redis=context.redis()),
        clock=clock,
    )
    tenant_desk = TenantDesk(database=database, keys=keys, clock=clock, outbox=outbox, known=context.tenants)
    member_desk = MemberDesk(database=database, members=rows, naming=naming, resolver=api.resolver, outbox=outbox)
    registration = Registration(
        database=database, members=rows, naming=naming, outbox=outbox, encode=convert.signed_up_reply
    )
    system = context.database("system")
    served = (
        (tenants.SERVICE, tenants.TenantServicer(desk=tenant_desk)),
        (stores.SERVICE, stores.StoreServicer(desk=StoreDesk(database=database, outbox=outbox))),
        (clients.SERVICE, clients.ClientServicer(desk=ClientDesk(database=database, keys=keys, clock=clock))),
        (tokens.SERVICE, tokens.TokenServicer(desk=token_desk, signing=signing)),
        (members.SERVICE, members.MemberServicer(desk=member_desk, registration=registration)),
        (audit.SERVICE, audit.AuditServicer(desk=audit.AuditDesk(database=system, books=audit_store))),
        (FEED, Feed(system, context.settings.log_partitions)),
    )
    return [Mounted(descriptor=descriptor, servicer=servicer) for descriptor, servicer in served]


async def start_relay(context: Context) -> Started:
    """Numbers and publishes identity's events."""
    relay = Relay(database=context.database("system"), redis_url=context.settings.redis_url, holder=this_process())
    return running(context, relay.run(context.stop), name="relay")


async def start_sweeper(context: Context) -> Started:
    """Forgets old refusals, trims the log, and rotates the signing keys."""
    settings = from_environment(IdentitySettings)
    database = context.database("system")
    signing = SigningKeys(
        database=database, keys=Keys.derive(settings.root_secret), clock=SystemClock(), seconds=time.monotonic
    )
    repeated = repeat_leased(
        database, "sweeper", lambda: sweep(database, signing), every_s=SWEEP_EVERY_S, stop=context.stop
    )
    return running(context, repeated, name="sweeper")


async def sweep(database: Database, signing: SigningKeys) -> None:
    """One round, in bounded steps; what it leaves is the next round's."""
    await until_done(database, idempotency.forget_expired, at_once=idempotency.FORGET_BATCH)
    await until_done(database, log.trim, at_once=log.TRIM_BATCH)
    await signing.rotate()
    await signing.drop_old()


ROLES: Final = (
    Role("api", start_api),
    Role("relay", start_relay),
    Role("sweeper", start_sweeper),
)
