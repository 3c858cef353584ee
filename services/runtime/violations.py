"""The contract's rules in the words of a refusal: which field, and what is to be in it. Never the value."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from protovalidate import Violation

from buf.validate import validate_pb2
from services.runtime.errors import Violations
from services.runtime.patterns import words

PATTERN = "string.pattern"


def told(found: Sequence[Violation], message: Message) -> Violations:
    """(field path, why) of what was found wrong in a message; what two rules say of one empty field is told once."""
    return tuple(dict.fromkeys((path_of(each.proto.field), _why(each, message)) for each in found))


def path_of(field_path: Any) -> str:
    """As callers write it, e.g. "sale.basket.lines[2].sku"."""
    parts: list[str] = []
    for element in field_path.elements if field_path is not None else ():
        subscript = element.subscript
        index = getattr(subscript, "value", None) if subscript is not None else None
        parts.append(element.field_name if index is None else f"{element.field_name}[{index}]")
    return ".".join(parts)


def _why(violation: Violation, message: Message) -> str:
    proto = violation.proto
    is_missing = proto.rule_id == "required" or violation.field_value in ("", b"")
    field = _field(message, proto.field)
    if field is not None and field.enum_type is not None and not field.is_repeated:
        names = f"one of {', '.join(_choices(field, field.enum_type))}"
        return f"is required: {names}" if violation.field_value == 0 else f"must be {names}"
    if is_missing:
        return "is required"
    return words(str(violation.rule_value)) if proto.rule_id == PATTERN else str(proto.message)


def _field(message: Message, field_path: Any) -> FieldDescriptor | None:
    """The field that the path leads to; None where it leads to none, such as to a oneof."""
    within: Any = message.DESCRIPTOR
    field: FieldDescriptor | None = None
    for element in field_path.elements if field_path is not None else ():
        field = None if within is None else within.fields_by_number.get(element.field_number)
        if field is None:
            return None
        within = field.message_type
        if within is not None and within.GetOptions().map_entry:
            field = within.fields_by_name["value"]
            within = field.message_type
    return field


def _choices(field: FieldDescriptor, values: EnumDescriptor) -> list[str]:
    """The names that the field's rule lets through; not that of 0, which is what nobody chose."""
    rule = field.GetOptions().Extensions[validate_pb2.field].enum
    allowed = set(getattr(rule, "in")) or {value.number for value in values.values}
    return [value.name for value in values.values if value.number in allowed - {0, *rule.not_in}]
