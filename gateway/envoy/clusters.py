"""Where the edge sends calls: the four services over HTTP/2, and the gateway's application over HTTP/1."""

from gateway.envoy.names import GATEWAY, TELEMETRY, Config, of_type, socket_address, typed
from services.runtime.settings import SERVICES, Settings

CONNECT_TIMEOUT = "1s"
# Pods come and go behind a headless Service's name.
DNS_REFRESH = "5s"
MAX_CONNECTIONS = 256
MAX_PENDING = 1_024
MAX_REQUESTS = 4_096
# Retries may add a fifth to the load of what is failing, and no more.
RETRY_BUDGET_PERCENT = 20.0
MIN_RETRIES = 10
BUFFER_BYTES = 1024 * 1024

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP2 = {
    "http2_protocol_options": {
        # A peer that vanished without a word is noticed; the services allow a ping each 5 s.
        "connection_keepalive": {"interval": "20s", "timeout": "5s"},
        "initial_stream_window_size": BUFFER_BYTES,
        "initial_connection_window_size": 4 * BUFFER_BYTES,
    }
}
_HTTP1: Config = {"http_protocol_options": {}}


def clusters(settings: Settings) -> list[Config]:
    """Every cluster; the one for traces only where they are exported."""
    found = [_cluster(service, settings.address_of(service), _HTTP2) for service in SERVICES]
    found.append(_cluster(GATEWAY, settings.gateway_address, _HTTP1))
    if settings.otlp_endpoint:
        found.append(_cluster(TELEMETRY, settings.otlp_endpoint.partition("://")[2].rstrip("/"), _HTTP2))
    return found


def _cluster(name: str, address: str, protocol: Config) -> Config:
    return {
        "name": name,
        "cluster_type": typed(
            "envoy.cluster.dns",
            "envoy.extensions.clusters.dns.v3.DnsCluster",
            dns_refresh_rate=DNS_REFRESH,
            dns_lookup_family="V4_PREFERRED",
        ),
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": CONNECT_TIMEOUT,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(address)}}]}],
        },
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: of_type(_HTTP_OPTIONS, explicit_http_config=protocol),
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": MAX_CONNECTIONS,
                    "max_pending_requests": MAX_PENDING,
                    "max_requests": MAX_REQUESTS,
                    "retry_budget": {
                        "budget_percent": {"value": RETRY_BUDGET_PERCENT},
                        "min_retry_concurrency": MIN_RETRIES,
                    },
                }
            ]
        },
        # Only what a dead or hanging peer does counts; a refusal of ours, UNAVAILABLE with a reason, can look alike,
        # and so a host is never ejected for long, nor more than half of them.
        "outlier_detection": {
            "consecutive_gateway_failure": 10,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 50,
        },
    }
