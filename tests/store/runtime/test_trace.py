"""One trace over the call that writes an event, the database, the stream, and the consumer's transaction."""

from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.runtime import outbox, telemetry
from services.runtime.call import Call
from services.runtime.database import Connection, Database, raw
from services.runtime.events import Event
from services.runtime.settings import Settings
from tests.store.runtime.conftest import PARTITIONS, call_of
from tests.store.runtime.events import add_tenant, consumer_of, event, feed_of, relay_of, running, until


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    telemetry.configure(service="test", ratio=1.0, exporter=exporter)
    yield exporter
    RedisInstrumentor().uninstrument()
    telemetry._providers.pop().shutdown()
    telemetry._state.tracer = None


async def test_a_trace_goes_on_where_the_event_is_consumed(
    app: Database,
    system: Database,
    consumer_app: Database,
    runtime_settings: Settings,
    spans: InMemorySpanExporter,
) -> None:
    call = call_of("01a20149-73bf-74ed-8b63-cb63e277bb57")
    await add_tenant(consumer_app, call.tenant_id)
    calls: list[Call] = []

    async def handler(connection: Connection, _events: Sequence[Event], handling: Call) -> None:
        await raw(connection).execute("SELECT 1")
        calls.append(handling)

    with telemetry.entered("PlaceOrder", "") as trace:

        async def work(connection: Connection) -> None:
            traced = call._replace(trace=trace.traceparent, trace_id=trace.trace_id)
            await outbox.record(connection, traced, [event("o-1", 1)], partitions=PARTITIONS)

        await app.run(call.tenant_id, work)

    async def handled() -> bool:
        return bool(calls)

    async with running(
        relay_of(runtime_settings, system),
        consumer_of(runtime_settings, consumer_app, feed_of(system), handler=handler),
    ):
        await until(handled)
    telemetry.flush()
    of_trace = [
        span.name
        for span in spans.get_finished_spans()
        if span.context is not None and format(span.context.trace_id, "032x") == trace.trace_id
    ]
    assert {"PlaceOrder", "commerce transaction", "loyalty.accrual consume", "loyalty transaction"} <= set(of_trace)
    # what the handler writes in turn carries the trace on
    assert calls[0].trace_id == trace.trace_id
    assert calls[0].trace.split("-")[1] == trace.trace_id
