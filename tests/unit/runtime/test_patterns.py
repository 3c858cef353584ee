"""The words of a contract's patterns."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from buf.validate import validate_pb2
from gateway.contracts import files
from services.runtime.patterns import words


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        pytest.param(
            "^[A-Za-z0-9._-]{1,64}$", "must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '-'", id="from and to"
        ),
        pytest.param("^[a-z0-9_]{0,32}$", "must be at most 32 characters of a-z, 0-9, '_'", id="may be empty"),
        pytest.param("^[A-Z]{3}$", "must be 3 characters of A-Z", id="so many"),
        pytest.param("^[a-z]+$", "must be 1 or more characters of a-z", id="some"),
        pytest.param("^[a-z]*$", "must be characters of a-z", id="any number"),
        pytest.param("^([A-Z]{2})?$", "must be empty or 2 characters of A-Z", id="so many or none"),
        pytest.param(r"^[\x21-\x7e]+$", "must be printable ASCII characters without spaces", id="a request's id"),
        pytest.param("^([0-9]{4}-[0-9]{2}-[0-9]{2})?$", "must be empty or a day such as 2017-03-06", id="a day"),
    ],
)
def test_a_pattern_in_words(pattern, told) -> None:
    assert words(pattern) == told


def test_every_pattern_of_every_contract_has_words() -> None:
    patterns = {
        rules.pattern
        for file in files()
        for message in file.message_types_by_name.values()
        for rules in texts_of(message)
        if rules.HasField("pattern")
    }
    assert len(patterns) > 10, "the patterns are somewhere else now"
    assert {pattern: words(pattern) for pattern in patterns}


def test_a_pattern_without_words_is_not_told() -> None:
    with pytest.raises(ValueError, match="has no words yet"):
        words("^(a|b){7}$")


def texts_of(message: Descriptor) -> Iterator[validate_pb2.StringRules]:
    """The rules of every text in a message and in those inside it."""
    for field in message.fields:
        yield from texts_in(field.GetOptions().Extensions[validate_pb2.field])
    for nested in message.nested_types:
        yield from texts_of(nested)


def texts_in(rules: Message) -> Iterator[validate_pb2.StringRules]:
    """The rules of the texts that a field's rules speak of: of the field, its items, its keys or its values."""
    if isinstance(rules, validate_pb2.StringRules):
        yield rules
        return
    for field, inner in rules.ListFields():
        if field.message_type is not None and not field.is_repeated:
            yield from texts_in(inner)
