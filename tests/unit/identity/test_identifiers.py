"""Normal forms, what is refused, and the keys that identifiers are found by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.domain.identifiers import IdentifierType, Named, is_refused, lookup_of, normalise
from services.identity.domain.refusals import IdentifierRefused

T = IdentifierType


def normal(kind: IdentifierType, value: str, *, issuer: str = "", region: str = "CN") -> str:
    return normalise(type=kind.value, issuer=issuer, value=value, verified=True, region=region).value


# SEMANTICS.md: "Refused as identifiers, whatever the type"
@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "null",
        "NULL",
        " Null\t",
        "undefined",
        "0",
        "0000000000",
        "-1",
        "anonymous",
        "Anonymous",
        "[object Object]",
        "[OBJECT OBJECT]",
        "[object  Object]",
        "[object\nObject]",
        "(undefined)",
        "'null'",
        "\u200bnull",
        "undefined\ufeff",
        "\u22121",
        "- 1",
        "\u0660\u0660\u0660",
    ],
)
@pytest.mark.parametrize("kind", list(T))
def test_what_semantics_refuses_is_refused_whatever_the_type(kind: IdentifierType, value: str) -> None:
    assert is_refused(value.strip())
    with pytest.raises(IdentifierRefused):
        normal(kind, value, issuer="x" if kind.value in (4, 5, 6, 7) else "")


@pytest.mark.parametrize(
    "value",
    [
        "ｎｕｌｌ",
        "０００",
        "+000",
        "00000000-0000-0000-0000-000000000000",
        "---",
        "n u l l",
        "(null)",
        "None",
        "NaN",
        "n/a",
        "logged-out",
        "guest",
    ],
)
def test_their_like_are_refused_too(value: str) -> None:
    with pytest.raises(IdentifierRefused):
        normal(T.CARD, value)


@pytest.mark.parametrize("value", ["10", "0001", "o", "nullable", "guest42", "-10", "anonymous-7"])
def test_what_only_looks_like_them_is_taken(value: str) -> None:
    assert normal(T.WECHAT_UNIONID, value) == value


@pytest.mark.parametrize(
    ("value", "region", "normal_form"),
    [
        pytest.param("13800138000", "CN", "+8613800138000", id="as people write it"),
        pytest.param("+86 138-0013-8000", "CN", "+8613800138000", id="with a country code"),
        pytest.param("0086 138 0013 8000", "CN", "+8613800138000", id="as dialled from abroad"),
        pytest.param("１３８００１３８０００", "CN", "+8613800138000", id="full-width digits"),
        pytest.param("138001380001", "US", None, id="too long for another region"),
        pytest.param("(415) 555-0132", "US", "+14155550132", id="another region"),
        pytest.param("+39 06 698 12345", "CN", "+390669812345", id="a country that keeps its zero"),
        pytest.param("12345", "CN", None, id="too short"),
        pytest.param("+86 000 0000 0000", "CN", None, id="zeros behind a country code"),
        pytest.param("138\u200b0013\u200d8000", "CN", "+8613800138000", id="marks that nobody sees"),
        pytest.param("call me", "CN", None, id="no number"),
    ],
)
def test_phones_are_e164(value: str, region: str, normal_form: str | None) -> None:
    if normal_form is None:
        with pytest.raises(IdentifierRefused):
            normal(T.PHONE, value, region=region)
    else:
        assert normal(T.PHONE, value, region=region) == normal_form


def test_cards_ignore_spaces_and_case_and_other_ids_keep_theirs() -> None:
    assert normal(T.CARD, " ab 12\u3000cd ") == "AB12CD"
    assert normal(T.CARD, "\ufeffab12\u200bcd") == "AB12CD", "what copying leaves behind is no part of a number"
    assert normal(T.WECHAT_OPENID, " oAbC-1 ", issuer="wx1") == "oAbC-1"


@pytest.mark.parametrize("kind", list(T))
def test_an_issuer_is_given_where_the_type_needs_one_and_nowhere_else(kind: IdentifierType) -> None:
    needed = kind in (T.WECHAT_OPENID, T.WECOM_EXTERNAL_USERID, T.MARKETPLACE_BUYER, T.EXTERNAL)
    with pytest.raises(IdentifierRefused):
        normal(kind, "13800138000", issuer="" if needed else "x")
    assert normal(kind, "13800138000", issuer="x" if needed else "")


@pytest.mark.parametrize("kind", list(T))
@pytest.mark.parametrize("verified", [True, False])
def test_only_an_unverified_phone_is_a_mere_claim(kind: IdentifierType, verified: bool) -> None:
    assert Named(type=kind, issuer="", value="x", verified=verified).owns == (verified or kind is not T.PHONE)


@given(st.text(max_size=40))
def test_a_normal_form_is_its_own_normal_form(value: str) -> None:
    for kind in (T.CARD, T.WECHAT_UNIONID, T.PHONE):
        try:
            once = normal(kind, value)
        except IdentifierRefused:
            continue
        assert normal(kind, once) == once


def test_lookups_differ_by_type_issuer_value_and_key_and_not_by_standing() -> None:
    def named(kind: IdentifierType, issuer: str, value: str, *, verified: bool = False) -> Named:
        return Named(type=kind, issuer=issuer, value=value, verified=verified)

    lookups = {
        lookup_of(b"k1", named(T.CARD, "", "1")),
        lookup_of(b"k1", named(T.CARD, "", "2")),
        lookup_of(b"k1", named(T.WECHAT_OPENID, "a", "1")),
        lookup_of(b"k1", named(T.WECHAT_OPENID, "b", "1")),
        lookup_of(b"k2", named(T.CARD, "", "1")),
    }
    assert len(lookups) == 5
    assert lookup_of(b"k1", named(T.PHONE, "", "1")) == lookup_of(b"k1", named(T.PHONE, "", "1", verified=True))
