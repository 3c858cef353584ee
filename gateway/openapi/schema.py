"""JSON Schema of a contract's messages, as protobuf's JSON writes them, with protovalidate's rules.

64-bit numbers are strings in that JSON, so their bounds can't be `minimum` and `maximum`; they are told in words.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from buf.validate import validate_pb2
from gateway.contracts import comments, message_of

Schema = dict[str, Any]

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_SINT32: "int32",
    FieldDescriptor.TYPE_SFIXED32: "int32",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_FIXED32: "uint32",
}
_LONGS = {
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_SINT64: "int64",
    FieldDescriptor.TYPE_SFIXED64: "int64",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_FIXED64: "uint64",
}
_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {"type": "object", "additionalProperties": True},
}
# protovalidate's formats that JSON Schema has a name for
_FORMATS = ("uuid", "email", "hostname", "ipv4", "ipv6", "uri")
_STRING_LIMITS = {"min_len": "minLength", "max_len": "maxLength"}
_LIST_LIMITS = {"min_items": "minItems", "max_items": "maxItems"}
_BOUNDS = {
    "gte": ("minimum", "at least {}"),
    "gt": ("exclusiveMinimum", "more than {}"),
    "lte": ("maximum", "at most {}"),
    "lt": ("exclusiveMaximum", "less than {}"),
}


class Schemas:
    """The messages and enums met so far, each once, by the name that references use."""

    def __init__(self) -> None:
        """Starts empty."""
        self.components: dict[str, Schema] = {}

    def reference(self, to: Descriptor | EnumDescriptor) -> Schema:
        """A reference to the schema of a message or enum, which is made if it isn't there yet."""
        name = component_name(to)
        if name not in self.components:
            self.components[name] = {}  # first of all, since messages may hold themselves
            self.components[name] = self.message(to) if isinstance(to, Descriptor) else enum(to)
        return {"$ref": f"#/components/schemas/{name}"}

    def message(self, of: Descriptor, *, without: Iterable[str] = ()) -> Schema:
        """An object schema of the message's fields, less those named."""
        left_out = frozenset(without)
        fields = [field for field in of.fields if field.name not in left_out]
        schema: Schema = {"type": "object"}
        if described := comments().get(of.full_name):
            schema["description"] = described
        schema["properties"] = {field.json_name: self.field(field) for field in fields}
        if required := [field.json_name for field in fields if is_required(field)]:
            schema["required"] = required
        return schema

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field: its type, what its comment says, and its rules."""
        rules = rules_of(field)
        if is_map(field):
            value = message_of(field).fields_by_name["value"]
            schema: Schema = {"type": "object", "additionalProperties": self._value(value, rules.map.values)}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._value(field, rules.repeated.items)}
            schema |= _list_limits(rules.repeated)
        else:
            schema = self._value(field, rules)
        return described(schema, comments().get(field.full_name, ""))

    def _value(self, field: FieldDescriptor, rules: validate_pb2.FieldRules) -> Schema:
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            held = message_of(field)
            return dict(_KNOWN[held.full_name]) if held.full_name in _KNOWN else self.reference(held)
        if field.type == FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None, "an enum field has a type"
            return self._enum(field.enum_type, rules.enum)
        if field.type == FieldDescriptor.TYPE_STRING:
            return string(rules.string, may_be_empty=rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE)
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "format": "byte"}
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        if field.type in _INTEGERS:
            return integer(_INTEGERS[field.type], rules)
        if field.type in _LONGS:
            return long(_LONGS[field.type], rules)
        return {"type": "number"}

    def _enum(self, of: EnumDescriptor, rules: validate_pb2.EnumRules) -> Schema:
        chosen = {number for number in of.values_by_number if number not in rules.not_in}
        if getattr(rules, "in"):
            chosen &= set(getattr(rules, "in"))
        reference = self.reference(of)
        if chosen == set(of.values_by_number):
            return reference
        return {**reference, "enum": [value.name for value in of.values if value.number in chosen]}


def component_name(of: Descriptor | EnumDescriptor) -> str:
    """E.g. "loyalty.AccrueRequest"; a later version keeps its number ("loyalty.v2.…")."""
    return str(of.full_name).removeprefix("siyu.").replace(".v1.", ".", 1)


def enum(of: EnumDescriptor) -> Schema:
    """A string schema with what each value means."""
    meant = ((value.name, comments().get(f"{of.full_name}.{value.name}", "")) for value in of.values)
    meanings = [f"- `{name}`: {text}" for name, text in meant if text]
    text = "\n".join([comments().get(of.full_name, ""), "", *meanings]).strip()
    return {"type": "string", "enum": [value.name for value in of.values], "description": text}


def string(rules: Any, *, may_be_empty: bool = False) -> Schema:
    """A string with its limits. A format that an empty string need not have is told in words."""
    schema: Schema = {"type": "string"}
    schema |= {ours: getattr(rules, name) for name, ours in _STRING_LIMITS.items() if rules.HasField(name)}
    if rules.HasField("len"):
        schema |= {"minLength": rules.len, "maxLength": rules.len}
    if rules.HasField("pattern"):
        schema["pattern"] = rules.pattern
    if rules.HasField("const"):
        schema["const"] = rules.const
    if getattr(rules, "in"):
        schema["enum"] = list(getattr(rules, "in"))
    well_known = rules.WhichOneof("well_known")
    if well_known in _FORMATS and getattr(rules, well_known):
        schema |= {"anyOf": [{"format": well_known}, {"maxLength": 0}]} if may_be_empty else {"format": well_known}
    return schema


def integer(format_name: str, rules: validate_pb2.FieldRules) -> Schema:
    """A 32-bit number with its bounds."""
    schema: Schema = {"type": "integer", "format": format_name}
    return schema | {keyword: value for keyword, value, _ in _bounds(rules)}


def long(format_name: str, rules: validate_pb2.FieldRules) -> Schema:
    """A 64-bit number: a string of digits, its bounds in words."""
    pattern = "^[0-9]+$" if format_name.startswith("u") else "^-?[0-9]+$"
    schema: Schema = {"type": "string", "format": format_name, "pattern": pattern}
    told = ", ".join(words for _, _, words in _bounds(rules))
    return described(schema, f"{told.capitalize()}." if told else "")


def described(schema: Schema, text: str) -> Schema:
    """The schema with the text before what it says already."""
    text = " ".join(part for part in (text, schema.get("description", "")) if part)
    return {**schema, "description": text} if text else schema


def _list_limits(rules: Any) -> Schema:
    limits: Schema = {ours: getattr(rules, name) for name, ours in _LIST_LIMITS.items() if rules.HasField(name)}
    return {**limits, "uniqueItems": True} if rules.unique else limits


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map: an object with keys of the caller's choice."""
    return bool(
        field.is_repeated and field.type == FieldDescriptor.TYPE_MESSAGE and message_of(field).GetOptions().map_entry
    )


def is_required(field: FieldDescriptor) -> bool:
    """Whether the rules refuse a request without the field."""
    rules = rules_of(field)
    if rules.required:
        return True
    if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE or field.has_presence:
        return False
    kind = rules.WhichOneof("type")
    check = _REFUSES_ZERO.get(kind or "", _number_refuses_zero)
    return kind is not None and check(getattr(rules, kind))


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The field's rules; empty where it has none."""
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    return rules


def _bounds(rules: validate_pb2.FieldRules) -> list[tuple[str, int, str]]:
    kind = rules.WhichOneof("type")
    if kind is None:
        return []
    of_kind = getattr(rules, kind)
    found = ((name, *_BOUNDS[name]) for name in _BOUNDS if of_kind.HasField(name))
    return [
        (keyword, getattr(of_kind, name), words.format(f"{getattr(of_kind, name):,}")) for name, keyword, words in found
    ]


def _string_refuses_empty(rules: Any) -> bool:
    return bool(
        rules.min_len > 0
        or rules.len > 0
        or (rules.pattern and not re.search(rules.pattern, ""))
        or rules.WhichOneof("well_known")
    )


def _enum_refuses_zero(rules: Any) -> bool:
    allowed = getattr(rules, "in")
    return 0 in rules.not_in or bool(allowed and 0 not in allowed)


def _number_refuses_zero(rules: Any) -> bool:
    above = (rules.HasField("gte") and rules.gte > 0) or (rules.HasField("gt") and rules.gt >= 0)
    below = (rules.HasField("lte") and rules.lte < 0) or (rules.HasField("lt") and rules.lt <= 0)
    return bool(above or below)


_REFUSES_ZERO: dict[str, Callable[[Any], bool]] = {
    "string": _string_refuses_empty,
    "enum": _enum_refuses_zero,
    "repeated": lambda rules: bool(rules.min_items > 0),
    "map": lambda rules: bool(rules.min_pairs > 0),
    "bool": lambda rules: bool(rules.const),
    "bytes": lambda rules: bool(rules.min_len > 0),
    "any": lambda _rules: False,
    "duration": lambda _rules: False,
    "timestamp": lambda _rules: False,
}
