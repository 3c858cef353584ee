"""Refusals on the wire: a DomainError becomes a google.rpc.Status, and a peer's Status a DomainError again.

Details follow google.rpc (error_details.proto) and AIP-193: ErrorInfo always, the others where they fit.
"""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.runtime.errors import (
    AlreadyExists,
    Conflict,
    DomainError,
    Exhausted,
    Invalid,
    Missing,
    NotAllowed,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "siyu"
INTERNAL_TEXT = "internal error; report the trace id"
DEFAULT_RETRY_S = 1.0

CODES: Mapping[type[DomainError], int] = {
    Invalid: code_pb2.INVALID_ARGUMENT,
    Unauthenticated: code_pb2.UNAUTHENTICATED,
    NotAllowed: code_pb2.PERMISSION_DENIED,
    Missing: code_pb2.NOT_FOUND,
    AlreadyExists: code_pb2.ALREADY_EXISTS,
    Refused: code_pb2.FAILED_PRECONDITION,
    Exhausted: code_pb2.RESOURCE_EXHAUSTED,
    Conflict: code_pb2.ABORTED,
    TimedOut: code_pb2.DEADLINE_EXCEEDED,
    Unavailable: code_pb2.UNAVAILABLE,
}


def code_of(error: DomainError) -> int:
    """The google.rpc code of a refusal, by the nearest class of its tree."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    raise AssertionError(f"{type(error).__name__} stands outside the tree")


def to_status(error: DomainError, trace_id: str) -> status_pb2.Status:
    """The status of a refusal, with its details."""
    metadata = dict(error.metadata)
    if trace_id:
        metadata.setdefault("trace_id", trace_id)
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    details.extend(_particulars(error))
    return _status(code_of(error), error.message, details)


def internal_status(trace_id: str) -> status_pb2.Status:
    """What a caller is told of a bug: nothing but where to look."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"trace_id": trace_id})
    return _status(code_pb2.INTERNAL, INTERNAL_TEXT, [info])


def from_rpc(error: grpc.aio.AioRpcError) -> DomainError:
    """The refusal that a peer sent, as the class that it raised there; what is none of ours is Unavailable."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    particulars: dict[str, Any] = {}
    if status is not None:
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                detail.Unpack(info)
            else:
                particulars.update(_read(detail))
    reason = info.reason or None
    text = error.details() or "the service does not answer"
    metadata = dict(info.metadata)
    return _raised(error.code(), text, reason, metadata, particulars)


def _raised(  # noqa: PLR0911 - one return a class is the point
    code: grpc.StatusCode, text: str, reason: str | None, metadata: dict[str, str], found: dict[str, Any]
) -> DomainError:
    retry_after_s = found.get("retry_after_s", DEFAULT_RETRY_S)
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return Invalid(text, violations=found.get("violations", ()), reason=reason, metadata=metadata)
        case grpc.StatusCode.NOT_FOUND:
            kind, name = found.get("resource", ("thing", ""))
            return Missing(text, kind=kind, name=name, reason=reason, metadata=metadata)
        case grpc.StatusCode.FAILED_PRECONDITION:
            return Refused(text, subject=found.get("subject", ""), reason=reason, metadata=metadata)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Exhausted(text, retry_after_s=retry_after_s, reason=reason, metadata=metadata)
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated(text, reason=reason, metadata=metadata)
        case grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed(text, reason=reason, metadata=metadata)
        case grpc.StatusCode.ALREADY_EXISTS:
            return AlreadyExists(text, reason=reason, metadata=metadata)
        case grpc.StatusCode.ABORTED:
            return Conflict(text, reason=reason, metadata=metadata)
        case grpc.StatusCode.DEADLINE_EXCEEDED | grpc.StatusCode.CANCELLED:
            return TimedOut(text, reason=reason, metadata=metadata)
        case _:
            return Unavailable(text, retry_after_s=retry_after_s, reason=reason, metadata=metadata)


def _particulars(error: DomainError) -> list[Message]:
    match error:
        case Invalid():
            return [
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=field, description=why, reason=error.reason)
                        for field, why in error.violations
                        if field
                    ]
                )
            ]
        case Missing():
            return [error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.name)]
        case Refused():
            violation = error_details_pb2.PreconditionFailure.Violation(
                type=error.reason, subject=error.subject, description=error.message
            )
            return [error_details_pb2.PreconditionFailure(violations=[violation])]
        case Exhausted():
            quota = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=error.message)
            return [error_details_pb2.QuotaFailure(violations=[quota]), _retry(error.retry_after_s)]
        case Unavailable():
            return [_retry(error.retry_after_s)]
        case _:
            return []


def _retry(after_s: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(nanos=int(after_s % 1 * 1e9), seconds=int(after_s)))


def _read(detail: AnyMessage) -> dict[str, Any]:
    if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
        request = error_details_pb2.BadRequest()
        detail.Unpack(request)
        return {"violations": tuple((each.field, each.description) for each in request.field_violations)}
    if detail.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
        resource = error_details_pb2.ResourceInfo()
        detail.Unpack(resource)
        return {"resource": (resource.resource_type, resource.resource_name)}
    if detail.Is(error_details_pb2.PreconditionFailure.DESCRIPTOR):
        failure = error_details_pb2.PreconditionFailure()
        detail.Unpack(failure)
        return {"subject": failure.violations[0].subject} if failure.violations else {}
    if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
        retry = error_details_pb2.RetryInfo()
        detail.Unpack(retry)
        return {"retry_after_s": retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9}
    return {}


def _status(code: int, text: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=code, message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return status
