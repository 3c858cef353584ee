"""What `siyu tenant create` says of a refusal."""

import pytest

from services.console.tenants import refusal_of
from services.runtime.errors import AlreadyExists, Invalid, NotAllowed

TAKEN = "the code 'tea' is taken: choose another, or repeat all that it was made with"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(AlreadyExists("used with another body", reason="REQUEST_ID_REUSED"), TAKEN, id="by its request"),
        pytest.param(AlreadyExists("another's", reason="TENANT_EXISTS"), TAKEN, id="by another request"),
        pytest.param(
            Invalid(violations=(("request_id", "no"), ("code", "does not match")), metadata={"trace_id": "7"}),
            "INVALID_FIELD: code: does not match (trace_id=7)",
            id="a code that is none",
        ),
        pytest.param(Invalid("no such zone", field="time_zone"), "INVALID_FIELD: no such zone", id="another field"),
        pytest.param(NotAllowed("no"), "NOT_ALLOWED: no", id="anything else"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_command(error, told) -> None:
    assert refusal_of(error, code="tea") == told
