"""Cursors: what was written is read, and nothing else is."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cursor import Cursor, CursorSeal
from gateway.envoy.listener import MAX_HEADERS_KB
from services.runtime.errors import Invalid
from services.runtime.settings import SERVICES

TENANT, OTHER = "tenant-a", "tenant-b"
SEAL = CursorSeal.of("secret", services=SERVICES)
PLACES = st.tuples(st.sampled_from(SERVICES), st.integers(0, 255))
CURSORS = st.builds(
    lambda positions, taken, turn: Cursor(positions=positions, taken=taken, turn=turn),
    st.dictionaries(PLACES, st.integers(0, 2**62), max_size=40),
    st.dictionaries(PLACES, st.integers(1, 255), max_size=5),
    st.integers(0, 1000),
)


@given(CURSORS)
def test_what_is_written_is_read(cursor: Cursor) -> None:
    text = SEAL.write(cursor, tenant_id=TENANT)
    read = SEAL.read(text, tenant_id=TENANT)
    places = {*cursor.positions, *cursor.taken}
    assert {place: read.after(*place) for place in places} == {place: cursor.after(*place) for place in places}
    assert (read.taken, read.turn) == (cursor.taken, cursor.turn)
    assert text.isascii()
    assert not set(text) & set("+/=&?# "), "fits into a query as it is"


@given(CURSORS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused(cursor: Cursor, place: int, by: int) -> None:
    text = SEAL.write(cursor, tenant_id=TENANT)
    sealed = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    sealed[place % len(sealed)] ^= by
    with pytest.raises(Invalid) as refused:
        SEAL.read(base64.urlsafe_b64encode(bytes(sealed)).decode().rstrip("="), tenant_id=TENANT)
    assert refused.value.reason == "CURSOR_INVALID"


@given(st.text(max_size=200))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        SEAL.read(text, tenant_id=TENANT)


@pytest.mark.parametrize(
    ("seal", "tenant"),
    [
        pytest.param(SEAL, OTHER, id="another tenant"),
        pytest.param(CursorSeal.of("other", services=SERVICES), TENANT, id="another installation"),
    ],
)
def test_a_cursor_of_others_is_refused(seal: CursorSeal, tenant: str) -> None:
    text = SEAL.write(Cursor(positions={("commerce", 0): 7}), tenant_id=TENANT)
    with pytest.raises(Invalid):
        seal.read(text, tenant_id=tenant)


@pytest.mark.parametrize(
    ("partitions", "at"),
    [
        pytest.param(64, 2**40, id="a cluster's"),
        pytest.param(256, 1000, id="as many as there can be"),
        pytest.param(256, 2**63 - 1, id="and each at its last number"),
    ],
)
def test_a_cursor_over_everything_fits_into_a_query(partitions: int, at: int) -> None:
    everything = {(service, partition): at for service in SERVICES for partition in range(partitions)}
    text = SEAL.write(Cursor(positions=everything, taken=dict.fromkeys(everything, 255)), tenant_id=TENANT)
    assert SEAL.read(text, tenant_id=TENANT).positions == everything
    assert len(text) < (MAX_HEADERS_KB - 8) * 1024, "a request has other headers too"
