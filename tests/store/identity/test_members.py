"""Members: who it is, whatever races, retries and writes it is told in."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from services.identity.domain.refusals import (
    IdentifierRefused,
    IdentifierTaken,
    PhoneNotVerified,
    UnknownMember,
    UnknownStore,
)
from services.runtime.database import Connection, raw
from services.runtime.errors import AlreadyExists, Invalid, NotAllowed
from services.runtime.ids import new_id
from tests.store.identity.conftest import NOON, Brand, Identity, card, openid, phone, sign_up


async def test_a_member_is_found_by_every_identifier_however_it_is_written(brand: Brand) -> None:
    member = (await brand.register(card("ab 12-34"), phone("138 0013 8000"), openid("oABC"))).member
    for named in (
        card("AB12-34"),
        card(" ab12-34 "),
        phone("+8613800138000"),
        phone("１３８００１３８０００"),
        openid("oABC"),
    ):
        assert await brand.resolve(named) == member.member_id
    with pytest.raises(UnknownMember) as refused:
        await brand.resolve(openid("oABC", issuer="another-app"))
    assert refused.value.metadata == {"field": "identifier"}
    with pytest.raises(UnknownMember):
        await brand.resolve(openid("oabc"))


async def test_values_come_back_in_normal_form_and_lie_sealed(identity: Identity, brand: Brand) -> None:
    reply = await brand.register(phone("13800138000"), card("c 1"), display_name="王小明", sign_up_channel="pos")
    member = await brand.get(reply.member.member_id)
    assert member == reply.member
    assert {named.value for named in member.identifiers} == {"+8613800138000", "C1"}
    assert member.display_name == "王小明"

    async def everything(connection: Connection) -> bytes:
        rows = await raw(connection).fetch(
            "SELECT m::text AS said FROM members m UNION ALL SELECT i::text FROM identifiers i"
        )
        return "".join(row["said"] for row in rows).encode()

    stored = await identity.app.read(brand.tenant_id, everything)
    for value in ("13800138000", "王小明", b"13800138000".hex(), "王小明".encode().hex()):
        assert value.encode() not in stored


async def test_a_value_whose_key_is_destroyed_is_gone(identity: Identity, brand: Brand) -> None:
    member_id = (await brand.register(card("c1"), display_name="王")).member.member_id

    async def erase(connection: Connection) -> None:
        await raw(connection).execute("UPDATE members SET data_key = NULL WHERE member_id = $1::uuid", member_id)

    await identity.app.run(brand.tenant_id, erase)
    member = await brand.get(member_id)
    assert (member.display_name, [named.value for named in member.identifiers]) == ("", [""])


async def test_the_same_value_is_another_key_in_another_tenant(identity: Identity, brand: Brand) -> None:
    other = await identity.brand()
    mine = (await brand.register(card("c1"))).member.member_id
    theirs = (await other.register(card("c1"))).member.member_id
    assert mine != theirs
    assert await brand.resolve(card("c1")) == mine
    assert await other.resolve(card("c1")) == theirs
    with pytest.raises(UnknownMember):
        await other.get(mine)
    with pytest.raises(UnknownMember):
        await other.link(mine, card("c2"))
    with pytest.raises(UnknownMember):
        await other.merge(mine, theirs)

    async def lookups(connection: Connection) -> list[bytes]:
        return [row["lookup"] for row in await raw(connection).fetch("SELECT lookup FROM identifiers")]

    assert len(set(await identity.system.read("", lookups))) == 2


async def test_twenty_tills_that_register_one_card_make_one_member(identity: Identity, brand: Brand) -> None:
    replies = await asyncio.gather(*(brand.register(card("c1"), phone("13800138000")) for _ in range(20)))
    assert len({reply.member.member_id for reply in replies}) == 1
    assert sum(reply.created for reply in replies) == 1
    events = [event for event in await identity.events() if event.type == "identity.MemberRegistered"]
    assert len(events) == 1


async def test_batches_that_overlap_in_opposite_orders_make_each_member_once(brand: Brand) -> None:
    cards = [f"c{number}" for number in range(60)]
    batches = [[sign_up(card(value)) for value in (cards if turn % 2 else reversed(cards))] for turn in range(6)]
    results = await asyncio.gather(*(brand.register_many(batch) for batch in batches))
    assert not [result.refusal_reason for batch in results for result in batch if result.refusal_reason]
    assert sum(result.created for batch in results for result in batch) == len(cards)
    owners: dict[str, set[str]] = {}
    for batch in results:
        for result in batch:
            owners.setdefault(result.member.identifiers[0].value, set()).add(result.member.member_id)
    assert all(len(members) == 1 for members in owners.values())
    assert len(owners) == len(cards)


async def test_registering_links_what_is_new_to_the_one_who_is_known(identity: Identity, brand: Brand) -> None:
    first = await brand.register(phone("13800138000"))
    second = await brand.register(phone("13800138000"), openid("o1"), card("c1"))
    assert (second.created, second.member.member_id) == (False, first.member.member_id)
    assert second.member.version == 3
    assert await brand.resolve(card("c1")) == first.member.member_id
    third = await brand.register(card("c1"), openid("o1"))
    assert (third.created, third.member) == (False, second.member)
    told = [
        (event.type, event.aggregate_version) for event in await identity.events() if event.aggregate_type == "member"
    ]
    assert told == [
        ("identity.MemberRegistered", 1),
        ("identity.IdentifierLinked", 2),
        ("identity.IdentifierLinked", 3),
    ]


async def test_identifiers_of_two_members_are_taken(brand: Brand) -> None:
    one = (await brand.register(card("c1"))).member.member_id
    other = (await brand.register(openid("o1"))).member.member_id
    with pytest.raises(IdentifierTaken) as refused:
        await brand.register(card("c1"), openid("o1"), phone("13800138000"))
    assert refused.value.metadata["member_ids"] == ",".join(sorted((one, other)))
    with pytest.raises(UnknownMember):
        await brand.resolve(phone("13800138000"))


async def test_an_unverified_phone_is_a_claim_that_finds_nobody_until_it_is_proved(brand: Brand) -> None:
    number = "13800138000"
    with pytest.raises(PhoneNotVerified):
        await brand.register(phone(number, verified=False))
    wife = (await brand.register(card("wife"), phone(number, verified=False))).member.member_id
    husband = (await brand.register(card("husband"), phone(number, verified=False))).member.member_id
    assert wife != husband
    with pytest.raises(UnknownMember):
        await brand.resolve(phone(number))
    with pytest.raises(PhoneNotVerified):
        await brand.link(wife, phone("13900139000", verified=False))
    # the one who proves it owns it; the other's claim stays a claim
    proved = await brand.link(wife, phone(number))
    assert [named.verified for named in proved.identifiers if named.value == f"+86{number}"] == [True]
    assert await brand.resolve(phone(number)) == wife
    with pytest.raises(IdentifierTaken):
        await brand.link(husband, phone(number))
    assert (await brand.register(card("husband"))).member.member_id == husband


async def test_two_who_prove_one_number_at_once_leave_one_owner(brand: Brand) -> None:
    members = [(await brand.register(card(f"c{number}"))).member.member_id for number in range(8)]
    answers = await asyncio.gather(
        *(brand.link(member, phone("13800138000")) for member in members), return_exceptions=True
    )
    winners = [answer.member_id for answer in answers if not isinstance(answer, BaseException)]
    assert len(winners) == 1
    assert all(isinstance(answer, IdentifierTaken) for answer in answers if isinstance(answer, BaseException))
    assert await brand.resolve(phone("13800138000")) == winners[0]


@pytest.mark.parametrize("value", ["null", "  NULL ", "undefined", "0000", "-1", "Anonymous", "[object Object]", "0"])
async def test_what_names_nobody_is_refused_whatever_the_type(brand: Brand, value: str) -> None:
    for named in (card(value), openid(value), phone(value)):
        with pytest.raises(IdentifierRefused):
            await brand.register(named)
        with pytest.raises(IdentifierRefused):
            await brand.resolve(named)


async def test_a_repeated_request_answers_the_same_whatever_happened_since(brand: Brand) -> None:
    request = sign_up(card("c1"))
    members, call = brand.identity.members, brand.call()
    first = await members.register_member(request, call)
    await brand.link(first.member.member_id, openid("o1"))
    assert await members.register_member(request, call) == first
    (in_a_batch,) = await brand.register_many([request])
    assert (in_a_batch.member, in_a_batch.created) == (first.member, True)
    with pytest.raises(AlreadyExists) as reused:
        await members.register_member(sign_up(card("c2"), request_id=request.request_id), call)
    assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_one_request_sent_twenty_times_at_once_is_answered_once(brand: Brand) -> None:
    request = sign_up(card("c1"))
    replies = await asyncio.gather(*(brand.identity.members.register_member(request, brand.call()) for _ in range(20)))
    assert all(reply == replies[0] for reply in replies)
    assert replies[0].created


async def test_a_batch_refuses_one_by_one(brand: Brand) -> None:
    await brand.add_stores("S1")
    await brand.register(card("taken"))
    await brand.register(openid("taken"))
    twin = sign_up(card("twin"))
    requests = [
        sign_up(card("a"), sign_up_store_id="S1"),
        sign_up(card("null")),
        sign_up(card("taken"), openid("taken")),
        sign_up(card("b"), sign_up_store_id="nowhere"),
        sign_up(card("a"), phone("13800138000")),
        twin,
        twin,
        sign_up(card("other"), request_id=twin.request_id),
        sign_up(phone("13900139000", verified=False)),
    ]
    results = await brand.register_many(requests)
    assert [result.refusal_reason for result in results] == [
        "",
        "IDENTIFIER_REFUSED",
        "IDENTIFIER_TAKEN",
        "STORE_NOT_FOUND",
        "",
        "",
        "",
        "REQUEST_ID_REUSED",
        "PHONE_NOT_VERIFIED",
    ]
    assert results[4].member.member_id == results[0].member.member_id
    assert (results[0].created, results[4].created) == (True, False)
    assert results[5] == results[6]


async def test_a_refused_request_may_be_sent_again_once_it_can_succeed(brand: Brand) -> None:
    request = sign_up(card("c1"), sign_up_store_id="S1")
    with pytest.raises(UnknownStore):
        await brand.identity.members.register_member(request, brand.call())
    await brand.add_stores("S1")
    assert (await brand.identity.members.register_member(request, brand.call())).created


async def test_a_till_signs_up_in_its_own_store_only(brand: Brand) -> None:
    await brand.add_stores("S1", "S2")
    assert (await brand.register(card("c1"), call=brand.till("S1"))).member.sign_up_store_id == "S1"
    with pytest.raises(NotAllowed):
        await brand.register(card("c2"), call=brand.till("S1"), sign_up_store_id="S2")


async def test_a_sign_up_may_be_late_and_not_early(brand: Brand) -> None:
    late = await brand.register(card("c1"), occurred_at=NOON - timedelta(days=3))
    assert late.member.signed_up_at.ToDatetime().day == 28
    with pytest.raises(Invalid):
        await brand.register(card("c2"), occurred_at=NOON + timedelta(hours=1))


async def test_five_hundred_at_once_are_five_hundred_members(identity: Identity, brand: Brand) -> None:
    requests = [sign_up(card(f"c{number}"), phone(f"138{number:08}")) for number in range(500)]
    results = await brand.register_many(requests)
    assert all(result.created for result in results)
    assert len({result.member.member_id for result in results}) == 500
    again = await brand.register_many(requests)
    assert again == results
    kinds = Counter(event.type for event in await identity.events())
    assert kinds["identity.MemberRegistered"] == 500


async def test_linking_twice_changes_nothing(brand: Brand) -> None:
    member_id = (await brand.register(card("c1"))).member.member_id
    request_id = new_id()
    once = await brand.link(member_id, openid("o1"), request_id=request_id)
    assert once.version == 2
    assert await brand.link(member_id, openid("o1"), request_id=request_id) == once
    assert await brand.link(member_id, openid("o1")) == once
    with pytest.raises(UnknownMember):
        await brand.link(new_id(), openid("o2"))
