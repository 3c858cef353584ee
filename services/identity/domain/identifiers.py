"""What names a person in a channel: normal form, what is refused, and the key it is found by."""

import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import phonenumbers

from services.identity.domain.refusals import IdentifierRefused

DEFAULT_REGION: Final = "CN"
LOOKUP_BYTES: Final = 16
"""128 bits of an HMAC: two people sharing one by chance is out of the question, and the index is half as big."""


class IdentifierType(IntEnum):
    """What an identifier is; the numbers are the contract's."""

    PHONE = 1
    CARD = 2
    WECHAT_UNIONID = 3
    WECHAT_OPENID = 4
    WECOM_EXTERNAL_USERID = 5
    MARKETPLACE_BUYER = 6
    EXTERNAL = 7


_ISSUED: Final = frozenset(
    {
        IdentifierType.WECHAT_OPENID,
        IdentifierType.WECOM_EXTERNAL_USERID,
        IdentifierType.MARKETPLACE_BUYER,
        IdentifierType.EXTERNAL,
    }
)
"""Types whose values mean nothing without who gave them."""

# what SEMANTICS lists, and what the same bugs write in other languages and tools, by its letters and digits alone
_NOBODY: Final = frozenset(
    {
        "null",
        "undefined",
        "anonymous",
        "objectobject",
        "none",
        "nil",
        "nan",
        "unknown",
        "guest",
        "loggedout",
    }
)
# those that only their marks tell from a value
_NOBODY_AS_MARKED: Final = frozenset({"-1", "n/a"})
_MARK: Final = re.compile(r"[\W_]+")
_DASH: Final = re.compile("[\u2010-\u2015\u2212]")
_SPACE: Final = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An identifier in normal form."""

    type: IdentifierType
    issuer: str
    value: str
    verified: bool

    @property
    def owns(self) -> bool:
        """Whether it belongs to one member alone; an unverified phone is only a claim."""
        return self.verified or self.type is not IdentifierType.PHONE


def normalise(*, type: int, issuer: str, value: str, verified: bool, region: str) -> Named:  # noqa: A002
    """The identifier in the form in which equal ones are equal: phones in E.164, cards without spaces in capitals.

    Raises IdentifierRefused for what names nobody, whatever the type, and for what is no value of its type.
    """
    kind = IdentifierType(type)
    if kind in _ISSUED and not issuer:
        raise IdentifierRefused(f"{kind.name} needs an issuer", field="identifier.issuer")
    if kind not in _ISSUED and issuer:
        raise IdentifierRefused(f"{kind.name} has no issuer", field="identifier.issuer")
    # full-width digits and letters come from Chinese input methods; openids are plain ASCII and stay as they are
    plain = unicodedata.normalize("NFKC", _seen(value)).strip()
    if is_refused(plain):
        raise IdentifierRefused("the value names nobody", field="identifier.value")
    if kind is IdentifierType.PHONE:
        plain = _phone(plain, region)
    elif kind is IdentifierType.CARD:
        # once more, since a mark that stood after a space now stands after a letter
        plain = unicodedata.normalize("NFKC", _SPACE.sub("", plain).upper())
        if is_refused(plain):
            raise IdentifierRefused("the value names nobody", field="identifier.value")
    return Named(type=kind, issuer=issuer, value=plain, verified=verified)


def is_refused(value: str) -> bool:
    """Whether the value is one of those that software writes when it has none: they would merge everybody.

    Letter case, spaces, quotes and brackets make no difference; zeros of any script and number, and no letter or digit
    at all, are nothing.
    """
    folded = value.casefold()
    bare = _MARK.sub("", folded)
    return (
        all(unicodedata.decimal(sign, -1) == 0 for sign in bare)
        or bare in _NOBODY
        or _DASH.sub("-", _SPACE.sub("", _seen(folded))) in _NOBODY_AS_MARKED
    )


def lookup_of(key: bytes, named: Named) -> bytes:
    """The keyed hash by which the identifier is found: the table holds no value that could be tried out."""
    said = f"{named.type.value}\x1f{named.issuer}\x1f{named.value}"
    return hmac.digest(key, said.encode(), hashlib.sha256)[:LOOKUP_BYTES]


def _phone(value: str, region: str) -> str:
    try:
        number = phonenumbers.parse(value, region)
    except phonenumbers.NumberParseException as error:
        raise IdentifierRefused("the value is no phone number", field="identifier.value") from error
    # zeros behind a country code are still zeros
    if number.national_number == 0:
        raise IdentifierRefused("the value names nobody", field="identifier.value")
    # possible and not valid: the tables of assigned prefixes lag behind the operators, and a customer would be lost
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise IdentifierRefused("the value is no phone number", field="identifier.value")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _seen(value: str) -> str:
    # zero-width and direction marks come with copied text: one number with and without them must not be two people
    return value if value.isascii() else "".join(sign for sign in value if unicodedata.category(sign) != "Cf")
