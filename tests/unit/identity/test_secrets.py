"""Derived secrets, sealed values, tokens' claims and the life of signing keys."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from services.identity.domain.clients import is_told
from services.identity.domain.credentials import Keys, installation_kind
from services.identity.domain.sealing import new_key, seal, unseal
from services.identity.domain.tokens import (
    KEY_SIGNS_FOR,
    KEY_VERIFIES_AFTER,
    TOKEN_LIFE,
    Bearer,
    PublicKey,
    claims_of,
    next_key_from,
    published_at,
    signs_at,
)
from services.runtime.auth import principal_of
from services.runtime.call import ActorKind
from services.runtime.errors import Invalid
from services.runtime.pages import key_of, token_after

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEYS = Keys.derive("0123456789abcdef0123456789abcdef")
HOUR = timedelta(hours=1)


def test_secrets_are_the_same_for_ever_and_differ_in_everything() -> None:
    assert KEYS.secret_of("t", "c") == Keys.derive("0123456789abcdef0123456789abcdef").secret_of("t", "c")
    other = Keys.derive("another root secret of 32 characters")
    secrets = {KEYS.secret_of("t", "c"), KEYS.secret_of("t", "d"), KEYS.secret_of("u", "c"), other.secret_of("t", "c")}
    assert len(secrets) == 4
    assert len({KEYS.client_secret, KEYS.client_verifier, KEYS.lookup, KEYS.data, KEYS.signing, KEYS.root}) == 6


def test_an_installation_secret_is_what_the_operator_computes() -> None:
    root = b"0123456789abcdef0123456789abcdef"
    expected = hmac.new(root, b"service:loyalty", hashlib.sha256).hexdigest()
    assert KEYS.installation_secret_of("service:loyalty") == expected


def test_a_short_root_secret_is_refused() -> None:
    with pytest.raises(AssertionError):
        Keys.derive("short")


@pytest.mark.parametrize(
    ("client_id", "kind"),
    [
        ("service:loyalty", ActorKind.SERVICE),
        ("platform:operator", ActorKind.PLATFORM),
        ("service:", None),
        ("service:a b", None),
        ("staff:me", None),
        ("0190-", None),
    ],
)
def test_installation_clients_are_known_by_their_ids(client_id: str, kind: ActorKind | None) -> None:
    assert installation_kind(client_id) is kind


@given(st.binary(max_size=200))
def test_a_sealed_value_opens_with_its_key_and_place_only(plain: bytes) -> None:
    key = new_key()
    sealed = seal(key, plain, bound_to="here")
    assert unseal(key, sealed, bound_to="here") == plain
    for wrong_key, place in ((new_key(), "here"), (key, "there")):
        with pytest.raises(InvalidTag):
            unseal(wrong_key, sealed, bound_to=place)
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    with pytest.raises(InvalidTag):
        unseal(key, changed, bound_to="here")


def test_claims_are_what_the_other_services_read() -> None:
    bearer = Bearer(
        client_id="c",
        kind=ActorKind.SUPPLIER,
        scopes=("a.b", "c.d"),
        tenant_id="t",
        supplier_id="X",
        time_zone="Asia/Tokyo",
        currency_code="JPY",
        has_test_clock=True,
    )
    claims = claims_of(bearer, now=NOON, token_id="j")
    principal = principal_of(claims)
    assert (principal.tenant_id, principal.client_id, principal.time_zone) == ("t", "c", "Asia/Tokyo")
    assert (principal.actor.kind, principal.actor.supplier_id) == (ActorKind.SUPPLIER, "X")
    assert principal.actor.scopes == {"a.b", "c.d"}
    assert principal.has_test_clock
    assert principal.expires_at == (NOON + TOKEN_LIFE).timestamp()
    assert claims["cur"] == "JPY"
    assert "sto" not in claims


def key(name: str, signs_from: datetime) -> PublicKey:
    return PublicKey(kid=name, x="", y="", signs_from=signs_from)


@pytest.mark.parametrize(
    ("now", "signs", "published"),
    [
        pytest.param(NOON, "old", ("new", "old"), id="the next key is known before it signs"),
        pytest.param(NOON + HOUR, "new", ("new", "old"), id="it signs from its time on"),
        pytest.param(NOON + HOUR + TOKEN_LIFE, "new", ("new", "old"), id="the old one's tokens still verify"),
        pytest.param(NOON + HOUR + KEY_VERIFIES_AFTER, "new", ("new",), id="and then it is gone"),
    ],
)
def test_a_key_gives_way_to_the_next(now: datetime, signs: str, published: tuple[str, ...]) -> None:
    keys = (key("ancient", NOON - 100 * HOUR), key("new", NOON + HOUR), key("old", NOON - 50 * HOUR))
    signing = signs_at(keys, now)
    assert signing is not None
    assert signing.kid == signs
    assert tuple(each.kid for each in published_at(keys, now)) == published


def test_a_key_is_made_when_there_is_none_and_before_the_last_has_signed_its_time() -> None:
    assert next_key_from((), NOON) == NOON
    assert next_key_from((key("a", NOON),), NOON + KEY_SIGNS_FOR - 2 * HOUR) is None
    due = NOON + KEY_SIGNS_FOR - HOUR
    assert next_key_from((key("a", NOON),), due) == NOON + KEY_SIGNS_FOR
    assert next_key_from((key("a", NOON), key("b", NOON + KEY_SIGNS_FOR)), due) is None


@given(st.lists(st.integers(min_value=0, max_value=2000), min_size=1, max_size=6), st.integers(0, 3000))
def test_the_key_that_signs_is_always_published(hours: list[int], now: int) -> None:
    keys = [key(str(at), NOON + each * HOUR) for at, each in enumerate(hours)]
    moment = NOON + now * HOUR
    signing = signs_at(keys, moment)
    assert signing is None or signing in published_at(keys, moment)


def test_a_secret_is_told_again_for_a_day() -> None:
    assert is_told(NOON, now=NOON + 24 * HOUR)
    assert not is_told(NOON, now=NOON + 24 * HOUR + timedelta(microseconds=1))


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_page_tokens_come_back(last: str) -> None:
    assert key_of(token_after(last)) == last


@pytest.mark.parametrize("token", ["!", "abc", "MTIz", "MTphAGI", "\u4e2d\u6587"])
def test_tokens_of_others_are_refused(token: str) -> None:
    with pytest.raises(Invalid):
        key_of(token)
