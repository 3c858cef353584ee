"""What holds for every field of every request: the kinds of fields that no request has are told when one comes."""

import pytest

from services.runtime.bounds import out_of_bounds
from siyu.common.v1 import audit_pb2


def test_a_field_of_a_kind_that_is_not_looked_into_is_a_bug() -> None:
    """A map is walked by its keys, and not as the list of entries that its descriptor says."""
    with pytest.raises(AssertionError, match="figures: no request has a map yet"):
        out_of_bounds(audit_pb2.AuditResponse())
