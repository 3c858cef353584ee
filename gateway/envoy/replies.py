"""What Envoy says itself, in the words of every other refusal: a google.rpc.Status, as JSON or with gRPC's details."""

import base64
from dataclasses import dataclass

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway.envoy.names import Config, of_type
from gateway.pages import CONTENT_HEADER
from gateway.refusals import METHOD_NOT_ALLOWED, OTHER_METHODS
from services.runtime.status import DOMAIN

BODY = "%LOCAL_REPLY_BODY%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is said instead of an answer.

    `found` adds what Envoy found to the JSON's text; gRPC's message can't have it, since its details repeat the text
    and are made before. `grpc_code` where gRPC's own word for it is another.
    """

    code: int
    reason: str
    text: str
    found: bool = False
    http_status: int | None = None
    """Where Envoy would answer with another."""
    grpc_code: int | None = None

    def details(self) -> str:
        """The header that gRPC's rich errors come by."""
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        told = status_pb2.Status(code=self.code_over_grpc(), message=self.text, details=[info])
        return base64.b64encode(told.SerializeToString(deterministic=True)).decode().rstrip("=")

    def code_over_grpc(self) -> int:
        """The status in gRPC's trailers."""
        return self.code if self.grpc_code is None else self.grpc_code


# By the words in which Envoy's token filter explains itself; everything else of it is TOKEN_INVALID.
_TOKEN_REPLIES: dict[str, Reply] = {
    "Jwt_is_missing": Reply(
        code=code_pb2.UNAUTHENTICATED, reason="TOKEN_MISSING", text="send authorization: Bearer <token>"
    ),
    "Jwt_is_expired": Reply(
        code=code_pb2.UNAUTHENTICATED, reason="TOKEN_EXPIRED", text="the token has expired; ask for a new one"
    ),
    # nothing is wrong with the token: whoever gets a 401 throws it away
    "Jwks_remote_fetch_is_failed": Reply(
        code=code_pb2.UNAVAILABLE,
        reason="KEYS_NOT_READY",
        text="the keys that verify tokens can't be read; try again",
        http_status=503,
    ),
}
_TOKEN_INVALID = Reply(
    code=code_pb2.UNAUTHENTICATED, reason="TOKEN_INVALID", text="the token is not valid here", found=True
)
# By HTTP status.
_REPLIES: dict[int, Reply] = {
    400: Reply(
        code=code_pb2.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        text="the request can't be read (/openapi.json tells every field's type and choices)",
        found=True,
    ),
    401: _TOKEN_INVALID,
    # a token for another audience, which the services call invalid like any other
    403: Reply(
        code=_TOKEN_INVALID.code, reason=_TOKEN_INVALID.reason, text=_TOKEN_INVALID.text, found=True, http_status=401
    ),
    404: Reply(
        code=code_pb2.NOT_FOUND,
        reason="PATH_NOT_FOUND",
        text="no such path; /openapi.json lists them all",
        # clients that try one version of a service after another look for this one
        grpc_code=code_pb2.UNIMPLEMENTED,
    ),
    405: Reply(
        # the path is there: who reads NOT_FOUND looks for what he misspelt
        code=code_pb2.UNIMPLEMENTED,
        reason=METHOD_NOT_ALLOWED,
        text=OTHER_METHODS,
        found=True,
    ),
    408: Reply(code=code_pb2.INVALID_ARGUMENT, reason="REQUEST_TOO_SLOW", text="the request did not arrive in time"),
    413: Reply(
        code=code_pb2.INVALID_ARGUMENT, reason="REQUEST_TOO_LARGE", text="the request is larger than this edge takes"
    ),
    415: Reply(
        code=code_pb2.INVALID_ARGUMENT,
        reason="MALFORMED_REQUEST",
        text="the content type is not one that this path takes",
    ),
    429: Reply(code=code_pb2.RESOURCE_EXHAUSTED, reason="EXHAUSTED", text="too much at once; come back in a moment"),
    431: Reply(
        code=code_pb2.INVALID_ARGUMENT,
        reason="HEADERS_TOO_LARGE",
        text="the request's headers are larger than this edge takes",
    ),
    500: Reply(code=code_pb2.INTERNAL, reason="INTERNAL", text="internal error; report the request id"),
    502: Reply(
        code=code_pb2.UNAVAILABLE,
        reason="UNAVAILABLE",
        text="the service did not answer as it should; try again",
    ),
    503: Reply(
        code=code_pb2.UNAVAILABLE,
        reason="UNAVAILABLE",
        text="the service does not answer; repeat with the same request id",
    ),
    504: Reply(
        code=code_pb2.DEADLINE_EXCEEDED,
        reason="DEADLINE_EXCEEDED",
        text="the deadline passed; the outcome may be unknown: repeat with the same request id",
    ),
}


def local_replies() -> Config:
    """The mapping of Envoy's own replies, the first that fits; the application's refusals pass as they are."""
    found = [
        *((_denied_for(words), reply) for words, reply in _TOKEN_REPLIES.items()),
        *((_status_filter(status), reply) for status, reply in _REPLIES.items()),
    ]
    return {
        "mappers": [
            _by_application(),
            *(_over_grpc(condition, reply) for condition, reply in found),
            *(_over_http(condition, reply) for condition, reply in found),
        ]
    }


def _by_application() -> Config:
    """What the application refused (UAEX) has its words already; but not if it could not be asked (503)."""
    return {
        "filter": _all_of({"response_flag_filter": {"flags": ["UAEX"]}}, _status_filter(503, equal=False)),
        "body_format_override": {
            "text_format_source": {"inline_string": BODY},
            "content_type": "application/json",
        },
    }


def _over_grpc(condition: Config, reply: Reply) -> Config:
    """The body becomes grpc-message; Envoy leaves the status alone where there is one."""
    return {
        "filter": _all_of(condition, _of_grpc()),
        "body_format_override": {"text_format_source": {"inline_string": reply.text}},
        "headers_to_add": [
            _header("grpc-status", str(reply.code_over_grpc())),
            _header("grpc-status-details-bin", reply.details()),
        ],
    }


def _over_http(condition: Config, reply: Reply) -> Config:
    body = {
        "code": reply.code,
        "message": f"{reply.text}: {BODY}" if reply.found else reply.text,
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reply.reason,
                "domain": DOMAIN,
                "metadata": {"request_id": "%REQ(X-REQUEST-ID)%"},
            }
        ],
    }
    corrected = {} if reply.http_status is None else {"status_code": reply.http_status}
    return {
        "filter": condition,
        "body_format_override": {"json_format": body, "content_type": "application/json"},
        **corrected,
    }


def _header(name: str, value: str) -> Config:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _of_grpc() -> Config:
    """Came as gRPC; a transcoded call looks the same by then, but for what was noted when it came."""
    return {"header_filter": {"header": {"name": CONTENT_HEADER, "string_match": {"prefix": "application/grpc"}}}}


def _denied_for(words: str) -> Config:
    """The token filter refused, and said so: its status alone tells no reason."""
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": of_type(
                "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                expression=f"response.code_details == 'jwt_authn_access_denied{{{words}}}'",
            ),
        }
    }


def _all_of(*filters: Config) -> Config:
    return {"and_filter": {"filters": list(filters)}}


def _status_filter(status: int, *, equal: bool = True) -> Config:
    comparison = {"op": "EQ" if equal else "NE", "value": {"default_value": status, "runtime_key": "siyu.unused"}}
    return {"status_code_filter": {"comparison": comparison}}
