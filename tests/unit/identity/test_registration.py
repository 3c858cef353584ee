"""Who is it: a batch of sign-ups against what is known."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.domain.identifiers import IdentifierType, Named
from services.identity.domain.members import Age, older_first
from services.identity.domain.refusals import IdentifierTaken, PhoneNotVerified
from services.identity.domain.registration import (
    Found,
    Ownership,
    Registered,
    SignUp,
    distinct,
    register_all,
)
from services.runtime.errors import DomainError
from services.runtime.ids import MemberId

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NOTHING = Ownership(owners={}, claims=frozenset())


def found(name: str, *, claim: bool = False) -> Found:
    kind = IdentifierType.PHONE if claim or name.startswith("p") else IdentifierType.CARD
    return Found(named=Named(type=kind, issuer="", value=name, verified=not claim), lookup=name.encode())


def sign_up(member_id: str, *identifiers: Found) -> SignUp:
    return SignUp(
        member_id=MemberId(member_id),
        identifiers=identifiers,
        display_name="",
        channel="",
        store_id="",
        signed_up_at=NOON,
    )


def told(verdict: Registered | DomainError) -> object:
    if isinstance(verdict, DomainError):
        return type(verdict)
    return verdict.member_id, verdict.created, "".join(link.named.value for link in verdict.links)


@pytest.mark.parametrize(
    ("sign_ups", "known", "verdicts"),
    [
        pytest.param([sign_up("A", found("c"))], {}, [("A", True, "c")], id="a stranger is new"),
        pytest.param([sign_up("A", found("c"))], {"c": "M"}, [("M", False, "")], id="an owner is known"),
        pytest.param(
            [sign_up("A", found("c"), found("d"))], {"c": "M"}, [("M", False, "d")], id="the known one gets the rest"
        ),
        pytest.param(
            [sign_up("A", found("c"), found("d"))], {"c": "M", "d": "N"}, [IdentifierTaken], id="two owners are refused"
        ),
        pytest.param(
            [sign_up("A", found("c")), sign_up("B", found("c"))],
            {},
            [("A", True, "c"), ("A", False, "")],
            id="the second finds the first",
        ),
        pytest.param(
            [sign_up("A", found("c")), sign_up("B", found("d")), sign_up("C", found("c"), found("d"))],
            {},
            [("A", True, "c"), ("B", True, "d"), IdentifierTaken],
            id="two of the same batch are two",
        ),
        pytest.param(
            [sign_up("A", found("c"), found("d")), sign_up("B", found("d"), found("e")), sign_up("C", found("e"))],
            {},
            [("A", True, "cd"), ("A", False, "e"), ("A", False, "")],
            id="links of the batch are found at once",
        ),
        pytest.param([sign_up("A", found("p", claim=True))], {}, [PhoneNotVerified], id="a claim alone names nobody"),
        pytest.param([sign_up("A", found("p", claim=True))], {"p": "M"}, [PhoneNotVerified], id="not even its owner"),
        pytest.param(
            [sign_up("A", found("c"), found("p", claim=True))], {"p": "M"}, [("A", True, "cp")], id="a claim beside"
        ),
        pytest.param(
            [sign_up("A", found("c"), found("p", claim=True))],
            {"c": "M", "p": "M"},
            [("M", False, "")],
            id="an owner need not claim",
        ),
        pytest.param(
            [sign_up("A", found("c")), sign_up("B", found("p", claim=True)), sign_up("C", found("c"))],
            {},
            [("A", True, "c"), PhoneNotVerified, ("A", False, "")],
            id="a refusal fails no neighbour",
        ),
    ],
)
def test_verdicts(sign_ups: list[SignUp], known: dict[str, str], verdicts: list[object]) -> None:
    owners = {name.encode(): MemberId(member) for name, member in known.items()}
    assert [told(each) for each in register_all(sign_ups, Ownership(owners=owners, claims=frozenset()))] == verdicts


def test_a_claim_is_kept_once_and_becomes_ownership_when_proved() -> None:
    known = Ownership(owners={b"c": MemberId("M")}, claims=frozenset({(b"p", MemberId("M"))}))
    (again,) = register_all([sign_up("A", found("c"), found("p", claim=True))], known)
    assert told(again) == ("M", False, "")
    (proved,) = register_all([sign_up("A", found("c"), found("p"))], known)
    assert told(proved) == ("M", False, "p")


def test_an_identifier_said_twice_is_one_and_verified_if_any_mention_is() -> None:
    (one,) = distinct([found("p", claim=True), found("p"), found("p", claim=True)])
    assert one.named.verified


names = st.sampled_from([found(name) for name in "abcdef"] + [found("p", claim=True), found("p")])


@given(st.lists(st.lists(names, min_size=1, max_size=4), max_size=12))
def test_nothing_is_ever_owned_twice_and_whoever_is_answered_owns_what_it_said(batch: list[list[Found]]) -> None:
    sign_ups = [sign_up(f"M{at}", *distinct(identifiers)) for at, identifiers in enumerate(batch)]
    owners: dict[bytes, str] = {}
    for asked, verdict in zip(sign_ups, register_all(sign_ups, NOTHING), strict=True):
        if isinstance(verdict, DomainError):
            continue
        for link in verdict.links:
            if link.named.owns:
                assert link.lookup not in owners
                owners[link.lookup] = verdict.member_id
        assert {owners[each.lookup] for each in asked.identifiers if each.named.owns} == {verdict.member_id}


@given(st.data())
def test_one_batch_decides_as_its_items_one_after_the_other(data: st.DataObject) -> None:
    batch = data.draw(st.lists(st.lists(names, min_size=1, max_size=4), max_size=10))
    sign_ups = [sign_up(f"M{at}", *distinct(identifiers)) for at, identifiers in enumerate(batch)]
    owners: dict[bytes, MemberId] = {}
    claims: set[tuple[bytes, MemberId]] = set()
    for each, expected in zip(sign_ups, register_all(sign_ups, NOTHING), strict=True):
        (alone,) = register_all([each], Ownership(owners=owners, claims=frozenset(claims)))
        assert told(alone) == told(expected)
        if isinstance(alone, Registered):
            for link in alone.links:
                if link.named.owns:
                    owners[link.lookup] = alone.member_id
                else:
                    claims.add((link.lookup, alone.member_id))


def test_the_earlier_sign_up_survives_ties_to_the_earlier_id() -> None:
    later = datetime(2026, 5, 2, tzinfo=UTC)
    a, b = Age(member_id=MemberId("a"), signed_up_at=later), Age(member_id=MemberId("b"), signed_up_at=NOON)
    assert older_first(a, b) == older_first(b, a) == (b, a)
    c = Age(member_id=MemberId("c"), signed_up_at=NOON)
    assert older_first(c, b) == older_first(b, c) == (b, c)
