"""Money, points, quantities and rates on the wire: integers and decimal strings, and no float anywhere."""

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from siyu.campaign.v1 import events_pb2 as campaign_events
from siyu.commerce.v1 import events_pb2 as commerce_events
from siyu.identity.v1 import events_pb2 as identity_events
from siyu.loyalty.v1 import events_pb2 as loyalty_events
from tests.requests import FILES

EVENTS = (campaign_events, commerce_events, identity_events, loyalty_events)
RATES = {"siyu.loyalty.v1.EarnRule.points"}
"""Points per so much money: half a point is one."""
FLOATS = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}


def messages() -> list[Descriptor]:
    files = {file.DESCRIPTOR.name: file for files in (*FILES.values(), EVENTS) for file in files}
    return [
        nested
        for file in files.values()
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for nested in with_nested(message)
    ]


def with_nested(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for nested in message.nested_types:
        yield from with_nested(nested)


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.full_name)
def test_numbers_are_whole(message: Descriptor) -> None:
    for field in message.fields:
        assert field.type not in FLOATS, field.full_name
        if field.full_name in RATES or field.name in {"percent", "multiplier"}:
            assert field.type == FieldDescriptor.TYPE_STRING, field.full_name
        elif field.name.endswith(("_minor", "_points")) or field.name == "points":
            assert field.type == FieldDescriptor.TYPE_INT64, field.full_name
