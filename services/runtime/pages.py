"""Pages of a list, and the opaque token that says where the next one starts."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Final

from services.runtime.errors import Invalid
from services.runtime.ids import is_id

DEFAULT_PAGE: Final = 50
_MARK: Final = "1:"
_DIGITS: Final = 19
_MOST: Final = 2**63 - 1


def page_size(asked: int) -> int:
    """How many rows a page has; 0 takes the default."""
    return asked or DEFAULT_PAGE


def token_after(key: str) -> str:
    """A token for the page after `key`. Encoded and not signed: it only ever moves within the caller's own tenant."""
    return base64.urlsafe_b64encode(f"{_MARK}{key}".encode()).decode().rstrip("=")


def key_of(token: str) -> str:
    """The key in a token; empty for the first page. Raises Invalid for a token that we did not make."""
    if not token:
        return ""
    try:
        said = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise foreign() from error
    if not said.startswith(_MARK) or not said.isprintable():
        raise foreign()
    return said.removeprefix(_MARK)


def foreign() -> Invalid:
    """The refusal of a token that we did not make. A key is the caller's word: its parts are read by what is below."""
    return Invalid("not a token of this list", field="page_token")


def number_in(part: str) -> int:
    """A number from 0 that 64 bits hold. Raises Invalid for anything else, other digits than 0 to 9 included."""
    if not (part.isascii() and part.isdigit() and len(part) <= _DIGITS) or int(part) > _MOST:
        raise foreign()
    return int(part)


def id_in(part: str) -> str:
    """An id as we write them. Raises Invalid for anything else."""
    if not is_id(part):
        raise foreign()
    return part


def time_in(part: str) -> datetime:
    """A time in UTC, as `isoformat` writes it. Raises Invalid for anything else, or one that UTC has no year for."""
    try:
        at = datetime.fromisoformat(part)
        if at.tzinfo is None:
            raise foreign()
        return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise foreign() from error
