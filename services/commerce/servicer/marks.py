"""Numbers in page tokens, within what their columns hold."""

import re
from typing import Final

from services.runtime.pages import foreign

MAX_NUMBER: Final = 2**63 - 1
MAX_REFUND: Final = 2**31 - 1
MAX_LINE: Final = 2**15 - 1
_NUMBER: Final = re.compile(r"-?[0-9]{1,19}", re.ASCII)


def number_of(text: str, *, least: int = 0, most: int) -> int:
    """A number in a token; a refund's may be below zero. Raises Invalid for what is none, or out of these bounds."""
    if not _NUMBER.fullmatch(text):
        raise foreign()
    number = int(text)
    if not least <= number <= most:
        raise foreign()
    return number
