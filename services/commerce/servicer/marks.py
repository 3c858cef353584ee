"""What stands in page tokens. They are not signed: what nobody was given is refused before it goes any further."""

import re
from datetime import UTC, datetime
from typing import Final

from services.runtime.errors import Invalid

MAX_NUMBER: Final = 2**63 - 1
MAX_REFUND: Final = 2**31 - 1
MAX_LINE: Final = 2**15 - 1
"""What the columns hold."""
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def not_ours() -> Invalid:
    """The refusal of a token that this list did not give."""
    return Invalid("not a token of this list", field="page_token")


def number_of(text: str, *, least: int = 0, most: int) -> int:
    """A number in a token. Raises Invalid for what is none, or out of these bounds."""
    if not _NUMBER.fullmatch(text):
        raise not_ours()
    number = int(text)
    if not least <= number <= most:
        raise not_ours()
    return number


def moment_of(text: str) -> datetime:
    """A time in a token, in UTC. Raises Invalid for what is none, or has no zone, or no such moment in UTC."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise not_ours()
        return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise not_ours() from error
