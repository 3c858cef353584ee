"""What Envoy says itself, in the words of every other refusal: a google.rpc.Status as JSON."""

from google.rpc import code_pb2

from gateway.envoy.names import Config
from gateway.pages import CONTENT_HEADER
from services.runtime.status import DOMAIN

BODY = "%LOCAL_REPLY_BODY%"

# HTTP status → code, reason, text (BODY: what Envoy found)
_REPLIES: dict[int, tuple[int, str, str]] = {
    400: (code_pb2.INVALID_ARGUMENT, "MALFORMED_REQUEST", BODY),
    401: (code_pb2.UNAUTHENTICATED, "TOKEN_INVALID", BODY),
    # a token for another audience, which the services call invalid like any other
    403: (code_pb2.UNAUTHENTICATED, "TOKEN_INVALID", BODY),
    404: (code_pb2.NOT_FOUND, "PATH_NOT_FOUND", "no such path; /openapi.json lists them all"),
    408: (code_pb2.INVALID_ARGUMENT, "REQUEST_TOO_SLOW", "the request did not arrive in time"),
    413: (code_pb2.INVALID_ARGUMENT, "REQUEST_TOO_LARGE", "the request is larger than this edge takes"),
    415: (code_pb2.INVALID_ARGUMENT, "MALFORMED_REQUEST", "the content type is not one that this path takes"),
    429: (code_pb2.RESOURCE_EXHAUSTED, "EXHAUSTED", "too much at once; come back in a moment"),
    431: (code_pb2.INVALID_ARGUMENT, "HEADERS_TOO_LARGE", "the request's headers are larger than this edge takes"),
    500: (code_pb2.INTERNAL, "INTERNAL", "internal error; report the request id"),
    502: (code_pb2.UNAVAILABLE, "UNAVAILABLE", "the service did not answer as it should; try again"),
    503: (code_pb2.UNAVAILABLE, "UNAVAILABLE", "the service does not answer; repeat with the same request id"),
    504: (
        code_pb2.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
        "the deadline passed; the outcome may be unknown: repeat with the same request id",
    ),
}
# What Envoy answers with another HTTP status than it would by itself.
_CORRECTED = {403: 401}


def local_replies() -> Config:
    """The mapping of Envoy's own replies; the application's refusals pass as they are."""
    return {
        "mappers": [
            _by_application(),
            *(_mapper(status, _as_text(status), _of_grpc()) for status in _REPLIES),
            *(_mapper(status, _as_json(status)) for status in _REPLIES),
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


def _mapper(status: int, body_format: Config, *filters: Config) -> Config:
    corrected = {"status_code": _CORRECTED[status]} if status in _CORRECTED else {}
    return {"filter": _all_of(_status_filter(status), *filters), "body_format_override": body_format, **corrected}


def _as_text(status: int) -> Config:
    """For gRPC, whose code stands in the header: the body becomes grpc-message."""
    return {"text_format_source": {"inline_string": _REPLIES[status][2]}}


def _as_json(status: int) -> Config:
    code, reason, text = _REPLIES[status]
    return {
        "json_format": {
            "code": code,
            "message": text,
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": reason,
                    "domain": DOMAIN,
                    "metadata": {"request_id": "%REQ(X-REQUEST-ID)%"},
                }
            ],
        },
        "content_type": "application/json",
    }


def _of_grpc() -> Config:
    """Came as gRPC; a transcoded call looks the same by then, but for what was noted when it came."""
    return {"header_filter": {"header": {"name": CONTENT_HEADER, "string_match": {"prefix": "application/grpc"}}}}


def _all_of(*filters: Config) -> Config:
    return {"and_filter": {"filters": list(filters)}} if len(filters) > 1 else filters[0]


def _status_filter(status: int, *, equal: bool = True) -> Config:
    comparison = {"op": "EQ" if equal else "NE", "value": {"default_value": status, "runtime_key": "siyu.unused"}}
    return {"status_code_filter": {"comparison": comparison}}
