"""Tenants, test clocks, client bindings, events as stored, and failed log-ins."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from services.identity import convert
from services.identity.domain import currencies
from services.identity.domain.clients import check_bindings
from services.identity.domain.events import IdentifierLinked, MemberMerged, MemberRegistered, TenantChanged
from services.identity.domain.identifiers import IdentifierType
from services.identity.domain.members import sign_up_time
from services.identity.domain.refusals import ClockBackwards, NoTestClock, TooManyAttempts
from services.identity.domain.stores import Store, check_stores
from services.identity.domain.tenants import Tenant, advanced, new_tenant
from services.identity.store.attempts import FAILURES_MAX, WINDOW_S, CountedAttempts
from services.runtime.call import Actor, ActorKind
from services.runtime.errors import Invalid, NotAllowed
from services.runtime.ids import MemberId, StoreId, TenantId
from siyu.identity.v1 import events_pb2

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def tenant(clock: datetime | None) -> Tenant:
    return new_tenant(
        TenantId("t"),
        code="c",
        display_name="d",
        time_zone="",
        currency_code="",
        region_code="",
        test_clock_at=clock,
        now=NOON,
    )


def test_a_clock_moves_forward_or_stays() -> None:
    brand = tenant(NOON)
    assert advanced(brand, NOON) == brand
    moved = advanced(brand, NOON + DAY)
    assert (moved.test_clock_at, moved.version) == (NOON + DAY, 2)
    with pytest.raises(ClockBackwards):
        advanced(moved, NOON)
    with pytest.raises(NoTestClock):
        advanced(tenant(None), NOON)


def test_currencies_are_those_of_shops() -> None:
    assert all(re.fullmatch(r"[A-Z]{3}", code) for code in currencies.ACTIVE)
    assert len(currencies.ACTIVE) == 155
    assert {"CNY", "HKD", "TWD", "JPY", "EUR", "USD", "KWD", "XOF"} <= currencies.ACTIVE
    assert not {"XAU", "XTS", "XXX", "DEM", "RMB"} & currencies.ACTIVE


def test_a_sign_up_is_now_late_or_a_little_early() -> None:
    assert sign_up_time(None, now=NOON) == NOON
    assert sign_up_time(NOON - DAY, now=NOON) == NOON - DAY
    assert sign_up_time(NOON + timedelta(minutes=5), now=NOON)
    with pytest.raises(Invalid):
        sign_up_time(NOON + timedelta(minutes=6), now=NOON)


@pytest.mark.parametrize(
    ("kind", "store", "supplier", "by", "refusal"),
    [
        (ActorKind.POS, "S1", "", {}, None),
        (ActorKind.POS, "", "", {}, Invalid),
        (ActorKind.SUPPLIER, "", "X", {}, None),
        (ActorKind.SUPPLIER, "", "", {}, Invalid),
        (ActorKind.STAFF, "", "X", {}, Invalid),
        (ActorKind.STAFF, "S1", "", {"store_id": "S1"}, None),
        (ActorKind.STAFF, "", "", {"store_id": "S1"}, NotAllowed),
        (ActorKind.POS, "S2", "", {"store_id": "S1"}, NotAllowed),
        (ActorKind.SUPPLIER, "", "Y", {"supplier_id": "X"}, NotAllowed),
        (ActorKind.BACKEND, "", "", {"supplier_id": "X"}, NotAllowed),
    ],
)
def test_bindings(
    kind: ActorKind, store: str, supplier: str, by: dict[str, str], refusal: type[Exception] | None
) -> None:
    maker = Actor(kind=ActorKind.STAFF, id="m", **by)
    if refusal is None:
        check_bindings(kind, store_id=store, supplier_id=supplier, by=maker)
    else:
        with pytest.raises(refusal):
            check_bindings(kind, store_id=store, supplier_id=supplier, by=maker)


def test_a_store_stands_once_in_a_batch() -> None:
    shop = Store(store_id=StoreId("S1"), display_name="d", time_zone="", active=True)
    check_stores([shop])
    with pytest.raises(Invalid) as refused:
        check_stores([shop, shop])
    assert refused.value.violations[0][0] == "stores[1].store_id"


def test_events_lie_with_their_member_or_tenant() -> None:
    member, other = MemberId("m"), MemberId("o")
    registered = convert.recorded(
        MemberRegistered(
            member_id=member,
            channel="pos",
            store_id="S1",
            signed_up_at=NOON,
            identifier_types=(IdentifierType.CARD, IdentifierType.PHONE),
            version=1,
        )
    )
    payload = events_pb2.MemberRegistered.FromString(registered.payload)
    assert list(payload.identifier_types) == ["IDENTIFIER_TYPE_CARD", "IDENTIFIER_TYPE_PHONE"]
    linked = convert.recorded(
        IdentifierLinked(member_id=member, identifier_type=IdentifierType.CARD, linked_at=NOON, version=2)
    )
    merged = convert.recorded(
        MemberMerged(merge_id="g", member_id=member, merged_member_id=other, merged_at=NOON, version=3)
    )
    for version, event in enumerate((registered, linked, merged), start=1):
        assert (event.aggregate_type, event.aggregate_id, event.partition_key) == ("member", "m", "m")
        assert (event.version, event.occurred_at) == (version, NOON)
    changed = convert.recorded(
        TenantChanged(
            tenant_id=TenantId("t"),
            time_zone="UTC",
            currency_code="CNY",
            test_clock_at=None,
            changed_at=NOON,
            version=1,
        )
    )
    assert (changed.type, changed.aggregate_id, changed.partition_key) == ("identity.TenantChanged", "t", "t")


async def test_failures_are_counted_by_client_and_address_and_forgotten_after_a_minute() -> None:
    now = 0.0
    attempts = CountedAttempts(seconds=lambda: now)
    for _ in range(FAILURES_MAX):
        attempts.check("c", "here")
        await attempts.failed("c", "here")
    with pytest.raises(TooManyAttempts) as refused:
        attempts.check("c", "here")
    assert refused.value.retry_after_s == WINDOW_S
    attempts.check("c", "there")
    attempts.check("d", "here")
    now = WINDOW_S + 0.1
    attempts.check("c", "here")


async def test_without_redis_failures_are_counted_here() -> None:
    gone = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    attempts = CountedAttempts(redis=gone)
    for _ in range(FAILURES_MAX):
        await attempts.failed("c", "here")
    with pytest.raises(TooManyAttempts):
        attempts.check("c", "here")
    await gone.aclose()
