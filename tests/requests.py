"""Requests made from the contracts: a well-formed one for every RPC, and every way to malform one field of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from buf.validate import validate_pb2
from services.runtime.auth import Rule, rule_of
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2, promotion_pb2
from siyu.commerce.v1 import catalogue_pb2, order_pb2, statement_pb2, supplier_pb2
from siyu.common.v1 import audit_pb2, feed_pb2
from siyu.identity.v1 import client_pb2, member_pb2, store_pb2, tenant_pb2
from siyu.loyalty.v1 import points_pb2, programme_pb2

FILES = {
    "identity": (tenant_pb2, client_pb2, store_pb2, member_pb2, audit_pb2, feed_pb2),
    "loyalty": (points_pb2, programme_pb2, audit_pb2, feed_pb2),
    "campaign": (promotion_pb2, coupon_pb2, audit_pb2, feed_pb2),
    "commerce": (catalogue_pb2, order_pb2, supplier_pb2, statement_pb2, audit_pb2, feed_pb2),
}
# candidates for a string with a pattern, tried in this order
SAMPLES = ("sample", "Sample-1", "1", "50", "CNY", "2017-03-06", "identity.read", "")
TOO_LONG = 25_000
LATEST = Timestamp(seconds=7_258_118_399, nanos=999_999_999)
"""The last moment of the year 2199."""
# beyond the calendar, before and after business, and fractions that are none
TIMES = (
    Timestamp(seconds=2**62),
    Timestamp(seconds=-(2**62)),
    Timestamp(seconds=-62_135_596_800),
    Timestamp(seconds=253_402_300_799),
    Timestamp(seconds=1_500_000_000, nanos=-5),
    Timestamp(seconds=1_500_000_000, nanos=2**31 - 1),
)


@dataclass(frozen=True, slots=True)
class Rpc:
    """An RPC as a caller sees it."""

    service: str
    method: MethodDescriptor
    rule: Rule

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def is_unary(self) -> bool:
        return not self.method.client_streaming

    def __str__(self) -> str:
        return f"{self.service}.{self.method.containing_service.name}.{self.method.name}"


def rpcs() -> list[Rpc]:
    """Every RPC of every service."""
    return [
        Rpc(service, method, rule_of(method))
        for service, files in FILES.items()
        for file in files
        for contract in file.DESCRIPTOR.services_by_name.values()
        for method in contract.methods
    ]


@dataclass(frozen=True, slots=True)
class Malformed:
    """A request with one bad field."""

    field: str
    why: str
    request: Message


def well_formed(rpc: Rpc) -> Message:
    """A request that passes the contract's validation; what it names need not exist."""
    request = message_factory.GetMessageClass(rpc.method.input_type)()
    fill(request, depth=0)
    return request


def malformed(rpc: Rpc) -> Iterator[Malformed]:
    """Each field of the request, two levels deep, malformed in each way that its rules forbid."""
    yield from _malformed(rpc, (), message_factory.GetMessageClass(rpc.method.input_type).DESCRIPTOR.fields, depth=0)


def _malformed(rpc: Rpc, above: tuple[str, ...], fields: list[FieldDescriptor], *, depth: int) -> Iterator[Malformed]:
    for field in fields:
        path = ".".join((*above, field.name))
        for why, value in _bad_values(field):
            request = well_formed(rpc)
            holder = request
            for name in above:
                holder = getattr(holder, name)
            if value is None:
                holder.ClearField(field.name)
            elif field.is_repeated:
                del getattr(holder, field.name)[:]
                getattr(holder, field.name).extend(value)
            else:
                setattr(holder, field.name, value)
            yield Malformed(path, why, request)
        nested = field.message_type
        if nested is not None and not field.is_repeated and depth < 2 and nested.full_name.startswith("siyu."):
            yield from _malformed(rpc, (*above, field.name), nested.fields, depth=depth + 1)


def out_of_bounds(rpc: Rpc) -> Iterator[Malformed]:
    """Each text of the request, at any depth, with a NUL in it; and each time beyond what a calendar has."""
    message = message_factory.GetMessageClass(rpc.method.input_type)
    for path in _paths(message.DESCRIPTOR, ()):
        last = path[-1]
        is_time = last.message_type is not None
        for value in TIMES if is_time else ("bad\0value",):
            request = well_formed(rpc)
            holder: Message = request
            for field in path[:-1]:
                holder = _entered(holder, field)
            if is_time:
                getattr(holder, last.name).CopyFrom(value)
            elif last.is_repeated:
                getattr(holder, last.name)[:] = [value]
            else:
                setattr(holder, last.name, value)
            why = f"the time {value.seconds}.{value.nanos}" if isinstance(value, Timestamp) else "NUL"
            yield Malformed(".".join(field.name for field in path), why, request)


def _paths(message: Descriptor, above: tuple[FieldDescriptor, ...]) -> Iterator[tuple[FieldDescriptor, ...]]:
    """The ways to every text and time of a message."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING or field.message_type is Timestamp.DESCRIPTOR:
            yield (*above, field)
        elif field.message_type is not None:
            yield from _paths(field.message_type, (*above, field))


def _entered(holder: Message, field: FieldDescriptor) -> Message:
    """The message in a field, made and filled where it is not there."""
    if not field.is_repeated:
        if not holder.HasField(field.name):
            fill(getattr(holder, field.name), depth=0)
            getattr(holder, field.name).SetInParent()
        return getattr(holder, field.name)  # type: ignore[no-any-return]
    items = getattr(holder, field.name)
    if not items:
        fill(items.add(), depth=0)
    return items[0]  # type: ignore[no-any-return]


def largest(rpc: Rpc) -> Message:
    """A request that passes the contract's validation with every number, list and time as large as it may be."""
    request = message_factory.GetMessageClass(rpc.method.input_type)()
    _enlarge(request, depth=0)
    return request


def _enlarge(message: Message, *, depth: int) -> None:
    fill(message, depth=depth)
    for field in message.DESCRIPTOR.fields:
        rules = rules_of(field)
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1 and field.message_type is not None:
            # the first of a oneof stays as it was filled
            continue
        if field.is_repeated:
            items = getattr(message, field.name)
            if field.message_type is not None:
                del items[:]
                _enlarge(items.add(), depth=depth + 1)
            continue
        if field.message_type is Timestamp.DESCRIPTOR:
            getattr(message, field.name).CopyFrom(LATEST)
        elif field.message_type is not None:
            _enlarge(getattr(message, field.name), depth=depth + 1)
        elif (kind := rules.WhichOneof("type")) in {"int32", "int64"}:
            most = 2**31 - 1 if kind == "int32" else 2**63 - 1
            number = getattr(rules, kind)
            setattr(message, field.name, number.lte if number.HasField("lte") else most)
        elif field.type == FieldDescriptor.TYPE_STRING and not rules.string.uuid and field.name != "page_token":
            longest = "x" * (rules.string.max_len or 64)
            if not rules.string.pattern or re.search(rules.string.pattern, longest):
                setattr(message, field.name, longest)
        elif field.type == FieldDescriptor.TYPE_BOOL:
            setattr(message, field.name, True)


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _bad_values(field: FieldDescriptor) -> Iterator[tuple[str, object]]:
    rules = rules_of(field)
    if field.is_repeated:
        if rules.repeated.min_items:
            yield "empty", None
        return
    if rules.required:
        yield "missing", None
    kind = rules.WhichOneof("type")
    if kind == "string":
        string = rules.string
        if string.uuid:
            yield "not a UUID", "order-17"
            yield "null", "null"
            if rules.ignore != validate_pb2.IGNORE_IF_ZERO_VALUE and field.containing_oneof is None:
                yield "missing", None
        if string.max_len:
            yield "too long", "x" * (string.max_len + 1)
        if string.min_len:
            yield "missing", None
        if string.pattern:
            yield "against its pattern", "bad value \t\n"
            if re.search(string.pattern, "x" * TOO_LONG) is None:
                yield "too long", "x" * TOO_LONG
    elif kind in {"int32", "int64"}:
        number = getattr(rules, kind)
        low, high = (-(2**31), 2**31 - 1) if kind == "int32" else (-(2**63), 2**63 - 1)
        if number.HasField("gte") and number.gte > low:
            yield "too small", number.gte - 1
            yield "least of its type", low
        if number.HasField("lte") and number.lte < high:
            yield "too large", number.lte + 1
    elif kind == "enum":
        if 0 in rules.enum.not_in or getattr(rules.enum, "in"):
            yield "unspecified", 0
        if rules.enum.defined_only or getattr(rules.enum, "in"):
            yield "undefined", 99


def unruled(message: Descriptor, above: str = "", depth: int = 0) -> Iterator[str]:
    """The fields of a request, at any depth, whose contract says nothing about what they may hold."""
    for field in message.fields:
        path = f"{above}{field.name}"
        rules = rules_of(field)
        needs = field.is_repeated or field.type in {
            FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64,
        }  # fmt: skip
        if needs and rules.WhichOneof("type") is None:
            yield path
        if field.message_type is not None and field.message_type.full_name.startswith("siyu.") and depth < 6:
            yield from unruled(field.message_type, f"{path}.", depth + 1)


def fill(message: Message, *, depth: int) -> None:
    """Sets every field that its rules demand, and the first of each oneof."""
    chosen: set[str] = set()
    for field in message.DESCRIPTOR.fields:
        rules = rules_of(field)
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            if oneof.name in chosen:
                continue
            chosen.add(oneof.name)
        if field.is_repeated:
            if rules.repeated.min_items:
                _add(message, field, rules, depth)
        elif field.message_type is not None:
            if rules.required:
                _set_message(message, field, depth)
        else:
            setattr(message, field.name, _value(field, rules))


def _add(message: Message, field: FieldDescriptor, rules: validate_pb2.FieldRules, depth: int) -> None:
    if field.message_type is not None:
        fill(getattr(message, field.name).add(), depth=depth + 1)
    else:
        getattr(message, field.name).append(_value(field, rules.repeated.items))


def _set_message(message: Message, field: FieldDescriptor, depth: int) -> None:
    assert depth < 8, f"{field.full_name} is too deep"
    nested = getattr(message, field.name)
    nested.SetInParent()
    if isinstance(nested, Timestamp):
        nested.FromDatetime(datetime.now(UTC))
    else:
        fill(nested, depth=depth + 1)


def _value(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> object:
    if field.type == FieldDescriptor.TYPE_STRING:
        string = rules.string
        if string.uuid:
            return "" if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE else new_id()
        if field.name in {"request_id", "hold_id"}:
            return new_id()
        if field.name == "page_token":
            return ""
        least = string.min_len
        return next(
            each
            for each in SAMPLES
            if len(each) >= least and (not string.pattern or re.fullmatch(string.pattern, each))
        )
    if field.type == FieldDescriptor.TYPE_ENUM:
        allowed = list(getattr(rules.enum, "in"))
        return allowed[0] if allowed else 1 if 0 in rules.enum.not_in else 0
    if field.type == FieldDescriptor.TYPE_BOOL:
        return False
    kind = rules.WhichOneof("type")
    if kind in {"int32", "int64"}:
        return max(1, getattr(rules, kind).gte)
    return 0
