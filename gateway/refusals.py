"""The application's refusals as Envoy's transcoder writes those of the services: google.rpc.Status as JSON."""

import base64
import math

from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
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
METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
METHOD_NOT_ALLOWED_STATUS = 405
OTHER_METHODS = "this path takes other methods"


def refusal(error: DomainError, *, trace_id: str = "", grpc: bool = False) -> Response:
    """A refusal with its details; `retry-after` in whole seconds where the caller should come back."""
    headers = {}
    if isinstance(error, Exhausted | Unavailable):
        headers["retry-after"] = str(math.ceil(max(1.0, error.retry_after_s)))
    if status.code_of(error) == code_pb2.UNAUTHENTICATED:
        headers["www-authenticate"] = 'Bearer realm="siyu"'
    return _response(status.to_status(error, trace_id), headers, grpc=grpc)


def internal(*, trace_id: str = "", grpc: bool = False) -> Response:
    """What is told of a bug: where to look, and nothing else."""
    return _response(status.internal_status(trace_id), {}, grpc=grpc)


def method_refused(allowed: str, *, trace_id: str) -> Response:
    """The path is there and takes other methods, `allowed`: a 405, in the words of Envoy's own."""
    info = error_details_pb2.ErrorInfo(reason=METHOD_NOT_ALLOWED, domain=status.DOMAIN, metadata={"trace_id": trace_id})
    told = status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message=f"{OTHER_METHODS}: {allowed}")
    told.details.add().Pack(info)
    response = _response(told, {"allow": allowed}, grpc=False)
    response.status_code = METHOD_NOT_ALLOWED_STATUS
    return response


def _response(told: status_pb2.Status, headers: dict[str, str], *, grpc: bool) -> Response:
    http_status = HTTP_STATUS[told.code]
    if not grpc:
        body = json_format.MessageToJson(told, indent=None, ensure_ascii=False)
        return Response(body, status_code=http_status, media_type="application/json", headers=headers)
    # Envoy makes trailers of it. By itself it would call a 429 UNAVAILABLE, and lose the details.
    details = base64.b64encode(told.SerializeToString()).decode().rstrip("=")
    headers = {**headers, "grpc-status": str(told.code), "grpc-status-details-bin": details}
    return Response(told.message, status_code=http_status, headers=headers)
