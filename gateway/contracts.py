"""What the edge knows of the API: every RPC with its HTTP bindings, its rule and its comment, from the generated code.

An RPC appears here, and with it in Envoy's routes, in the OpenAPI document and on the API page, when its service has an
RPC with a `google.api.http` annotation. Services without one (feed, audit, health, reflection) stay inside.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, duration_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.rpc import error_details_pb2, status_pb2

from siyu.common.v1 import rule_pb2

GENERATED = Path(rule_pb2.__file__).parents[3]
_VERBS = ("get", "put", "post", "delete", "patch")
# What the details of a refusal are made of: Envoy can only write as JSON what its descriptor set knows.
_REFUSAL_FILES = (error_details_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR)
_KNOWN_FILES = (duration_pb2.DESCRIPTOR, timestamp_pb2.DESCRIPTOR, wrappers_pb2.DESCRIPTOR)
_VARIABLE = re.compile(r"\{([^}=]+)(?:=[^}]*)?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One way to call an RPC over HTTP. `body` is "*", a field's name, or empty for none."""

    verb: str
    template: str
    body: str

    @property
    def variables(self) -> tuple[str, ...]:
        """The field paths that the template takes from the URL, e.g. ("member_id", "template.template_id")."""
        return tuple(_VARIABLE.findall(self.template))

    def renamed(self, name_of: Callable[[str], str]) -> str:
        """The template with each variable by the name that `name_of` gives its field path, and without its pattern."""
        return _VARIABLE.sub(lambda found: f"{{{name_of(found[1])}}}", self.template)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """One RPC that the world may call."""

    service: str
    """The service that answers, e.g. "loyalty"."""
    descriptor: MethodDescriptor
    rule: rule_pb2.Rule
    bindings: tuple[Binding, ...]
    """Empty: gRPC only."""
    comment: str

    @property
    def name(self) -> str:
        """E.g. "siyu.loyalty.v1.PointsService.Accrue"."""
        return str(self.descriptor.full_name)

    @property
    def path(self) -> str:
        """The gRPC path, e.g. "/siyu.loyalty.v1.PointsService/Accrue"."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def is_streaming(self) -> bool:
        """Whether either side may send more than one message."""
        return bool(self.descriptor.client_streaming or self.descriptor.server_streaming)

    @property
    def is_repeatable(self) -> bool:
        """Whether the same call twice has the effect of one: a read, or a change with request ids. Never a stream."""

        return not self.is_streaming


@cache
def files() -> tuple[FileDescriptor, ...]:
    """Every generated contract, in a fixed order."""
    modules = sorted((GENERATED / "siyu").rglob("*_pb2.py"))
    assert modules, f"no generated contracts in {GENERATED}"
    names = (".".join(module.relative_to(GENERATED).with_suffix("").parts) for module in modules)
    return tuple(importlib.import_module(name).DESCRIPTOR for name in names)


@cache
def comments() -> dict[str, str]:
    """The comment of everything in the contracts, by full name."""
    found = json.loads((GENERATED / "comments.json").read_text())
    return {str(name): str(comment) for name, comment in found.items()}


@cache
def open_services() -> tuple[ServiceDescriptor, ...]:
    """The gRPC services that the edge lets through."""
    services = (service for file in files() for service in file.services_by_name.values())
    return tuple(service for service in services if any(_bindings(method) for method in service.methods))


@cache
def rpcs() -> tuple[Rpc, ...]:
    """Every RPC that the edge lets through, in the contracts' order."""
    return tuple(_rpc(method) for service in open_services() for method in service.methods)


@cache
def messages() -> dict[str, Descriptor]:
    """Every top-level message of the contracts, by full name."""
    return {message.full_name: message for file in files() for message in file.message_types_by_name.values()}


@cache
def descriptor_set() -> bytes:
    """All contracts and what they import, serialised, each file after those it needs: what Envoy transcodes by."""
    ordered: dict[str, FileDescriptor] = {}
    _collect((*_KNOWN_FILES, *_REFUSAL_FILES, *files()), into=ordered)
    whole = descriptor_pb2.FileDescriptorSet()
    for file in ordered.values():
        file.CopyToProto(whole.file.add())
    return whole.SerializeToString(deterministic=True)


def message_of(field: FieldDescriptor) -> Descriptor:
    """The type of a field that holds messages."""
    found = field.message_type
    assert found is not None, f"{field.full_name} holds no message"
    return found


def _collect(found: Iterable[FileDescriptor], *, into: dict[str, FileDescriptor]) -> None:
    for file in found:
        if file.name not in into:
            _collect(file.dependencies, into=into)
            into[file.name] = file


def _rpc(method: MethodDescriptor) -> Rpc:
    options = method.GetOptions()
    assert options.HasExtension(rule_pb2.rule), f"{method.full_name} has no rule"
    return Rpc(
        service=str(method.full_name).split(".")[1],
        descriptor=method,
        rule=options.Extensions[rule_pb2.rule],
        bindings=_bindings(method),
        comment=comments().get(method.full_name, ""),
    )


def _bindings(method: MethodDescriptor) -> tuple[Binding, ...]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return ()
    http = options.Extensions[annotations_pb2.http]
    return tuple(
        Binding(verb=verb.upper(), template=getattr(rule, verb), body=rule.body)
        for rule in (http, *http.additional_bindings)
        for verb in _VERBS
        if getattr(rule, verb)
    )
