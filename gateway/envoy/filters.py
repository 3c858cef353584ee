"""What a request passes, in this order: strip, size, transcode, API key, token, limit, route.

The transcoder comes first on purpose. It rewrites the path and with it the route, and every filter that decides who
may pass stands behind it and so sees the route that the call will take; before it, a REST path could be judged by one
route and served by another.
"""

import base64
from collections.abc import Sequence

from gateway.contracts import descriptor_set, open_services
from gateway.envoy.names import (
    API_KEY,
    BUFFER,
    GATEWAY,
    LIMIT,
    PROVIDER,
    TOKEN,
    TRANSCODER,
    Config,
    of_type,
    typed,
)
from gateway.pages import (
    ADDRESS_HEADER,
    API_KEY_HEADER,
    CLIENT_HEADER,
    CONTENT_HEADER,
    JWKS,
    KEY_CHECK,
    LIMIT_CHECK,
    OURS,
)
from gateway.settings import EdgeSettings

ISSUER = "siyu"
AUDIENCE = "siyu"
# Identity publishes a key an hour before it signs.
JWKS_CACHED = "300s"
CLOCK_SKEW_S = 5
CHECK_TIMEOUT = "3s"
LIMIT_TIMEOUT = "0.5s"

_HTTP = "envoy.extensions.filters.http."
_MATCHING = "envoy.extensions.common.matching.v3.ExtensionWithMatcher"


def http_filters(settings: EdgeSettings) -> list[Config]:
    """The chain."""
    return [
        _strip(),
        # streams are let through piece by piece (routes.py); everything else is small
        typed(BUFFER, f"{_HTTP}buffer.v3.Buffer", max_request_bytes=settings.max_request_bytes),
        _transcoder(settings),
        _only_with_header(API_KEY, API_KEY_HEADER, _api_key()),
        _token(),
        typed(LIMIT, f"{_HTTP}ext_authz.v3.ExtAuthz", **_limit()),
        typed("envoy.filters.http.router", f"{_HTTP}router.v3.Router", suppress_envoy_headers=True),
    ]


def _strip() -> Config:
    """Headers by which Siyu's own parts talk to each other never come from outside."""
    ours = {"remove_on_match": {"key_matcher": {"prefix": OURS, "ignore_case": True}}}
    noted = (
        _noted(ADDRESS_HEADER, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        _noted(CONTENT_HEADER, "%REQ(CONTENT-TYPE)%"),
    )
    return typed(
        "siyu.strip",
        f"{_HTTP}header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": [ours, *noted]},
    )


def _noted(header: str, value: str) -> Config:
    """Writes down what later filters can't see any more."""
    return {
        "append": {"header": {"key": header, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
    }


def _transcoder(settings: EdgeSettings) -> Config:
    return typed(
        TRANSCODER,
        f"{_HTTP}grpc_json_transcoder.v3.GrpcJsonTranscoder",
        proto_descriptor_bin=base64.b64encode(descriptor_set()).decode(),
        services=[service.full_name for service in open_services()],
        # lowerCamelCase, 64-bit numbers as strings, zeros written out: protobuf's JSON, with nothing left to guess
        print_options={"always_print_primitive_fields": True},
        convert_grpc_status=True,
        case_insensitive_enum_parsing=False,
        # a misspelt filter must not be ignored and answer with everything
        ignore_unknown_query_parameters=False,
        request_validation_options={
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
        max_request_body_size=settings.max_request_bytes,
        max_response_body_size=settings.max_reply_bytes,
        # a hold's id may have a slash in it
        url_unescape_spec="ALL_CHARACTERS",
    )


def _api_key() -> Config:
    """Asks the application for the token that the key stands for. Without an answer nobody passes."""
    return of_type(
        f"{_HTTP}ext_authz.v3.ExtAuthz",
        **_check(KEY_CHECK, timeout=CHECK_TIMEOUT, sent=(API_KEY_HEADER,), taken=("authorization",)),
        failure_mode_allow=False,
        status_on_error={"code": "ServiceUnavailable"},
        stat_prefix="key",
    )


def _limit() -> Config:
    """Asks the application whether this client has calls left. A limit that can't be asked stops nobody."""
    return {
        **_check(LIMIT_CHECK, timeout=LIMIT_TIMEOUT, sent=(CLIENT_HEADER,), taken=()),
        "failure_mode_allow": True,
        "failure_mode_allow_header_add": False,
        "stat_prefix": "limit",
    }


def _check(path: str, *, timeout: str, sent: Sequence[str], taken: Sequence[str]) -> Config:
    """A request to the application about a request: it sees the named headers and no body."""
    answer: Config = {
        "allowed_client_headers": _headers(
            "content-type", "retry-after", "www-authenticate", "grpc-status", "grpc-status-details-bin"
        ),
    }
    if taken:
        answer["allowed_upstream_headers"] = _headers(*taken)
    return {
        "http_service": {
            "server_uri": {"uri": f"http://{GATEWAY}", "cluster": GATEWAY, "timeout": timeout},
            "path_prefix": path,
            "authorization_response": answer,
        },
        "allowed_headers": _headers("traceparent", ADDRESS_HEADER, CONTENT_HEADER, *sent),
        # Never the content type: if the application is down, Envoy answers a gRPC request to it by itself, with HTTP
        # 200 and the failure in grpc-status, and takes its own answer for a yes.
        "disallowed_headers": _headers("content-type", "cookie", "authorization"),
        "clear_route_cache": False,
    }


def _headers(*names: str) -> Config:
    return {"patterns": [{"exact": name} for name in names]}


def _only_with_header(name: str, header: str, config: Config) -> Config:
    """A filter that is skipped for requests without the header: they are spared the question."""
    present = {
        "single_predicate": {
            "input": typed(header, "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=header),
            "value_match": {"safe_regex": {"google_re2": {}, "regex": ".*"}},
        }
    }
    skip = typed("skip", "envoy.extensions.filters.common.matcher.action.v3.SkipFilter")
    return typed(
        name,
        _MATCHING,
        extension_config={"name": name, "typed_config": config},
        xds_matcher={
            "matcher_list": {"matchers": [{"predicate": {"not_matcher": present}, "on_match": {"action": skip}}]}
        },
    )


def _token() -> Config:
    """Every route needs a token, but those that say otherwise."""
    return typed(
        TOKEN,
        f"{_HTTP}jwt_authn.v3.JwtAuthentication",
        providers={
            PROVIDER: {
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "require_expiration": True,
                "clock_skew_seconds": CLOCK_SKEW_S,
                # the header alone: a token in a query string ends up in logs
                "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
                # the services verify it themselves, and take tenant and scopes from it
                "forward": True,
                "claim_to_headers": [{"header_name": CLIENT_HEADER, "claim_name": "sub"}],
                "remote_jwks": {
                    "http_uri": {"uri": f"http://{GATEWAY}{JWKS}", "cluster": GATEWAY, "timeout": "5s"},
                    "cache_duration": JWKS_CACHED,
                    # Envoy asks before it opens the port, so that its first answer is not a wrong 401; where the
                    # application does not answer yet, it opens all the same and asks on
                    "async_fetch": {"fast_listener": False, "failed_refetch_duration": "0.5s"},
                },
            }
        },
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": PROVIDER}}],
    )
