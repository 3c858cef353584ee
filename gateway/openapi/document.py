"""The whole OpenAPI 3.1 document: a path for each HTTP binding of each RPC, and the event feed."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.contracts import Binding, Rpc, comments, message_of, open_services, rpcs
from gateway.openapi.feed import feed_operation
from gateway.openapi.reasons import STATUS, refusals_of, responses, status_schema
from gateway.openapi.schema import Schema, Schemas, component_name
from gateway.pages import API_KEY_HEADER, EVENTS
from services.runtime.settings import SERVICES
from siyu.common.v1 import rule_pb2

TITLE = "Siyu"
VERSION = "v1"
MAX_QUERY_DEPTH = 3

_DESCRIPTION = """\
The open platform on which a retail chain runs its own members, points, campaigns and supplier-fulfilled orders.

**Two ways in, one API.** Every call here is also a gRPC call at the same address; the path below each title names it.

**Signing in.** Exchange a client's id and secret at `POST /v1/token` for a token of ten minutes and send it as
`authorization: Bearer …`; or send both with every call as `x-api-key: <client_id>.<client_secret>`. The tenant comes
from the credential, never from a body.

**Numbers.** Money is in minor units (`…Minor`) with an ISO 4217 code; points are whole. 64-bit numbers are strings in
JSON, so that no reader loses a digit. Fields that hold nothing are written out (`""`, `"0"`, `[]`).

**Misspelt names.** An unknown query parameter is refused. An unknown field of a body is **ignored**, as if it had not
been sent: check what you send against the schemas of this document, or call over gRPC with the generated messages.

**Repeating.** Whatever changes something carries a `requestId`: the same id with the same body is answered the same,
however often it is sent. Repeat a call whose answer got lost; never make up a new id for it.

**Refusals** are a `google.rpc.Status`: `details` begins with an `ErrorInfo` whose `reason` is part of the contract.
Write your code against the reason, not the text. `retry-after` says when to come back. A path that takes other methods
says so with `METHOD_NOT_ALLOWED`: HTTP's 405, and `code` 12 (UNIMPLEMENTED).
"""
_KINDS = {
    rule_pb2.ACTOR_KIND_POS: "tills",
    rule_pb2.ACTOR_KIND_BACKEND: "backends",
    rule_pb2.ACTOR_KIND_SUPPLIER: "suppliers",
    rule_pb2.ACTOR_KIND_PARTNER: "partners",
    rule_pb2.ACTOR_KIND_STAFF: "staff",
    rule_pb2.ACTOR_KIND_SERVICE: "Siyu's own services",
    rule_pb2.ACTOR_KIND_PLATFORM: "the installation's operator",
}
_BOUND = {
    rule_pb2.OBJECT_SCOPE_OWN_STORE: "A caller bound to a store reaches that store only.",
    rule_pb2.OBJECT_SCOPE_OWN_SUPPLIER: "A caller bound to a supplier reaches that supplier only.",
    rule_pb2.OBJECT_SCOPE_OWN_CUSTOMERS: "A guide reaches the customers bound to the guide only.",
}
_SENTENCE_END = re.compile(r"(?<!e\.g)(?<!i\.e)\.\s+(?=[A-Z`\d])")


@cache
def as_json() -> bytes:
    """The document, serialised."""
    return orjson.dumps(document())


def document() -> dict[str, Any]:
    """The document."""
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for rpc in rpcs():
        for number, binding in enumerate(rpc.bindings):
            paths[openapi_path(binding)][binding.verb.lower()] = _operation(rpc, binding, number, schemas)
    paths[EVENTS] = {"get": feed_operation(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [*_tags(), {"name": "gateway.Events", "description": "The events of all services, page by page."}],
        "paths": dict(paths),
        "components": {
            "schemas": {STATUS: status_schema(), **dict(sorted(schemas.components.items()))},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "From /v1/token."},
                "apiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": API_KEY_HEADER,
                    "description": "`<client_id>.<client_secret>`",
                },
            },
        },
    }


def openapi_path(binding: Binding) -> str:
    """The template as OpenAPI writes it, with names as JSON has them: "/v1/points/holds/{holdId}:capture"."""
    return binding.renamed(json_path)


def json_path(path: str) -> str:
    """A field path with names as JSON has them: "template.template_id" is "template.templateId"."""
    return ".".join(re.sub(r"_(\w)", lambda found: found[1].upper(), name) for name in path.split("."))


def operation_id(rpc: Rpc, number: int) -> str:
    """E.g. "PointsService_Accrue"; a second binding of the same RPC is "…_2"."""
    name = f"{rpc.descriptor.containing_service.name}_{rpc.descriptor.name}"
    return name if number == 0 else f"{name}_{number + 1}"


def tag_of(rpc: Rpc) -> str:
    """The tag under which an RPC stands: its service, e.g. "loyalty.PointsService"."""
    return component_name_of_service(rpc.descriptor.containing_service.full_name)


def component_name_of_service(full_name: str) -> str:
    """E.g. "loyalty.PointsService"."""
    return full_name.removeprefix("siyu.").replace(".v1.", ".", 1)


def first_sentence(comment: str) -> str:
    """The first sentence of a comment that is wrapped into lines, without its full stop."""
    paragraph = " ".join(comment.partition("\n\n")[0].split())
    return _SENTENCE_END.split(paragraph, maxsplit=1)[0].rstrip(".")


def _tags() -> list[dict[str, str]]:
    """Identity's first: without a tenant, a client and a token nothing else can be tried."""
    return [
        {"name": component_name_of_service(service.full_name), "description": _about(service.full_name)}
        for service in sorted(open_services(), key=lambda each: SERVICES.index(each.full_name.split(".")[1]))
    ]


def _about(service: str) -> str:
    """The service's comment, and what of it this document can't show."""
    streams = [rpc for rpc in rpcs() if rpc.descriptor.containing_service.full_name == service and not rpc.bindings]
    only = [f"gRPC only: `{rpc.descriptor.name}`. {rpc.comment}" for rpc in streams]
    return "\n\n".join([comments().get(service, ""), *only])


def _operation(rpc: Rpc, binding: Binding, number: int, schemas: Schemas) -> dict[str, Any]:
    request = rpc.descriptor.input_type
    # names that the URL's variables take from the body's top level; nested ones may stand in both
    in_path = {name for name in binding.variables if "." not in name}
    operation: dict[str, Any] = {
        "operationId": operation_id(rpc, number),
        "tags": [tag_of(rpc)],
        "summary": first_sentence(rpc.comment) or rpc.descriptor.name,
        "description": "\n\n".join([rpc.comment, _who(rpc), _how(rpc)]),
        "parameters": [_path_parameter(request, name, schemas) for name in binding.variables],
        "responses": {
            "200": {
                "description": comments().get(rpc.descriptor.output_type.full_name, "Done."),
                "content": {"application/json": {"schema": schemas.reference(rpc.descriptor.output_type)}},
            },
            **responses(refusals_of(rpc)),
        },
        "security": [] if rpc.rule.public else [{"bearer": []}, {"apiKey": []}],
        "x-siyu-grpc": rpc.path,
        "x-siyu-scopes": list(rpc.rule.scopes),
        "x-siyu-deadline-ms": rpc.rule.deadline_ms,
    }
    if binding.body == "*":
        operation["requestBody"] = _body(request, in_path, schemas)
    elif not binding.body:
        fields = (field for field in request.fields if field.name not in in_path)
        operation["parameters"].extend(_query_parameters(fields, schemas))
    else:
        raise AssertionError(f'{rpc.name}: a body is "*" or none')
    return operation


def _body(request: Descriptor, in_path: set[str], schemas: Schemas) -> dict[str, Any]:
    if in_path:
        name = component_name(request)
        schemas.components[name] = schemas.message(request, without=in_path)
        schema: Schema = {"$ref": f"#/components/schemas/{name}"}
    else:
        schema = schemas.reference(request)
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _path_parameter(request: Descriptor, path: str, schemas: Schemas) -> dict[str, Any]:
    message = request
    *parents, last = path.split(".")
    for name in parents:
        message = message_of(message.fields_by_name[name])
    schema = schemas.field(message.fields_by_name[last])
    text = schema.pop("description", "")
    return {"name": json_path(path), "in": "path", "required": True, "description": text, "schema": schema}


def _query_parameters(
    fields: Iterable[FieldDescriptor], schemas: Schemas, *, prefix: str = "", depth: int = 1
) -> Iterable[dict[str, Any]]:
    for field in fields:
        is_message = field.type == FieldDescriptor.TYPE_MESSAGE
        if is_message and not message_of(field).full_name.startswith("google.protobuf."):
            if not field.is_repeated and depth < MAX_QUERY_DEPTH:
                inner = message_of(field).fields
                yield from _query_parameters(inner, schemas, prefix=f"{prefix}{field.json_name}.", depth=depth + 1)
            continue
        schema = schemas.field(field)
        text = schema.pop("description", "")
        yield {"name": f"{prefix}{field.json_name}", "in": "query", "description": text, "schema": schema}


def _who(rpc: Rpc) -> str:
    rule = rpc.rule
    if rule.public:
        return "Public: needs no credential."
    scopes = " or ".join(f"`{scope}`" for scope in rule.scopes)
    told = [f"Needs the scope {scopes}."]
    if rule.actors:
        told.append(f"Only for {' and '.join(_KINDS[kind] for kind in rule.actors)}.")
    if rule.object:
        told.append(_BOUND[rule.object])
    return " ".join(told)


def _how(rpc: Rpc) -> str:
    told = [f"gRPC: `{rpc.path}`. Answers within {rpc.rule.deadline_ms:,} ms."]
    if rpc.rule.family:
        told.append(f"Request ids are unique per client within `{rpc.rule.family}`.")
    return " ".join(told)
