"""Whether the brand of the last run is read again."""

import pytest

from services.console.demo.brand import Brand
from services.console.demo.main import why_anew


@pytest.mark.parametrize(
    ("plan", "done", "told"),
    [
        pytest.param("these weeks", True, "", id="the same weeks"),
        pytest.param("other weeks", True, "is of other weeks, or of another plan", id="other weeks"),
        pytest.param("these weeks", False, "was not finished; it stays, and the audit checks it too", id="interrupted"),
    ],
)
def test_a_new_brand_begins_because_the_last(plan, done, told) -> None:
    brand = Brand(tenant_id="t", code="journey", clients={}, plan=plan, done=done)
    assert why_anew(brand, digest="these weeks") == told
