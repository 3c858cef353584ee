"""A valid call of every RPC that changes something, and the same request id with another body."""

from tests.e2e.valid_calls import campaign, commerce, identity, loyalty, suppliers
from tests.e2e.valid_calls.table import CALLS

__all__ = ["CALLS", "campaign", "commerce", "identity", "loyalty", "suppliers"]
