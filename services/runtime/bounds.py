"""What holds for every field of every request, whatever its contract says: texts without NUL, times of a calendar.

Postgres stores no NUL, and a time near the ends of what a Timestamp can say overflows as soon as a day or a time zone
is added to it. Which fields can hold either is computed once per message type; most requests have one or two.
"""

import functools
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from buf.validate import validate_pb2
from services.runtime.errors import Violations

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
NO_NUL = "must not hold a NUL character"
NO_SUCH_TIME = "must lie in the years 1900 to 2199, with 0 to 999,999,999 nanoseconds; leave it out where it is open"

_EARLIEST_S = int(EARLIEST.timestamp())
_LATEST_S = int(LATEST.timestamp())
_NANOS = 1_000_000_000
_NUL = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """The fields of a message that have to be looked at, by what they are."""

    texts: tuple[str, ...]
    lists_of_texts: tuple[str, ...]
    times: tuple[str, ...]
    messages: tuple[tuple[str, "_Fields"], ...]
    lists_of_messages: tuple[tuple[str, "_Fields"], ...]

    def __bool__(self) -> bool:
        return bool(self.texts or self.lists_of_texts or self.times or self.messages or self.lists_of_messages)


def out_of_bounds(message: Message, *, may_hold_nul: bool = True) -> Violations:
    """The fields with a NUL or an impossible time, as (path, why); empty for nearly every request.

    `may_hold_nul` is false where the message's bytes have no zero among them, and so no text of it a NUL.
    """
    fields = _fields_of(message.DESCRIPTOR, with_texts=may_hold_nul)
    return tuple(_broken(message, fields)) if fields else ()


def _broken(message: Message, fields: _Fields) -> list[tuple[str, str]]:
    """What is broken within the message. A path is put together on the way back, since nearly no message needs one."""
    found: list[tuple[str, str]] = []
    for name in fields.times:
        if message.HasField(name) and not _is_a_time(getattr(message, name)):
            found.append((name, NO_SUCH_TIME))  # noqa: PERF401 - a comprehension is a call, for each of a batch's items
    if fields.texts or fields.lists_of_texts:
        found += _nuls(message, fields)
    for name, below in fields.messages:
        if message.HasField(name) and (broken := _broken(getattr(message, name), below)):
            found += [(f"{name}.{path}", why) for path, why in broken]
    for name, below in fields.lists_of_messages:
        for number, item in enumerate(getattr(message, name)):
            if broken := _broken(item, below):
                found += [(f"{name}[{number}].{path}", why) for path, why in broken]
    return found


def _nuls(message: Message, fields: _Fields) -> list[tuple[str, str]]:
    found = [(name, NO_NUL) for name in fields.texts if _NUL in getattr(message, name)]
    for name in fields.lists_of_texts:
        texts = enumerate(getattr(message, name))
        found += [(f"{name}[{number}]", NO_NUL) for number, text in texts if _NUL in text]
    return found


def _is_a_time(at: Timestamp) -> bool:
    return _EARLIEST_S <= at.seconds < _LATEST_S and 0 <= at.nanos < _NANOS


@functools.cache
def _fields_of(message: Descriptor, *, with_texts: bool) -> _Fields:
    texts: dict[bool, list[str]] = {False: [], True: []}
    times: list[str] = []
    messages: dict[bool, list[tuple[str, _Fields]]] = {False: [], True: []}
    for field in message.fields:
        kind = field.message_type
        assert kind is None or not kind.GetOptions().map_entry, f"{field.full_name}: no request has a map yet"
        if kind is None:
            if with_texts and field.type == FieldDescriptor.TYPE_STRING and not _excludes_nul(field):
                texts[field.is_repeated].append(field.name)
        elif kind is Timestamp.DESCRIPTOR:
            assert not field.is_repeated, f"{field.full_name}: no contract lists times yet"
            times.append(field.name)
        elif below := _fields_of(kind, with_texts=with_texts):
            # no request of ours nests a message in itself, or this would not end
            messages[field.is_repeated].append((field.name, below))
    return _Fields(
        texts=tuple(texts[False]),
        lists_of_texts=tuple(texts[True]),
        times=tuple(times),
        messages=tuple(messages[False]),
        lists_of_messages=tuple(messages[True]),
    )


def _excludes_nul(field: FieldDescriptor) -> bool:
    """Whether the contract's own rule does: it asks for an id, or says which characters there may be."""
    rules: validate_pb2.FieldRules = field.GetOptions().Extensions[validate_pb2.field]
    string = rules.repeated.items.string if field.is_repeated else rules.string
    return string.uuid or bool(string.pattern)
