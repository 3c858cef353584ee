"""Every RPC refuses every malformed field, by name: generated from the contracts, against the adapter's own check."""

import re
from collections.abc import Callable

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services.runtime.errors import Invalid
from services.runtime.server import check_valid
from tests.requests import Rpc, largest, malformed, out_of_bounds, rpcs, unruled, well_formed

UNARY = [rpc for rpc in rpcs() if rpc.is_unary]


@pytest.mark.parametrize("rpc", rpcs(), ids=str)
def test_a_well_formed_request_passes(rpc: Rpc) -> None:
    check_valid(well_formed(rpc))


@pytest.mark.parametrize("rpc", rpcs(), ids=str)
def test_the_largest_request_passes(rpc: Rpc) -> None:
    check_valid(largest(rpc))


@pytest.mark.parametrize("rpc", UNARY, ids=str)
def test_each_malformed_field_is_named(rpc: Rpc) -> None:
    unnamed(rpc, check_valid)


@pytest.mark.parametrize("rpc", rpcs(), ids=str)
def test_a_nul_or_an_impossible_time_is_named_wherever_it_stands(rpc: Rpc) -> None:
    for case in out_of_bounds(rpc):
        with pytest.raises(Invalid) as caught:
            check_valid(case.request)
        assert case.field in [re.sub(r"\[\d+\]", "", field) for field, _ in caught.value.violations], case


def unnamed(rpc: Rpc, check: Callable[[Message], None]) -> None:
    for case in malformed(rpc):
        with pytest.raises(Invalid) as caught:
            check(case.request)
        named = [re.sub(r"\[\d+\]", "", field) for field, _ in caught.value.violations]
        assert any(field == case.field or field.startswith(f"{case.field}.") for field in named), (case, named)


def test_a_check_that_lets_everything_pass_would_be_found() -> None:
    rpc = next(rpc for rpc in UNARY if rpc.rule.family)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        unnamed(rpc, lambda _request: None)


@pytest.mark.parametrize("rpc", rpcs(), ids=str)
def test_every_field_says_what_it_may_hold(rpc: Rpc) -> None:
    assert list(unruled(rpc.method.input_type)) == []


@pytest.mark.parametrize("rpc", [rpc for rpc in rpcs() if rpc.rule.family], ids=str)
def test_what_changes_something_carries_a_request_id(rpc: Rpc) -> None:
    assert carries_request_id(rpc.method.input_type)


def carries_request_id(message: Descriptor, depth: int = 0) -> bool:
    if any(field.name == "request_id" for field in message.fields):
        return True
    lists = [field.message_type for field in message.fields if field.message_type is not None and field.is_repeated]
    return depth < 2 and any(carries_request_id(each, depth + 1) for each in lists)
