"""The application's refusals as Envoy's transcoder writes those of the services: google.rpc.Status as JSON."""

from google.protobuf import json_format
from google.rpc import code_pb2, status_pb2
from starlette.responses import Response

from services.runtime import status
from services.runtime.errors import DomainError, Exhausted, Unavailable

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto, as Envoy maps it
HTTP_STATUS: dict[int, int] = {
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
}


def refusal(error: DomainError, *, trace_id: str = "") -> Response:
    """A refusal with its details; `retry-after` in whole seconds where the caller should come back."""
    headers = {}
    if isinstance(error, Exhausted | Unavailable):
        headers["retry-after"] = str(max(1, round(error.retry_after_s + 0.5)))
    if status.code_of(error) == code_pb2.UNAUTHENTICATED:
        headers["www-authenticate"] = 'Bearer realm="siyu"'
    return _response(status.to_status(error, trace_id), headers)


def internal(*, trace_id: str = "") -> Response:
    """What is told of a bug: where to look, and nothing else."""
    return _response(status.internal_status(trace_id), {})


def _response(told: status_pb2.Status, headers: dict[str, str]) -> Response:
    body = json_format.MessageToJson(told, indent=None, ensure_ascii=False)
    # Envoy hands this on to gRPC callers, for whom a 429 would otherwise become UNAVAILABLE.
    headers = {**headers, "grpc-status": str(told.code)}
    return Response(body, status_code=HTTP_STATUS[told.code], media_type="application/json", headers=headers)
