"""Names that a retry finds again, and how an off-line sale is explained."""

import uuid
from datetime import timedelta

import pytest

from services.commerce.domain.naming import goods_fingerprint, order_id_of
from services.commerce.domain.offline import TILL_DISCOUNT, Difference, as_charged, check_charges, without_coupons
from services.runtime.errors import Invalid
from services.runtime.ids import new_id
from tests.unit.commerce.sales import COUPON, MEMBER_PRICE, NOON, priced


def test_an_order_is_named_by_its_request() -> None:
    first = order_id_of("t", "c", "f", "r1")
    assert first == order_id_of("t", "c", "f", "r1")
    assert len({first, *(order_id_of(*parts) for parts in (("u", "c", "f", "r1"), ("t", "d", "f", "r1")))}) == 3
    assert uuid.UUID(first).version == 8


def test_the_time_that_a_request_tells_leads_its_order() -> None:
    request_id = new_id()
    timed = order_id_of("t", "c", "f", request_id)
    assert (uuid.UUID(timed).version, timed[:13]) == (7, request_id[:13])
    sold = [order_id_of("t", "c", "f", str(at), sold_at=NOON + timedelta(seconds=at)) for at in range(5)]
    assert sold == sorted(sold)
    assert {uuid.UUID(each).version for each in sold} == {7}


def test_goods_are_known_again_in_any_order() -> None:
    goods = [("1", "TEA", 1), ("2", "CUP", 3)]
    assert goods_fingerprint(goods) == goods_fingerprint(goods[::-1])
    assert goods_fingerprint(goods) != goods_fingerprint([("1", "TEA", 2), ("2", "CUP", 3)])


LINE = priced("1", 1000, shares=((MEMBER_PRICE, 100), (COUPON, 50)))


@pytest.mark.parametrize(
    ("charged", "shares", "difference"),
    [
        pytest.param(850, ((MEMBER_PRICE, 100), (COUPON, 50)), None, id="as priced"),
        pytest.param(900, ((MEMBER_PRICE, 100),), 50, id="without the coupon"),
        pytest.param(1000, (), 150, id="at the shelf's price"),
        pytest.param(950, ((COUPON, 50),), 100, id="without the member price"),
        pytest.param(800, ((MEMBER_PRICE, 100), (COUPON, 50), (TILL_DISCOUNT, 50)), -50, id="less than priced"),
        pytest.param(960, ((TILL_DISCOUNT, 40),), 110, id="a discount that no rule gives"),
    ],
)
def test_a_charge_is_explained_as_far_as_rules_reach(
    charged: int, shares: tuple[object, ...], difference: int | None
) -> None:
    sold, found = as_charged(LINE, charged)
    assert (sold.net_minor, sold.shares) == (charged, shares)
    assert (found.difference if found else None) == difference
    assert found is None or found.reason is Difference.PRICE_DIFFERS


def test_a_list_price_below_the_charge_is_not_the_shelfs() -> None:
    sold, _ = as_charged(LINE, 1200)
    assert (sold.shelf_minor, sold.shares) == (1200, ())


def test_a_coupon_that_cannot_be_claimed_is_the_tills() -> None:
    sold = without_coupons(LINE, frozenset({"c1"}))
    assert (sold.net_minor, sold.shares) == (850, ((MEMBER_PRICE, 100), (TILL_DISCOUNT, 50)))
    assert without_coupons(LINE, frozenset()) == LINE


@pytest.mark.parametrize("charges", [(), (1, 2), (1001,)])
def test_charges_fit_their_lines(charges: tuple[int, ...]) -> None:
    with pytest.raises(Invalid):
        check_charges(charges, [LINE])
