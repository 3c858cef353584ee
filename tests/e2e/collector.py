"""A collector of traces as OpenTelemetry's own: the services send it their spans over OTLP."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from services.console.stack.ports import LOOPBACK

ANY_PORT = 0
_KINDS = {1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span: which service made it, what it is, and what it hangs below."""

    service: str
    name: str
    kind: str
    span_id: str
    parent_id: str
    statement: str


@dataclass(slots=True)
class Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """Keeps what it is sent, by trace."""

    endpoint: str = ""
    _spans: dict[str, list[Span]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def Export(  # noqa: N802 - gRPC's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Takes spans."""
        with self._lock:
            for resource in request.resource_spans:
                attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        texts = {each.key: each.value.string_value for each in span.attributes}
                        self._spans.setdefault(span.trace_id.hex(), []).append(
                            Span(
                                service=attributes.get("service.name", "").removeprefix("siyu-"),
                                name=span.name,
                                kind=_KINDS.get(span.kind, ""),
                                span_id=span.span_id.hex(),
                                parent_id=span.parent_span_id.hex(),
                                statement=texts.get("db.query.text") or texts.get("db.statement", ""),
                            )
                        )
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace that have come so far."""
        with self._lock:
            return list(self._spans.get(trace_id, ()))


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens; `endpoint` is what OTEL_EXPORTER_OTLP_ENDPOINT has to be."""
    collector = Collector()
    # threads of its own: spans also come while no test runs
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://{LOOPBACK}:{server.add_insecure_port(f'{LOOPBACK}:{ANY_PORT}')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(grace=1).wait()
