"""A quote's work is bounded: a till waits for it, and so does everybody whose call is in the same process."""

import time

import pytest

from services.campaign.domain.pricing import Rules, best_price
from services.campaign.domain.promotions import Promotion
from tests.unit.campaign.test_pricing import basket, promotion

MAX_CPU_S = 2.0
"""Some ten times of what is needed: without a bound each of these takes longer, up to half a minute."""

TEN_LINES = (100_000,) * 10


def order_off(name: str, amount_minor: int = 1, *, group: str = "", threshold_minor: int = 0) -> Promotion:
    return promotion(
        name,
        "order_amount",
        amount_minor=amount_minor,
        exclusivity_group=group,
        threshold_minor=threshold_minor,
    )


@pytest.mark.parametrize(
    ("promotions", "at_least_minor"),
    [
        pytest.param(
            # the last one's threshold is missed because of the others, so that leaving some out could be better
            [*(order_off(f"p{n}") for n in range(999)), order_off("z", 5, threshold_minor=1_000_000)],
            999,
            id="a thousand that stack and one that misses its threshold",
        ),
        pytest.param(
            [order_off(f"p{n}", 1 + n % 2, group=f"g{n // 2}") for n in range(1000)],
            1000,
            id="five hundred groups, each with its best second",
        ),
        pytest.param(
            [
                *(order_off(f"p{n}") for n in range(1000)),
                *(order_off(f"q{n:03}", 1 + n, group="g") for n in range(500)),
            ],
            1500,
            id="a thousand that stack beside one of five hundred",
        ),
    ],
)
def test_a_thousand_promotions_on_the_same_goods_cost_little(promotions: list[Promotion], at_least_minor: int) -> None:
    began = time.process_time()
    price = best_price(basket(*TEN_LINES), Rules(promotions=promotions))
    assert time.process_time() - began < MAX_CPU_S
    assert price.discount_minor >= at_least_minor
    assert len(price.verdicts) == len(promotions), "every candidate is explained"
