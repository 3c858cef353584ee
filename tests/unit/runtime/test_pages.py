"""What a page token can hold: it comes back from the caller, who may have made it by hand."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from services.runtime.errors import Invalid
from services.runtime.pages import id_in, number_in, time_in

ID = "0190a6b2-7c1d-7e3f-8a4b-5c6d7e8f9012"


def test_what_we_wrote_is_read() -> None:
    at = datetime(2026, 1, 1, 12, 30, 0, 5, tzinfo=UTC)
    assert (time_in(at.isoformat()), id_in(ID)) == (at, ID)
    assert [number_in(str(number)) for number in (0, 7, 2**63 - 1)] == [0, 7, 2**63 - 1]


@pytest.mark.parametrize(
    ("read", "part"),
    [
        *((number_in, part) for part in ("", "-1", "+1", " 1", "1_0", "²", "١", "1.0", str(2**63), "9" * 25)),
        *((id_in, part) for part in ("", "1", ID.upper(), "{" + ID + "}", ID.replace("-", ""))),
        *((time_in, part) for part in ("", "now", "2026-01-01", "2026-01-01T00:00:00")),
        (time_in, "9999-12-31T23:59:59-12:00"),
        (time_in, "0001-01-01T00:00:00+14:00"),
    ],
)
def test_what_we_did_not_write_is_refused(read: Callable[[str], object], part: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(part)
    assert [field for field, _ in refused.value.violations] == ["page_token"]
