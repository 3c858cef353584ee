"""Ids, clocks, calls, settings and refusals."""

import time
import uuid
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.clock import FixedClock, SystemClock, end_of_day, local_day, start_of_day
from services.runtime.errors import (
    AlreadyExists,
    Conflict,
    DomainError,
    Exhausted,
    Invalid,
    Missing,
    NotAllowed,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from services.runtime.idempotency import fingerprint, fingerprint_of, refusal_from_json, refusal_to_json
from services.runtime.ids import derive_id, is_id, new_id, stable_hash
from services.runtime.outbox import partition_of
from services.runtime.settings import Settings, role_name, without_user
from siyu.loyalty.v1 import points_pb2

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)


def test_new_ids_sort_by_time_and_are_version_7() -> None:
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(uuid.UUID(one).version == 7 and is_id(one) for one in ids)
    assert ids[0][:8] <= ids[-1][:8]


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_derived_ids_are_equal_only_for_equal_parts(one: list[str], other: list[str]) -> None:
    assert (derive_id(*one) == derive_id(*other)) == (one == other)
    assert uuid.UUID(derive_id(*one)).version == 8
    assert uuid.UUID(derive_id(*one)).variant == uuid.RFC_4122


def test_derived_ids_hashes_and_partitions_are_the_same_in_every_release() -> None:
    assert derive_id("order-1", "earn") == "052f0afa-f5ce-8e98-9b88-9ee9586247f7"
    assert stable_hash("member-1") == 5478907731370650884
    assert 0 <= stable_hash("member-1") < 2**63
    assert {partition_of(str(key), 8) for key in range(200)} == set(range(8))


@pytest.mark.parametrize("text", ["", "null", "1", "01A2013C-2A50-7455-AA44-719F87F98EEE", "{" + new_id() + "}"])
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    assert not is_id(text)


@pytest.mark.parametrize(
    ("at", "zone", "day"),
    [
        pytest.param(datetime(2026, 12, 31, 15, 59, tzinfo=UTC), "Asia/Shanghai", date(2026, 12, 31), id="23:59 there"),
        pytest.param(datetime(2026, 12, 31, 16, 0, tzinfo=UTC), "Asia/Shanghai", date(2027, 1, 1), id="midnight there"),
        pytest.param(datetime(2026, 12, 31, 16, 0, tzinfo=UTC), "America/New_York", date(2026, 12, 31), id="morning"),
    ],
)
def test_a_day_is_the_brands(at: datetime, zone: str, day: date) -> None:
    assert local_day(at, zone) == day


def test_a_day_expires_at_its_end() -> None:
    end = end_of_day(date(2026, 12, 31), "Asia/Shanghai")
    assert end == datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert local_day(end - timedelta(microseconds=1), "Asia/Shanghai") == date(2026, 12, 31)


def test_a_day_of_daylight_saving_is_as_long_as_it_is() -> None:
    spring = date(2026, 3, 8)
    length = end_of_day(spring, "America/New_York") - start_of_day(spring, "America/New_York")
    assert length == timedelta(hours=23)


def test_clocks_tell_utc() -> None:
    assert SystemClock().now().tzinfo is UTC
    clock = FixedClock(NOON)
    clock.advance(timedelta(hours=1))
    assert clock.now() == NOON + timedelta(hours=1)
    with pytest.raises(AssertionError):
        clock.advance(timedelta(seconds=-1))


def test_what_is_left_of_a_call_is_never_negative() -> None:
    actor = Actor(kind=ActorKind.BACKEND, id="b")
    call = Call(tenant_id="t", client_id="c", actor=actor, now=NOON, time_zone="UTC", deadline_at=deadline_in(10))
    assert 9 < call.remaining_s() <= 10
    late = Call(tenant_id="t", client_id="c", actor=actor, now=NOON, time_zone="UTC", deadline_at=time.monotonic() - 1)
    assert late.remaining_s() == 0.0


@pytest.mark.parametrize(
    ("actor", "store_id", "allowed"),
    [
        pytest.param(Actor(kind=ActorKind.POS, id="t", store_id="S1"), "S1", True, id="a till in its store"),
        pytest.param(Actor(kind=ActorKind.POS, id="t", store_id="S1"), "S2", False, id="a till in another"),
        pytest.param(Actor(kind=ActorKind.POS, id="t"), "S1", False, id="a till without a store"),
        pytest.param(Actor(kind=ActorKind.STAFF, id="g", store_id="S1"), "S2", False, id="a guide of another store"),
        pytest.param(Actor(kind=ActorKind.STAFF, id="h"), "S2", True, id="head office"),
        pytest.param(Actor(kind=ActorKind.SERVICE, id="commerce"), "S2", True, id="a service"),
    ],
)
def test_a_till_acts_for_its_own_store(actor: Actor, store_id: str, allowed: bool) -> None:
    if allowed:
        actor.check_store(store_id)
    else:
        with pytest.raises(NotAllowed) as refused:
            actor.check_store(store_id)
        assert refused.value.reason == "OUT_OF_SCOPE"


@pytest.mark.parametrize(
    ("bound_to", "asked", "message"),
    [
        pytest.param("S1", "S2", "this caller acts for store 'S1' alone; the request names store 'S2'", id="another"),
        pytest.param("S1", "", "this caller acts for store 'S1' alone; the request names no store", id="none"),
        pytest.param("", "S1", "this caller is bound to no store", id="a till without one"),
    ],
)
def test_what_is_out_of_scope_is_told_with_both_stores(bound_to: str, asked: str, message: str) -> None:
    with pytest.raises(NotAllowed, match=f"^{message}$"):
        Actor(kind=ActorKind.POS, id="t", store_id=bound_to).check_store(asked)


def test_what_is_out_of_scope_is_told_with_its_field() -> None:
    till = Actor(kind=ActorKind.POS, id="t", store_id="S1")
    with pytest.raises(NotAllowed, match=r"^sale\.basket\.store_id: this caller acts for") as refused:
        till.check_store("S2", field="sale.basket.store_id")
    assert refused.value.metadata == {"store_id": "S2", "field": "sale.basket.store_id"}
    with pytest.raises(NotAllowed) as refused:
        till.check_store("S2")
    assert refused.value.metadata == {"store_id": "S2"}


def test_a_supplier_acts_for_itself() -> None:
    supplier = Actor(kind=ActorKind.SUPPLIER, id="c", supplier_id="acme")
    supplier.check_supplier("acme")
    Actor(kind=ActorKind.BACKEND, id="b").check_supplier("acme")
    for refused in (supplier, Actor(kind=ActorKind.SUPPLIER, id="c")):
        with pytest.raises(NotAllowed):
            refused.check_supplier("other")


def test_role_urls_keep_host_and_database_and_hide_secrets() -> None:
    settings = Settings(database_url="postgresql+asyncpg://admin:pw@db:6543/siyu?ssl=require", role_password="p/w@")
    assert settings.role_dsn("loyalty", "app") == "postgresql://siyu_loyalty:p%2Fw%40@db:6543/siyu?ssl=require"
    assert settings.admin_dsn() == "postgresql://admin:pw@db:6543/siyu?ssl=require"
    assert role_name("loyalty", "system") == "siyu_loyalty_system"
    anonymous = without_user(settings.database_url)
    assert anonymous == "postgresql+asyncpg://db:6543/siyu?ssl=require"
    told = settings.model_copy(update={"database_url": anonymous})
    assert told.role_dsn("loyalty", "app") == settings.role_dsn("loyalty", "app")
    assert "p/w@" not in repr(settings)
    assert ":pw@" not in repr(settings)
    assert settings.address_of("commerce") == settings.commerce_address


class InsufficientPoints(Refused):
    """A named refusal."""

    reason = "INSUFFICIENT_POINTS"


class MemberMissing(Missing):
    """A named missing thing."""

    reason = "MEMBER_GONE"


@pytest.mark.parametrize(
    ("error", "reason", "storable"),
    [
        pytest.param(Invalid("is empty", field="name"), "INVALID_FIELD", False, id="invalid"),
        pytest.param(Unauthenticated("who?"), "UNAUTHENTICATED", False, id="unauthenticated"),
        pytest.param(NotAllowed("no"), "NOT_ALLOWED", False, id="not allowed"),
        pytest.param(Missing(kind="order line", name="7"), "ORDER_LINE_NOT_FOUND", True, id="missing"),
        pytest.param(MemberMissing(kind="member", name="7"), "MEMBER_GONE", True, id="a named missing"),
        pytest.param(Missing(kind="x", name="7", reason="X_AWAY"), "X_AWAY", True, id="missing with a reason"),
        pytest.param(AlreadyExists("taken"), "ALREADY_EXISTS", True, id="already exists"),
        pytest.param(Refused("no"), "REFUSED", True, id="refused"),
        pytest.param(InsufficientPoints("12 missing"), "INSUFFICIENT_POINTS", True, id="a named refusal"),
        pytest.param(Exhausted("full"), "EXHAUSTED", False, id="exhausted"),
        pytest.param(Conflict("again"), "CONFLICT", False, id="conflict"),
        pytest.param(TimedOut("late"), "DEADLINE_EXCEEDED", False, id="timed out"),
        pytest.param(Unavailable("away"), "UNAVAILABLE", False, id="unavailable"),
    ],
)
def test_every_refusal_has_a_reason(error: DomainError, reason: str, storable: bool) -> None:
    assert error.reason == reason
    assert error.storable is storable
    assert error.message
    if storable:
        again = refusal_from_json(refusal_to_json(error))
        assert (again.reason, again.message, again.metadata) == (error.reason, error.message, error.metadata)


def test_an_invalid_request_names_each_field() -> None:
    assert Invalid("is empty", field="name").violations == (("name", "is empty"),)
    several = Invalid(violations=(("a", "is long"), ("b", "is short")))
    assert several.violations == (("a", "is long"), ("b", "is short"))
    assert str(several) == "a: is long; b: is short"


def test_a_fingerprint_is_the_bodys_without_its_request_id() -> None:
    assert fingerprint(b"a") != fingerprint(b"b")
    assert len(fingerprint(b"a")) == 16
    first = points_pb2.HoldPointsRequest(request_id="r-1", hold_id="h", points=100)
    second = points_pb2.HoldPointsRequest(request_id="r-2", hold_id="h", points=100)
    other = points_pb2.HoldPointsRequest(request_id="r-1", hold_id="h", points=101)
    assert fingerprint_of(first) == fingerprint_of(second) != fingerprint_of(other)
    assert first.request_id == "r-1"
