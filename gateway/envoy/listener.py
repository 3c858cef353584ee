"""The one listener: HTTP/1 and HTTP/2, with TLS where a certificate is given."""

from pathlib import Path
from typing import Any

from gateway.envoy.filters import http_filters
from gateway.envoy.names import CERTIFICATE, TELEMETRY, Config, of_type, socket_address, typed
from gateway.envoy.replies import local_replies
from gateway.envoy.routes import virtual_host
from gateway.pages import CLIENT_HEADER
from gateway.settings import EdgeSettings
from services.runtime.settings import Settings

BUFFER_BYTES = 1024 * 1024
MAX_HEADERS_KB = 32
MAX_HEADERS = 100
MAX_STREAMS = 256
IDLE_TIMEOUT = "300s"
HEADERS_TIMEOUT = "10s"

# No path with ids in it, no query, no body, no address: what a log must not know, it can't lose.
_ACCESS: dict[str, Any] = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "route": "%ROUTE_NAME%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "received_bytes": "%BYTES_RECEIVED%",
    "sent_bytes": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "upstream": "%UPSTREAM_HOST%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "client": f"%REQ({CLIENT_HEADER})%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def listener(settings: Settings, edge: EdgeSettings, *, certificate: Path | None) -> Config:
    """The listener with its filter chain; with TLS if the file with what `certificate_told` says is given."""
    chain: Config = {
        "filters": [
            typed(
                "envoy.filters.network.http_connection_manager",
                "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                **_manager(settings, edge),
            )
        ]
    }
    if certificate:
        chain["transport_socket"] = _tls(certificate)
    return {
        "name": "edge",
        "address": socket_address(edge.listen),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [chain],
    }


def _manager(settings: Settings, edge: EdgeSettings) -> Config:
    return {
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "server_name": "siyu",
        "use_remote_address": True,
        "xff_num_trusted_hops": edge.trusted_hops,
        # one spelling of a path only: a filter must not be passed by another
        "normalize_path": True,
        "merge_slashes": True,
        # an escaped slash is part of an id; nobody decides by the path as it came (filters.py)
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "common_http_protocol_options": {
            "idle_timeout": IDLE_TIMEOUT,
            "max_headers_count": MAX_HEADERS,
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": MAX_STREAMS,
            "initial_stream_window_size": BUFFER_BYTES,
            "initial_connection_window_size": 4 * BUFFER_BYTES,
        },
        "max_request_headers_kb": MAX_HEADERS_KB,
        "request_headers_timeout": HEADERS_TIMEOUT,
        "stream_idle_timeout": IDLE_TIMEOUT,
        "always_set_request_id_in_response": True,
        "local_reply_config": local_replies(),
        "route_config": {"name": "edge", "virtual_hosts": [virtual_host()]},
        "http_filters": http_filters(edge),
        "access_log": [
            typed(
                "envoy.access_loggers.stdout",
                "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                log_format={"json_format": _ACCESS},
            )
        ],
        **({"tracing": _tracing(settings)} if settings.otlp_endpoint else {}),
    }


def certificate_told(edge: EdgeSettings) -> Config:
    """Where the certificate lies, for a file of its own: only of what it is told there does Envoy see a renewal."""
    assert edge.tls_certificate, "asked for where there is one"
    secret = of_type(
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        name=CERTIFICATE,
        tls_certificate={
            "certificate_chain": {"filename": str(edge.tls_certificate)},
            "private_key": {"filename": str(edge.tls_key)},
            # a mounted secret changes by a link in its directory
            "watched_directory": {"path": str(edge.tls_certificate.parent)},
        },
    )
    return {"resources": [secret]}


def _tls(certificate: Path) -> Config:
    return typed(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [
                {
                    "name": CERTIFICATE,
                    "sds_config": {"path_config_source": {"path": str(certificate)}, "resource_api_version": "V3"},
                }
            ],
        },
    )


def _tracing(settings: Settings) -> Config:
    return {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": of_type(
                "envoy.config.trace.v3.OpenTelemetryConfig",
                grpc_service={"envoy_grpc": {"cluster_name": TELEMETRY}, "timeout": "1s"},
                service_name="siyu-edge",
            ),
        },
        "random_sampling": {"value": settings.trace_ratio * 100},
        "spawn_upstream_span": True,
    }
