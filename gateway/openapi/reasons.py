"""What an RPC can refuse: read from the `Refusals:` part of its comment, plus what every call can meet."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.rpc import code_pb2

from gateway.contracts import Rpc, rpcs
from gateway.openapi.schema import Schema
from gateway.refusals import HTTP_STATUS
from services.runtime.status import DOMAIN

STATUS = "Status"

_REFUSALS = re.compile(r"\bRefusals:\s*(.*)", re.DOTALL)
_THOSE_OF = re.compile(r"\bthose of ([A-Z]\w+(?:(?:,| and) [A-Z]\w+)*)")
_TOKEN = re.compile(r"\b([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)\b")
_CODES = frozenset(code_pb2.Code.keys())

_ALWAYS = (
    ("INVALID_FIELD", "INVALID_ARGUMENT"),
    ("RATE_LIMITED", "RESOURCE_EXHAUSTED"),
    ("OVERLOADED", "RESOURCE_EXHAUSTED"),
    ("UNAVAILABLE", "UNAVAILABLE"),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
)
_WITH_TOKEN = (
    ("TOKEN_MISSING", "UNAUTHENTICATED"),
    ("TOKEN_INVALID", "UNAUTHENTICATED"),
    ("TOKEN_EXPIRED", "UNAUTHENTICATED"),
    ("BAD_CREDENTIALS", "UNAUTHENTICATED"),
    ("SCOPE_MISSING", "PERMISSION_DENIED"),
)
# What says nothing about a call, since every call may be refused with it.
COMMON_REASONS = frozenset(reason for reason, _ in (*_ALWAYS, *_WITH_TOKEN))

_MEANINGS = {
    400: "The request is not as it must be, or a precondition fails",
    401: "Who is calling?",
    403: "Not this caller's to do",
    404: "There is no such thing in this tenant",
    409: "The name is taken, the request id was used for another body, or a race was lost",
    429: "A limit is reached; `retry-after` says when to come back",
    503: "A service does not answer; repeat with the same request id",
    504: "The deadline passed; repeat with the same request id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A reason, with the google.rpc code under which it comes."""

    reason: str
    code: str

    @property
    def http_status(self) -> int:
        """What it is over HTTP."""
        return HTTP_STATUS[code_pb2.Code.Value(self.code)]


def refusals_of(rpc: Rpc) -> tuple[Refusal, ...]:
    """Its own first, then those of every call that it can meet; each once."""
    found = [*declared(rpc.comment), *_of_others(rpc), *_always(rpc)]
    return tuple(dict.fromkeys(found))


def declared(comment: str) -> tuple[Refusal, ...]:
    """Reads `REASON, OTHER_REASON (CODE); THIRD (OTHER_CODE) …`: a code counts for all reasons since the last one."""
    part = _REFUSALS.search(comment)
    if part is None:
        return ()
    waiting: list[str] = []
    found: list[Refusal] = []
    for token in _TOKEN.findall(part[1]):
        if token in _CODES:
            found.extend(Refusal(reason=reason, code=token) for reason in waiting)
            waiting = []
        elif "_" in token:
            waiting.append(token)
    return tuple(found)


def _of_others(rpc: Rpc) -> Iterable[Refusal]:
    """What "those of PlaceOrder and PayOrder" means: the refusals of RPCs of the same service."""
    part = _THOSE_OF.search(rpc.comment)
    names = frozenset(re.findall(r"[A-Z]\w+", part[1])) if part else frozenset()
    others = (other for other in rpcs() if other.service == rpc.service and other.descriptor.name in names)
    return (refusal for other in others for refusal in declared(other.comment))


def _always(rpc: Rpc) -> Iterable[Refusal]:
    pairs = list(_ALWAYS)
    if not rpc.rule.public:
        pairs.extend(_WITH_TOKEN)
    if rpc.rule.actors:
        pairs.append(("ACTOR_KIND_REFUSED", "PERMISSION_DENIED"))
    if rpc.rule.object:
        pairs.append(("OUT_OF_SCOPE", "PERMISSION_DENIED"))
    if rpc.rule.family:
        pairs.append(("REQUEST_ID_REUSED", "ALREADY_EXISTS"))
    return (Refusal(reason=reason, code=code) for reason, code in pairs)


def responses(refusals: Iterable[Refusal]) -> dict[str, Any]:
    """OpenAPI responses, one a HTTP status, each with its reasons; and one for all others."""
    by_status: dict[int, list[Refusal]] = defaultdict(list)
    for refusal in refusals:
        by_status[refusal.http_status].append(refusal)
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{STATUS}"}}}
    responses = {
        str(status): {
            "description": f"{_MEANINGS[status]}: " + ", ".join(f"`{each.reason}`" for each in found),
            "content": content,
        }
        for status, found in sorted(by_status.items())
    }
    return {**responses, "default": {"description": "Any other refusal.", "content": content}}


def status_schema() -> Schema:
    """The schema of every refusal."""
    codes = ", ".join(f"{number} {name}" for name, number in sorted(code_pb2.Code.items(), key=lambda item: item[1]))
    return {
        "type": "object",
        "description": "google.rpc.Status: why a call was refused.",
        "properties": {
            "code": {"type": "integer", "format": "int32", "description": f"google.rpc.Code: {codes}."},
            "message": {"type": "string", "description": "For people; it may change."},
            "details": {
                "type": "array",
                "description": "An ErrorInfo first; then, where they fit, BadRequest, ResourceInfo, "
                "PreconditionFailure, QuotaFailure, RetryInfo (google/rpc/error_details.proto).",
                "items": {
                    "type": "object",
                    "properties": {
                        "@type": {"type": "string", "examples": ["type.googleapis.com/google.rpc.ErrorInfo"]},
                        "reason": {"type": "string", "description": "Stable; what code should look at."},
                        "domain": {"type": "string", "const": DOMAIN},
                        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                    "required": ["@type"],
                    "additionalProperties": True,
                },
            },
        },
        "required": ["code", "message"],
    }
