"""Issuing coupons within limits, telling their codes, and listing them."""

import asyncio
from datetime import timedelta

import pytest

from services.runtime.database import Connection, raw
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from services.runtime.pages import token_after
from siyu.campaign.v1 import coupon_pb2
from tests.store.campaign.conftest import NOW, Brand, line, stamp

Issue = coupon_pb2.IssueCoupon


async def test_a_made_code_has_80_bits_is_told_again_and_stored_nowhere(brand: Brand) -> None:
    member = new_id()
    await brand.template("t")
    item = Issue(template_id="t", member_id=member)
    (verdict,) = await brand.issue(item, request_id="r")
    code = verdict.coupon.code
    assert len(code) == 16
    (listed,) = (await brand.coupons_of(member)).coupons
    assert listed.code == code
    (again,) = await brand.issue(item, request_id="r")
    assert again == verdict

    async def everything(connection: Connection) -> str:
        rows = await raw(connection).fetch("SELECT coupons::text FROM coupons WHERE tenant_id = $1", brand.tenant_id)
        replies = await raw(connection).fetch("SELECT reply FROM requests WHERE tenant_id = $1", brand.tenant_id)
        return f"{rows} {replies}"

    assert code not in await brand.campaign.system.read(brand.tenant_id, everything)
    assert (await brand.quote(line("s", 500), member_id=member, codes=[code])).net_minor == 400


async def test_a_chosen_code_is_told_once_and_then_masked(brand: Brand) -> None:
    member = new_id()
    await brand.template("t")
    coupon = await brand.coupon("t", member_id=member, code="SPRING-2026")
    assert coupon.code == "SPRING-2026"
    (listed,) = (await brand.coupons_of(member)).coupons
    assert listed.code == "…2026"
    assert (await brand.quote(line("s", 500), member_id=member, codes=["SPRING-2026"])).net_minor == 400


async def test_each_item_has_a_verdict_of_its_own(brand: Brand) -> None:
    member = new_id()
    await brand.template("t", member_limit=1)
    await brand.template("few", issue_limit=2)
    await brand.template("over", valid_until=stamp(NOW))
    await brand.coupon("t", code="TAKEN")
    verdicts = await brand.issue(
        Issue(template_id="t", member_id=member),
        Issue(template_id="t", member_id=member),
        Issue(template_id="t"),
        Issue(template_id="t", code="TAKEN"),
        Issue(template_id="t", code="TWICE"),
        Issue(template_id="t", code="TWICE"),
        Issue(template_id="nobody-knows"),
        Issue(template_id="over"),
        *(Issue(template_id="few") for _ in range(3)),
    )
    assert [verdict.refusal_reason for verdict in verdicts] == [
        "",
        "MEMBER_LIMIT_REACHED",
        "",
        "CODE_TAKEN",
        "",
        "CODE_TAKEN",
        "TEMPLATE_NOT_FOUND",
        "TEMPLATE_ENDED",
        "",
        "",
        "ISSUE_LIMIT_REACHED",
    ]
    assert (await brand.read_template("few")).issued == 2
    assert await brand.red() == {}


async def test_limits_hold_under_parallel_issue(brand: Brand) -> None:
    member = new_id()
    await brand.template("t", member_limit=3)
    await brand.template("few", issue_limit=25)
    batches = await asyncio.gather(
        *(
            brand.issue(Issue(template_id="t", member_id=member), *(Issue(template_id="few") for _ in range(2)))
            for _ in range(30)
        )
    )
    issued = [verdict for batch in batches for verdict in batch if not verdict.refusal_reason]
    assert sum(verdict.coupon.template_id == "t" for verdict in issued) == 3
    assert sum(verdict.coupon.template_id == "few" for verdict in issued) == 25
    assert await brand.red() == {}


async def test_one_code_in_parallel_batches_is_issued_once(brand: Brand) -> None:
    for number in range(4):
        await brand.template(f"t{number}")
    batches = await asyncio.gather(*(brand.issue(Issue(template_id=f"t{n}", code="ONE")) for n in range(4)))
    assert sorted(verdict.refusal_reason for (verdict,) in batches) == ["", "CODE_TAKEN", "CODE_TAKEN", "CODE_TAKEN"]
    assert await brand.red() == {}


async def test_a_thousand_coupons_in_one_call(brand: Brand) -> None:
    members = [new_id() for _ in range(100)]
    for number in range(10):
        await brand.template(f"t{number}", member_limit=2)
    items = [Issue(template_id=f"t{n % 10}", member_id=members[n // 10], code=f"c-{n}") for n in range(1000)]
    verdicts = await brand.issue(*items)
    assert {verdict.refusal_reason for verdict in verdicts} == {""}
    assert [verdict.coupon.code for verdict in verdicts] == [item.code for item in items]
    assert await brand.red() == {}


async def test_the_list_comes_by_expiry_page_by_page(brand: Brand) -> None:
    member = new_id()
    for days in (9, 3, 6):
        await brand.template(f"t{days}", valid_until=stamp(NOW + timedelta(days=days)))
        await brand.issue(*(Issue(template_id=f"t{days}", member_id=member) for _ in range(3)))
    found, token = [], ""
    while True:
        page = await brand.coupons_of(member, page_size=2, page_token=token)
        found += page.coupons
        token = page.next_page_token
        if not token:
            break
    assert [coupon.template_id for coupon in found] == ["t3"] * 3 + ["t6"] * 3 + ["t9"] * 3
    assert len({coupon.coupon_id for coupon in found}) == 9
    with pytest.raises(DomainError, match="not a token"):
        await brand.coupons_of(member, page_token="MTp4L3g")  # a token of ours in form, of no list in content
    for at in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(DomainError, match="not a token"):
            await brand.coupons_of(member, page_token=token_after(f"{at}/{new_id()}"))


async def test_usable_only(brand: Brand) -> None:
    member = new_id()
    await brand.template("now")
    await brand.template("later", valid_from=stamp(NOW + timedelta(days=1)))
    held, free = [await brand.coupon("now", member_id=member) for _ in range(2)]
    await brand.coupon("later", member_id=member)
    await brand.hold(coupons=[(held.coupon_id, 1)], member_id=member)
    assert [each.coupon_id for each in (await brand.coupons_of(member, usable_only=True)).coupons] == [free.coupon_id]
    brand.campaign.clock.advance(timedelta(seconds=900))
    assert len((await brand.coupons_of(member, usable_only=True)).coupons) == 2


async def test_a_template_with_contradictions_is_refused(brand: Brand) -> None:
    with pytest.raises(DomainError) as refused:
        await brand.template("t", percent="10", valid_until=stamp(NOW - timedelta(days=2)))
    assert [field for field, _ in refused.value.violations] == ["template.valid_until", "template.percent"]


async def test_another_tenant_sees_none_of_it(brand: Brand) -> None:
    member = new_id()
    await brand.template("t")
    coupon = await brand.coupon("t", member_id=member)
    other = Brand(campaign=brand.campaign, tenant_id=new_id())
    assert (await other.coupons_of(member)).coupons == []
    with pytest.raises(DomainError) as refused:
        await other.read_template("t")
    assert refused.value.reason == "TEMPLATE_NOT_FOUND"
    with pytest.raises(DomainError) as refused:
        await other.hold(coupons=[(coupon.coupon_id, 1)], member_id=member)
    assert refused.value.reason == "COUPON_NOT_FOUND"
    quoted = await other.quote(line("s", 500), member_id=member, codes=[coupon.code])
    assert [each.rejection_reason for each in quoted.candidates] == ["COUPON_NOT_FOUND"]
