"""Pages of a list, and the opaque token that says where the next one starts."""

import base64
import binascii
from typing import Final

from services.runtime.errors import Invalid

DEFAULT_PAGE: Final = 50
_MARK: Final = "1:"


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
        raise Invalid("not a token of this list", field="page_token") from error
    if not said.startswith(_MARK) or not said.isprintable():
        raise Invalid("not a token of this list", field="page_token")
    return said.removeprefix(_MARK)
