"""Quotes over the database: what is looked up, what is kept, and that keeping never decides about money."""

import asyncio
from datetime import timedelta

import pytest

from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from siyu.campaign.v1 import promotion_pb2
from tests.store.campaign.conftest import NOW, Brand, line, stamp

MEMBER = new_id()


def verdicts(quoted: promotion_pb2.QuoteResponse) -> dict[str, str | int]:
    """What each candidate took off, or why it was rejected."""
    return {each.source_id: each.rejection_reason or each.amount_minor for each in quoted.candidates}


async def test_a_brand_without_promotions_quotes_the_shelf(brand: Brand) -> None:
    quoted = await brand.quote(line("a", 500), line("b", 250))
    assert (quoted.shelf_minor, quoted.discount_minor, quoted.net_minor) == (750, 0, 750)
    assert [each.net_minor for each in quoted.lines] == [500, 250]


async def test_member_prices_weekend_and_coupon_explained(brand: Brand) -> None:
    await brand.promotion("prices", "MEMBER_PRICE", priority=100)
    assert await brand.member_prices("prices", a=30, b=10, z=99) == 3
    await brand.promotion("weekend", "ORDER_PERCENT", percent="5", threshold_minor=1000, budget_minor=10_000)
    await brand.template("t", amount_minor=200, skus=["a"], funder="maker")
    coupon = await brand.coupon("t", member_id=MEMBER)
    quoted = await brand.quote(
        line("a", 1000, quantity=2),
        line("b", 333),
        line("c", 500),
        member_id=MEMBER,
        codes=[coupon.code, "NOBODY-KNOWS"],
    )
    # 60 + 10 of member prices leave 940 + 323 + 500 = 1763; 5% of it is 88.15, rounded to 88
    assert verdicts(quoted) == {
        "prices": 70,
        "weekend": 88,
        coupon.code: 200,
        "NOBODY-KNOWS": "COUPON_NOT_FOUND",
    }
    assert quoted.net_minor == 1833 - 70 - 88 - 200
    assert [(use.coupon_id, use.amount_minor) for use in quoted.coupons] == [(coupon.coupon_id, 200)]
    assert [(use.promotion_id, use.amount_minor) for use in quoted.budgets] == [("weekend", 88)]
    shares = [(share.source_id, share.amount_minor, share.funder) for share in quoted.lines[0].discounts]
    assert shares == [("prices", 60, ""), ("weekend", 47, ""), ("t", 200, "maker")]


async def test_a_change_is_seen_by_the_next_quote(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10)
    assert (await brand.quote(line("a", 500))).discount_minor == 10
    put = await brand.promotion("p", "ORDER_AMOUNT", amount_minor=20)
    assert put.version == 2
    assert (await brand.quote(line("a", 500))).discount_minor == 20
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=20, valid_until=stamp(NOW - timedelta(hours=1)))
    quoted = await brand.quote(line("a", 500))
    assert (quoted.discount_minor, verdicts(quoted)) == (0, {})


async def test_member_prices_follow_the_sku_and_are_replaced(brand: Brand) -> None:
    await brand.promotion("p", "MEMBER_PRICE")
    await brand.member_prices("p", a=30)
    assert await brand.member_prices("p", a=40, b=5) == 2
    assert (await brand.quote(line("a", 500), member_id=MEMBER)).discount_minor == 40
    assert verdicts(await brand.quote(line("a", 500))) == {"p": "MEMBERS_ONLY"}
    assert verdicts(await brand.quote(line("c", 500), member_id=MEMBER)) == {"p": "NO_MATCHING_LINE"}


async def test_a_quote_tells_what_a_hold_would(brand: Brand) -> None:
    await brand.template("t")
    mine = await brand.coupon("t", member_id=MEMBER)
    theirs = await brand.coupon("t", member_id=new_id())
    held = await brand.coupon("t")
    used = await brand.coupon("t")
    await brand.hold(coupons=[(held.coupon_id, 1)])
    hold = await brand.hold(coupons=[(used.coupon_id, 1)])
    await brand.capture(hold.hold_id)
    codes = [mine.code, theirs.code, held.code, used.code]
    quoted = await brand.quote(line("a", 500), member_id=MEMBER, codes=codes)
    assert verdicts(quoted) == {
        mine.code: 100,
        theirs.code: "NOT_YOURS",
        held.code: "COUPON_HELD",
        used.code: "COUPON_USED",
    }
    late = await brand.quote(
        line("a", 500), member_id=MEMBER, codes=[mine.code], occurred_at=stamp(NOW + timedelta(days=30))
    )
    assert verdicts(late) == {mine.code: "COUPON_EXPIRED"}
    early = await brand.quote(
        line("a", 500), member_id=MEMBER, codes=[mine.code], occurred_at=stamp(NOW - timedelta(days=2))
    )
    assert verdicts(early) == {mine.code: "NOT_STARTED"}


async def test_a_coupon_keeps_the_version_that_it_was_issued_under(brand: Brand) -> None:
    await brand.template("t", amount_minor=100)
    old = await brand.coupon("t")
    await brand.template("t", amount_minor=300)
    new = await brand.coupon("t")
    assert (await brand.quote(line("a", 500), codes=[old.code])).discount_minor == 100
    assert (await brand.quote(line("a", 500), codes=[new.code])).discount_minor == 300


async def test_quotes_that_share_a_look_each_get_their_own_answer(brand: Brand) -> None:
    await brand.promotion("p", "MEMBER_PRICE")
    await brand.member_prices("p", **{f"s{number}": number for number in range(1, 200)})
    answers = await asyncio.gather(
        *(brand.quote(line(f"s{number}", 1000), member_id=MEMBER) for number in range(1, 200))
    )
    assert [answer.discount_minor for answer in answers] == list(range(1, 200))


async def test_a_line_id_twice_is_refused(brand: Brand) -> None:
    with pytest.raises(DomainError, match="twice"):
        await brand.quote(line("a", 500), line("a", 500))


@pytest.mark.parametrize(
    ("kind", "given", "fields"),
    [
        pytest.param("ORDER_PERCENT", {}, ["promotion.percent"], id="a percentage without one"),
        pytest.param(
            "ORDER_AMOUNT", {"percent": "5"}, ["promotion.percent", "promotion.amount_minor"], id="both wrong"
        ),
        pytest.param(
            "LINE_AMOUNT",
            {"amount_minor": 1, "threshold_minor": 1},
            ["promotion.threshold_minor"],
            id="a line's threshold",
        ),
        pytest.param("MEMBER_PRICE", {"skus": ["a"]}, ["promotion.skus"], id="SKUs of its own"),
        pytest.param(
            "ORDER_AMOUNT",
            {"amount_minor": 1, "valid_until": stamp(NOW - timedelta(days=1))},
            ["promotion.valid_until"],
            id="no time",
        ),
    ],
)
async def test_a_promotion_with_contradictions_is_refused(
    brand: Brand, kind: str, given: dict[str, object], fields: list[str]
) -> None:
    with pytest.raises(DomainError) as refused:
        await brand.promotion("p", kind, **given)
    assert [field for field, _ in refused.value.violations] == fields


async def test_only_member_prices_have_prices(brand: Brand) -> None:
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10)
    for name, reason in (("p", "NOT_A_MEMBER_PRICE"), ("nobody-knows", "PROMOTION_NOT_FOUND")):
        with pytest.raises(DomainError) as refused:
            await brand.member_prices(name, a=1)
        assert refused.value.reason == reason
