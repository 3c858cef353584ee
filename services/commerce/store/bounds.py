"""Where lists begin whose caller names no place: before or behind every row.

A place that may be missing is a filter, and one that is always there a condition of the index.
"""

from datetime import UTC, datetime
from typing import Final

EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
LATEST: Final = datetime.max.replace(tzinfo=UTC)
FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"
LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"
LAST_NUMBER: Final = 2**63 - 1
