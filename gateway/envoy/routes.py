"""Routes by gRPC path. REST calls reach them too: the transcoder runs first, and what it writes is a gRPC call."""

from gateway.contracts import Rpc, rpcs
from gateway.envoy.methods import refused_methods
from gateway.envoy.names import API_KEY, BUFFER, GATEWAY, LIMIT, TOKEN, TRANSCODER, Config, of_type, seconds
from gateway.pages import ADDRESS_HEADER, API_KEY_HEADER, CONTENT_HEADER, PAGES, Page

# The stream's duration ends a call at its deadline, as DEADLINE_EXCEEDED; the route's time-out only stands behind it.
TIMEOUT_MARGIN_MS = 250
RETRIES = 2
# "unavailable" is safe to repeat since a repeated request id answers the same, and a read changes nothing.
RETRY_ON = "connect-failure,refused-stream,reset-before-request,unavailable"


def virtual_host() -> Config:
    """One virtual host with a route for each RPC and page; another method is refused, anything else is not found."""
    return {
        "name": "siyu",
        "domains": ["*"],
        # One address, the one that can be trusted: identity counts log-ins by it. Nothing else of it goes on.
        "request_headers_to_add": [
            {
                "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "request_headers_to_remove": [ADDRESS_HEADER, API_KEY_HEADER, CONTENT_HEADER],
        "routes": [
            *(_rpc_route(rpc) for rpc in rpcs()),
            *(_page_route(page) for page in PAGES),
            *refused_methods(),
        ],
    }


def _rpc_route(rpc: Rpc) -> Config:
    deadline_ms = rpc.rule.deadline_ms
    deadline = seconds(deadline_ms)
    filters = _open_to_all() if rpc.rule.public else {}
    action: Config = {
        "cluster": rpc.service,
        "timeout": seconds(deadline_ms + TIMEOUT_MARGIN_MS),
        # A caller may ask for less time than the contract gives, not for more. What is left is told to the service.
        "max_stream_duration": {"max_stream_duration": deadline, "grpc_timeout_header_max": deadline},
    }
    if not rpc.is_repeatable:
        action["idle_timeout"] = "300s"
        filters[BUFFER] = _off("buffer.v3.BufferPerRoute")
    else:
        action["retry_policy"] = _retries(deadline_ms)
    return {
        "name": rpc.name,
        "match": {"path": rpc.path},
        "route": action,
        "typed_per_filter_config": filters,
    }


def _page_route(page: Page) -> Config:
    return {
        "name": f"gateway.{page.name}",
        "match": {"prefix": page.path} if page.is_prefix else {"path": page.path},
        "route": {
            "cluster": GATEWAY,
            "timeout": seconds(page.deadline_ms),
            "retry_policy": _retries(page.deadline_ms),
        },
        "typed_per_filter_config": {
            TRANSCODER: of_type(
                "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder", proto_descriptor_bin=""
            ),
            **(_open_to_all() if page.public else {}),
            **({} if page.limited else {LIMIT: _off("ext_authz.v3.ExtAuthzPerRoute")}),
        },
    }


def _retries(deadline_ms: int) -> Config:
    return {
        "retry_on": RETRY_ON,
        "num_retries": RETRIES,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": of_type("envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
            }
        ],
        "host_selection_retry_max_attempts": 3,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": seconds(min(500, deadline_ms))},
    }


def _open_to_all() -> Config:
    """Public: no token is asked for, and no API key is looked at."""
    return {TOKEN: _off("jwt_authn.v3.PerRouteConfig"), API_KEY: _off("ext_authz.v3.ExtAuthzPerRoute")}


def _off(config: str) -> Config:
    return of_type(f"envoy.extensions.filters.http.{config}", disabled=True)
