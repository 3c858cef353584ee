"""The event feed in the OpenAPI document. It is no RPC: its payloads are every event of the contracts."""

from typing import Any

from google.protobuf.descriptor import Descriptor

from gateway.contracts import messages
from gateway.cursor import MAX_CHARACTERS
from gateway.feed import DEFAULT_LIMIT, MAX_LIMIT
from gateway.openapi.reasons import Refusal, responses
from gateway.openapi.schema import Schema, Schemas, component_name

_TIME: Schema = {"type": "string", "format": "date-time"}


def feed_operation(schemas: Schemas) -> dict[str, Any]:
    """The operation; the schemas of page, event and payloads are added to the others."""
    payloads = {component_name(message): message for _, message in sorted(messages().items()) if is_event(message)}
    for message in payloads.values():
        schemas.reference(message)
    schemas.components["gateway.Event"] = _event_schema(payloads)
    schemas.components["gateway.EventPage"] = _event_page_schema()
    refusals = [
        Refusal(reason="CURSOR_INVALID", code="INVALID_ARGUMENT"),
        Refusal(reason="EVENTS_TRUNCATED", code="FAILED_PRECONDITION"),
        Refusal(reason="INVALID_FIELD", code="INVALID_ARGUMENT"),
        Refusal(reason="TOKEN_MISSING", code="UNAUTHENTICATED"),
        Refusal(reason="TOKEN_INVALID", code="UNAUTHENTICATED"),
        Refusal(reason="TOKEN_EXPIRED", code="UNAUTHENTICATED"),
        Refusal(reason="SCOPE_MISSING", code="PERMISSION_DENIED"),
        Refusal(reason="OUT_OF_SCOPE", code="PERMISSION_DENIED"),
        Refusal(reason="RATE_LIMITED", code="RESOURCE_EXHAUSTED"),
        Refusal(reason="UNAVAILABLE", code="UNAVAILABLE"),
    ]
    return {
        "operationId": "Events_List",
        "tags": ["gateway.Events"],
        "summary": "Reads the tenant's events after a cursor",
        "description": (
            "Keep `nextCursor` in the same transaction as the effect of the events, and each counts exactly once. "
            "Events of one member or order come in order; among others there is none. Where `hasMore` is true, read "
            "on at once; otherwise come back in a second or later.\n\nEvents are kept for seven days. A cursor that "
            "lies further back is refused with `EVENTS_TRUNCATED`: read the state anew, then go on with the "
            "`restart_cursor` of the refusal's metadata.\n\nNeeds the scope `events.read`; not for clients that are "
            "bound to a store or supplier."
        ),
        "parameters": [
            {
                "name": "cursor",
                "in": "query",
                "description": "`nextCursor` of the page before.",
                "schema": {"type": "string", "maxLength": MAX_CHARACTERS},
            },
            {
                "name": "limit",
                "in": "query",
                "description": "At most this many events.",
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
            },
            {
                "name": "start",
                "in": "query",
                "description": "Where to begin without a cursor: with the oldest event that is kept, or from now on.",
                "schema": {"type": "string", "enum": ["oldest", "now"], "default": "oldest"},
            },
        ],
        "responses": {
            "200": {
                "description": "A page; it may be empty.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/gateway.EventPage"}}},
            },
            **responses(refusals),
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "x-siyu-scopes": ["events.read"],
    }


def is_event(message: Descriptor) -> bool:
    """Whether a message is an event of a service: a top-level message of its events.proto that no other one holds."""
    if not message.file.name.endswith("/events.proto"):
        return False
    held = {
        field.message_type.full_name
        for other in message.file.message_types_by_name.values()
        for field in other.fields
        if field.message_type is not None
    }
    return message.full_name not in held


def _event_schema(payloads: dict[str, Descriptor]) -> Schema:
    return {
        "type": "object",
        "description": "Something that happened.",
        "properties": {
            "eventId": {"type": "string", "format": "uuid", "description": "The same however often it is read."},
            "type": {"type": "string", "description": "Which payload it has.", "examples": sorted(payloads)},
            "aggregateType": {"type": "string", "description": 'What changed, e.g. "order".'},
            "aggregateId": {"type": "string", "description": "The id of what changed."},
            "aggregateVersion": {
                "type": "string",
                "format": "int64",
                "description": "The version of what changed, after the change; rises by one with each of its events.",
            },
            "occurredAt": {**_TIME, "description": "When it happened, in business time."},
            "postedAt": {**_TIME, "description": "When it was written, in machine time."},
            "payload": {
                "description": "By `type`.",
                "anyOf": [{"$ref": f"#/components/schemas/{component_name(message)}"} for message in payloads.values()],
            },
        },
    }


def _event_page_schema() -> Schema:
    return {
        "type": "object",
        "properties": {
            "events": {"type": "array", "items": {"$ref": "#/components/schemas/gateway.Event"}},
            "nextCursor": {"type": "string", "description": "Read on with it; opaque, and good for this tenant only."},
            "hasMore": {"type": "boolean", "description": "There is more now."},
            "unavailableServices": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Services that did not answer; their events come with a later page.",
            },
        },
        "required": ["events", "nextCursor", "hasMore", "unavailableServices"],
    }
