"""What handles events: the event as a handler gets it, and the queue that it comes by, from the log or parked."""

import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from services.runtime import telemetry
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import DEFAULT_TIME_ZONE
from services.runtime.database import Connection, Database, constraint_of
from services.runtime.errors import Conflict, DomainError, Exhausted, TimedOut, Unavailable
from services.runtime.tenants import Tenant, TenantNotReady, Tenants

HANDLE_TIMEOUT_S = 20.0
MAX_REASON_CHARS = 200
MAX_STACK_CHARS = 4000

PASSING = (Unavailable, TimedOut, Conflict, Exhausted)
"""What ends by itself and says nothing of an event; for the exceptions see `Queue.is_their_own`."""

EVENTS = Counter("siyu_consumer_events_total", "Events handled", ["service", "queue"])
FAILURES = Counter("siyu_consumer_failures_total", "Attempts to handle events that failed", ["service", "queue"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as a handler gets it. `trace` is the traceparent of the call that caused it; times are UTC."""

    id: str
    type: str
    tenant_id: str
    aggregate_type: str
    aggregate_id: str
    version: int
    occurred_at: datetime
    posted_at: datetime
    payload: bytes
    trace: str


Handler = Callable[[Connection, Sequence[Event], Call], Awaitable[None]]
"""Makes the effect of one tenant's events in the given transaction. It may run again: no effect outside of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What handling an event takes, whether it comes from the log or was parked."""

    service: str
    producer: str
    name: str
    database: Database
    handler: Handler
    tenants: Tenants

    @property
    def span(self) -> str:
        """What a trace calls the handling."""
        return f"{self.service}.{self.name} consume"

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """The tenant; None while it may be one of these very events that brings it."""
        try:
            return await self.tenants.get(tenant_id)
        except TenantNotReady:
            # identity's events bring the tenants, so the first of them comes before its tenant
            if self.producer == "identity":
                return None
            raise

    async def is_their_own(self, error: Exception) -> bool:
        """Whether the error is the events' own, who are parked in the end; else it is waited for, however long.

        A tenant that does not come is its own events' error: everybody else's can be handled. So is the time that runs
        out while the database answers others; when it answers nobody, nobody's events are to blame."""
        if isinstance(error, TimedOut):
            try:
                await self.database.ping()
            except PASSING:
                return False
            return True
        return isinstance(error, TenantNotReady) or not isinstance(error, PASSING)

    def call(self, tenant_id: str, tenant: Tenant | None, trace: telemetry.Trace) -> Call:
        """The call that the handler acts in."""
        return Call(
            tenant_id=tenant_id,
            client_id=f"{self.service}.{self.name}",
            actor=Actor(kind=ActorKind.SERVICE, id=self.service),
            now=self.tenants.now_of(tenant) if tenant else self.tenants.clock.now(),
            time_zone=tenant.time_zone if tenant else DEFAULT_TIME_ZONE,
            deadline_at=deadline_in(HANDLE_TIMEOUT_S),
            trace_id=trace.trace_id,
            trace=trace.traceparent,
        )


def reason_of(error: Exception) -> str:
    """Why an event could not be handled: the refusal's reason, else the error's kind and the constraint it broke.

    Never the error's text, which may quote what is in the event.
    """
    if isinstance(error, DomainError):
        return error.reason[:MAX_REASON_CHARS]
    return " ".join(filter(None, (type(error).__name__, constraint_of(error))))[:MAX_REASON_CHARS]


def stack_of(error: Exception) -> str:
    """Where an error came from, without its text: that may quote what is in the event."""
    return "".join(traceback.format_tb(error.__traceback__))[-MAX_STACK_CHARS:]
