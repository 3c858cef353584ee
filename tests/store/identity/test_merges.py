"""Merging members: the older survives, aliases take one step, and what was before can be given back."""

import asyncio
import itertools
import random
from datetime import timedelta

import pytest

from services.identity.domain.refusals import SameMember, UnknownMember
from services.runtime.database import Connection, raw
from services.runtime.ids import new_id
from siyu.common.v1 import audit_pb2
from siyu.identity.v1 import events_pb2, member_pb2
from tests.store.identity.conftest import NOON, Brand, Identity, card, openid, phone, sign_up


async def test_the_older_survives_and_owns_everything(identity: Identity, brand: Brand) -> None:
    younger = (await brand.register(card("c1"), phone("13800138000"))).member
    older = (await brand.register(openid("o1"), occurred_at=NOON - timedelta(days=400))).member
    merged = await brand.merge(younger.member_id, older.member_id)
    assert (merged.member.member_id, merged.merged_member_id) == (older.member_id, younger.member_id)
    assert {named.value for named in merged.member.identifiers} == {"C1", "+8613800138000", "o1"}
    assert merged.member.version == older.version + 1
    assert await brand.get(younger.member_id) == await brand.get(older.member_id) == merged.member
    assert await brand.resolve(card("c1")) == older.member_id
    (event,) = [event for event in await identity.events() if event.type == "identity.MemberMerged"]
    told = events_pb2.MemberMerged.FromString(event.payload)
    assert (told.member_id, told.merged_member_id, told.merge_id) == (
        older.member_id,
        younger.member_id,
        merged.merge_id,
    )
    assert (event.aggregate_id, event.aggregate_version) == (older.member_id, 2)


async def test_what_is_one_member_already_is_not_merged(brand: Brand) -> None:
    one = (await brand.register(card("c1"))).member.member_id
    other = (await brand.register(card("c2"))).member.member_id
    with pytest.raises(SameMember):
        await brand.merge(one, one)
    with pytest.raises(UnknownMember) as refused:
        await brand.merge(one, new_id())
    assert refused.value.metadata == {"field": "other_member_id"}
    with pytest.raises(UnknownMember) as refused:
        await brand.merge(new_id(), one)
    assert refused.value.metadata == {"field": "member_id"}
    request_id = new_id()
    first = await brand.merge(one, other, request_id=request_id)
    assert await brand.merge(one, other, request_id=request_id) == first
    with pytest.raises(SameMember):
        await brand.merge(other, one)


async def test_a_chain_of_merges_leaves_aliases_one_step_from_their_survivor(identity: Identity, brand: Brand) -> None:
    ids = [
        (await brand.register(card(f"c{number}"), occurred_at=NOON - timedelta(days=number))).member.member_id
        for number in range(6)
    ]
    # each merge makes the former survivor an alias of an older one
    for one, other in itertools.pairwise(ids):
        await brand.merge(one, other)
    assert {(await brand.get(member_id)).member_id for member_id in ids} == {ids[-1]}

    async def targets(connection: Connection) -> set[str]:
        found = await raw(connection).fetch(
            "SELECT DISTINCT merged_into::text FROM members WHERE merged_into IS NOT NULL"
        )
        return {row["merged_into"] for row in found}

    assert await identity.app.read(brand.tenant_id, targets) == {ids[-1]}
    # whoever still knows an old id links to the survivor
    assert (await brand.link(ids[0], openid("o1"))).member_id == ids[-1]


async def test_a_number_that_both_claim_is_kept_once_and_the_owner_stays(brand: Brand) -> None:
    number = "13800138000"
    claims = (await brand.register(card("c1"), phone(number, verified=False))).member.member_id
    owns = (await brand.register(card("c2"), phone(number))).member.member_id
    merged = (await brand.merge(claims, owns)).member
    assert merged.member_id == claims
    assert [named.verified for named in merged.identifiers if named.value == f"+86{number}"] == [True]
    assert await brand.resolve(phone(number)) == claims


async def test_the_snapshot_tells_what_both_were(identity: Identity, brand: Brand) -> None:
    number = "13800138000"
    one = (await brand.register(card("c1"), phone(number, verified=False))).member
    other = (await brand.register(card("c2"), phone(number))).member
    merged = await brand.merge(one.member_id, other.member_id)

    async def recorded(connection: Connection) -> tuple[dict[str, dict[str, list[dict[str, object]]]], bytes]:
        row = await raw(connection).fetchrow(
            "SELECT snapshot, evidence FROM merges WHERE merge_id = $1::uuid", merged.merge_id
        )
        return row["snapshot"], row["evidence"]

    snapshot, evidence = await identity.app.read(brand.tenant_id, recorded)
    assert snapshot.keys() == {one.member_id, other.member_id}
    assert sorted(said["owns"] for said in snapshot[one.member_id]["identifiers"]) == [False, True]
    assert len(snapshot[other.member_id]["identifiers"]) == 2
    assert b"till" not in evidence


async def test_merges_of_the_same_members_at_once_make_one_member_without_cycles(
    identity: Identity, brand: Brand
) -> None:
    chance = random.Random(20260501)
    results = await brand.register_many([_sign_up(number) for number in range(12)])
    ids = [result.member.member_id for result in results]
    pairs = [tuple(chance.sample(ids, 2)) for _ in range(60)]
    answers = await asyncio.gather(*(brand.merge(one, other) for one, other in pairs), return_exceptions=True)
    unexpected = [
        answer for answer in answers if isinstance(answer, BaseException) and not isinstance(answer, SameMember)
    ]
    assert not unexpected
    assert {(await brand.get(member_id)).member_id for member_id in ids} == {ids[0]}
    assert len([answer for answer in answers if not isinstance(answer, BaseException)]) == 11
    findings = (await identity.audit.audit(_everything(), brand.call())).findings
    assert all(finding.ok for finding in findings), findings


async def test_registering_and_linking_during_merges_strands_nothing(identity: Identity, brand: Brand) -> None:
    results = await brand.register_many([_sign_up(number) for number in range(10)])
    ids = [result.member.member_id for result in results]
    work = [brand.merge(one, other) for one, other in itertools.pairwise(ids)]
    work += [brand.link(member_id, openid(f"o{at}")) for at, member_id in enumerate(ids)]
    work += [brand.register(card(f"c{at}"), openid(f"p{at}")) for at in range(10)]
    answers = await asyncio.gather(*work, return_exceptions=True)
    assert not [answer for answer in answers if isinstance(answer, BaseException)]
    owners = {
        await brand.resolve(named) for at in range(10) for named in (card(f"c{at}"), openid(f"o{at}"), openid(f"p{at}"))
    }
    assert owners == {ids[0]}
    findings = (await identity.audit.audit(_everything(), brand.call())).findings
    assert all(finding.ok for finding in findings), findings
    versions = sorted(event.aggregate_version for event in await identity.events() if event.aggregate_id == ids[0])
    assert versions == list(range(1, len(versions) + 1))


async def test_a_merge_never_reaches_into_another_tenant(identity: Identity, brand: Brand) -> None:
    other = await identity.brand()
    mine = (await brand.register(card("c1"))).member.member_id
    theirs = (await other.register(card("c1"))).member.member_id
    with pytest.raises(UnknownMember):
        await brand.merge(mine, theirs)
    assert await other.resolve(card("c1")) == theirs


def _sign_up(number: int) -> member_pb2.RegisterMemberRequest:
    return sign_up(card(f"c{number}"), occurred_at=NOON - timedelta(days=100 - number))


def _everything() -> audit_pb2.AuditRequest:
    return audit_pb2.AuditRequest()
