"""Who is it? A batch of sign-ups against the identifiers that are owned already, decided one by one in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.identity.domain.identifiers import Named
from services.identity.domain.refusals import IdentifierTaken, PhoneNotVerified
from services.runtime.errors import DomainError
from services.runtime.ids import MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An identifier with the key by which it is found."""

    named: Named
    lookup: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUp:
    """One person who signs up. `member_id` is the id that a new member would get."""

    member_id: MemberId
    identifiers: tuple[Found, ...]
    display_name: str
    channel: str
    store_id: str
    signed_up_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What is known of the identifiers of a batch: owners by lookup, and who merely claims which."""

    owners: Mapping[bytes, MemberId]
    claims: frozenset[tuple[bytes, MemberId]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The member of a sign-up: a new one, or the one that owns its identifiers; `links` are new to the member."""

    member_id: MemberId
    created: bool
    links: tuple[Found, ...]


def distinct(identifiers: Iterable[Found]) -> tuple[Found, ...]:
    """Each identifier once, in order; verified if any of its mentions is."""
    kept: dict[bytes, Found] = {}
    for found in identifiers:
        before = kept.get(found.lookup)
        if before is None or (found.named.verified and not before.named.verified):
            kept[found.lookup] = found
    return tuple(kept.values())


def register_all(sign_ups: Sequence[SignUp], known: Ownership) -> tuple[Registered | DomainError, ...]:
    """One verdict a sign-up, in order; what one registers, the next finds. A refusal changes nothing for the others.

    A new member needs an identifier of its own (PhoneNotVerified); identifiers of several members are IdentifierTaken.
    """
    owners = dict(known.owners)
    claims = set(known.claims)
    verdicts: list[Registered | DomainError] = []
    for sign_up in sign_ups:
        try:
            verdict = _register(sign_up, owners, claims)
        except DomainError as refusal:
            verdicts.append(refusal)
            continue
        for link in verdict.links:
            if link.named.owns:
                owners[link.lookup] = verdict.member_id
            else:
                claims.add((link.lookup, verdict.member_id))
        verdicts.append(verdict)
    return tuple(verdicts)


def links_for(
    member_id: MemberId,
    identifiers: Iterable[Found],
    owners: Mapping[bytes, MemberId],
    claims: set[tuple[bytes, MemberId]] | frozenset[tuple[bytes, MemberId]],
) -> tuple[Found, ...]:
    """The identifiers that the member neither owns nor, where they are claims, claims already."""
    return tuple(
        found
        for found in identifiers
        if owners.get(found.lookup) != member_id and (found.named.owns or (found.lookup, member_id) not in claims)
    )


def _register(sign_up: SignUp, owners: dict[bytes, MemberId], claims: set[tuple[bytes, MemberId]]) -> Registered:
    owning = [found for found in sign_up.identifiers if found.named.owns]
    members = {owners[found.lookup] for found in owning if found.lookup in owners}
    if len(members) > 1:
        raise IdentifierTaken(members)
    if members:
        # known by one, shown together with others by a client we trust: the others are that member's too
        (member_id,) = members
        return Registered(
            member_id=member_id, created=False, links=links_for(member_id, sign_up.identifiers, owners, claims)
        )
    if not owning:
        raise PhoneNotVerified
    return Registered(member_id=sign_up.member_id, created=True, links=sign_up.identifiers)
