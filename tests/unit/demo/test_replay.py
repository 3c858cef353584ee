"""What the replay decides without a server."""

from datetime import UTC, date, datetime

import pytest

from services.console.demo.dataset import Basket
from services.console.demo.replay import upload_waves

NOON = datetime(2017, 8, 7, 16, tzinfo=UTC)


def _basket(store: int, household: int) -> Basket:
    return Basket(
        basket_id=100 * store + household,
        household_id=household,
        store_id=store,
        week=33,
        at=NOON,
        day=date(2017, 8, 7),
        lines=(),
    )


@pytest.mark.parametrize(
    ("sales", "waves"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([(1, 7), (2, 8), (3, 9)], [[1, 2, 3]], id="strangers at once"),
        pytest.param([(2, 7), (1, 7)], [[1], [2]], id="one household: by the store's number"),
        pytest.param([(1, 7), (2, 7), (2, 8), (3, 8), (4, 9)], [[1, 4], [2], [3]], id="a chain of households"),
    ],
)
def test_stores_upload_in_waves(sales: list[tuple[int, int]], waves: list[list[int]]) -> None:
    made = upload_waves([_basket(store, household) for store, household in sales])
    assert [[own[0].store_id for own in wave] for wave in made] == waves
