"""Traces and metrics.

The generic gRPC instrumentation costs 50-80 µs a call even when it does not sample, so servers and channels make
their spans by hand, and only for calls that are sampled. Database and Redis spans hang below them; without a sampled
parent none is made.
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.context import Context as OtelContext
from opentelemetry.context import attach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.util.types import Attributes
from prometheus_client import start_http_server
from sqlalchemy.ext.asyncio import AsyncEngine

from services.runtime import logs
from services.runtime.figures import Counts, Durations

CALLS = Counts("siyu_calls", "Calls answered", ["rpc", "code"])
SECONDS = Durations(
    "siyu_call_seconds",
    "Time to answer",
    ["rpc"],
    bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

MAX_STATEMENT_CHARS = 400
MAX_LINKS = 32
TRACEPARENT_CHARS = 55
"""A caller's word, which is kept with all that its call causes: what is longer is none of this version."""

_ROOTS = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})


class _HeadSampler(Sampler):
    """Follows the parent; a root is recorded only if it is a server's or a consumer's, which decide for themselves."""

    def should_sample(  # noqa: PLR0917 - the interface of OpenTelemetry
        self,
        parent_context: OtelContext | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See opentelemetry.sdk.trace.sampling.Sampler."""
        parent = get_current_span(parent_context).get_span_context()
        recorded = parent.trace_flags.sampled if parent.is_valid else kind in _ROOTS
        return SamplingResult(Decision.RECORD_AND_SAMPLE if recorded else Decision.DROP, attributes)

    def get_description(self) -> str:
        """See opentelemetry.sdk.trace.sampling.Sampler."""
        return "siyu head sampler"


@dataclass(slots=True)
class _State:
    ratio: float = 0.0
    tracer: trace.Tracer | None = None


_state = _State()


def configure(*, service: str, ratio: float, endpoint: str = "", exporter: SpanExporter | None = None) -> None:
    """Sets up tracing for a process. `ratio` of the calls without a sampled caller are sampled; 0 switches it off."""
    if exporter is None and endpoint:
        exporter = OTLPSpanExporter(endpoint=endpoint)
    if exporter is None:
        return
    provider = TracerProvider(sampler=_HeadSampler(), resource=Resource.create({"service.name": f"siyu-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    _state.tracer = provider.get_tracer("siyu")
    _state.ratio = ratio
    RedisInstrumentor().instrument(tracer_provider=provider)
    _providers.append(provider)


_providers: list[TracerProvider] = []


def watch(engine: AsyncEngine) -> None:
    """Makes spans for an engine's statements (on SQLAlchemy 2.1 the instrumentation needs the engine to do so)."""
    if _providers:
        SQLAlchemyInstrumentor().instrument(
            engine=engine.sync_engine, tracer_provider=_providers[-1], skip_dep_check=True
        )


def watch_statements(driver: Any) -> None:
    """Makes spans for the statements that an asyncpg connection runs by itself, which SQLAlchemy doesn't see."""
    if _providers:
        driver.add_query_logger(_ran)


def _ran(query: Any) -> None:
    """Told by the driver after a statement, in the context that ran it."""
    tracer = _state.tracer
    if tracer is None or not get_current_span().get_span_context().trace_flags.sampled:
        return
    text = " ".join(query.query.split())[:MAX_STATEMENT_CHARS]
    ended_ns = time.time_ns()
    span = tracer.start_span(
        text.partition(" ")[0].rstrip(";"),
        kind=SpanKind.CLIENT,
        # parameters are bound, so that no value of anybody's is in the text
        attributes={"db.system.name": "postgresql", "db.query.text": text},
        start_time=ended_ns - int(query.elapsed * 1e9),
    )
    if query.exception is not None:
        span.set_status(StatusCode.ERROR, type(query.exception).__name__)
    span.end(ended_ns)


def flush() -> None:
    """Hands over what is still buffered."""
    for provider in _providers:
        provider.force_flush()


def serve_metrics(port: int) -> None:
    """Serves /metrics for Prometheus on every interface, from a thread of its own."""
    start_http_server(port)


# a named tuple as each call makes one
class Trace(NamedTuple):
    """A call's place in a trace. `traceparent` is what is passed on (W3C Trace Context)."""

    trace_id: str
    traceparent: str


def _parsed(traceparent: str) -> SpanContext | None:
    parts = traceparent.split("-")
    if len(traceparent) != TRACEPARENT_CHARS or len(parts) != 4 or len(parts[1]) != 32 or len(parts[2]) != 16:
        return None
    try:
        context = SpanContext(int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3], 16)))  # noqa: FBT003
    except ValueError:
        return None
    return context if context.is_valid else None


class _Unrecorded(AbstractContextManager[Trace]):
    """A call without a span: a generator's context costs it 1 µs more."""

    __slots__ = ("_trace",)

    def __init__(self, entered: Trace) -> None:
        self._trace = entered

    def __enter__(self) -> Trace:
        return self._trace

    def __exit__(self, *_error: object) -> None:
        return None


def entered(name: str, traceparent: str, *, kind: SpanKind = SpanKind.SERVER) -> AbstractContextManager[Trace]:
    """A span around serving a call or an event, if the caller sampled it or chance does; a trace id in any case."""
    tracer = _state.tracer
    if tracer is None:
        return _Unrecorded(_untraced(traceparent))
    parent = _parsed(traceparent) if traceparent else None
    if parent is not None and not parent.trace_flags.sampled:
        return _Unrecorded(Trace(format(parent.trace_id, "032x"), traceparent))
    if parent is None and random.random() >= _state.ratio:  # noqa: S311 - sampling
        return _Unrecorded(_untraced(""))
    return _recorded(tracer, name, parent, kind)


@contextmanager
def _recorded(tracer: trace.Tracer, name: str, parent: SpanContext | None, kind: SpanKind) -> Iterator[Trace]:
    context = trace.set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
    with tracer.start_as_current_span(name, context=context, kind=kind) as span:
        yield _of(span.get_span_context())


@contextmanager
def calling(name: str) -> Iterator[str]:
    """A span around a call to a peer if the present one is recorded; yields the traceparent to send, or ''."""
    tracer = _state.tracer
    if tracer is None or not trace.get_current_span().is_recording():
        yield ""
        return
    with tracer.start_as_current_span(name, kind=SpanKind.CLIENT) as span:
        yield _of(span.get_span_context()).traceparent


def here() -> SpanContext | None:
    """Where the present call is in a recorded trace, to be handed to whoever goes on with its work; else None."""
    if _state.tracer is None:
        return None
    context = get_current_span().get_span_context()
    return context if context.trace_flags.sampled else None


@contextmanager
def together(name: str, callers: Iterable[SpanContext | None]) -> Iterator[None]:
    """A span around work for several calls: below the first of them that is recorded, and linked to the others."""
    tracer = _state.tracer
    recorded = [] if tracer is None else [caller for caller in callers if caller is not None]
    if tracer is None or not recorded:
        yield
        return
    below = trace.set_span_in_context(NonRecordingSpan(recorded[0]))
    links = [Link(caller) for caller in recorded[1:MAX_LINKS]]
    with tracer.start_as_current_span(name, context=below, links=links):
        yield


def outside() -> Context:
    """The present context as that of no call: a task that outlives its call must not stay in its trace."""
    context = copy_context()
    context.run(attach, OtelContext())
    context.run(logs.trace_id.set, "")
    return context


def _of(context: SpanContext) -> Trace:
    trace_id = format(context.trace_id, "032x")
    return Trace(trace_id, f"00-{trace_id}-{context.span_id:016x}-{int(context.trace_flags):02x}")


def _untraced(traceparent: str) -> Trace:
    if len(traceparent) == TRACEPARENT_CHARS:
        parts = traceparent.split("-")
        if len(parts) == 4 and len(parts[1]) == 32:
            return Trace(parts[1], traceparent)
    # a name and no secret: nobody has to fail to guess it
    trace_id = f"{random.getrandbits(128):032x}"
    return Trace(trace_id, f"00-{trace_id}-{trace_id[:16]}-00")
