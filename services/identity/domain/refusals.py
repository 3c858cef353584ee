"""identity's named refusals; the reasons are part of the contract.

DomainError
├── Invalid         IdentifierRefused
├── Unauthenticated BadCredentials
├── NotAllowed      ScopeNotGrantable
├── Missing         UnknownMember, UnknownStore, UnknownClient, UnknownTenant
├── AlreadyExists   IdentifierTaken, TenantExists
├── Refused         PhoneNotVerified, SameMember, NoTestClock, ClockBackwards, LastAdmin
├── Exhausted       TooManyAttempts
└── Conflict        OwnershipRace
"""

from collections.abc import Iterable

from services.runtime.errors import (
    AlreadyExists,
    Conflict,
    Exhausted,
    Invalid,
    Missing,
    NotAllowed,
    Refused,
    Unauthenticated,
)


class IdentifierRefused(Invalid):
    """The value names nobody: `null`, zeros and their like, or it is no value of its type."""

    reason = "IDENTIFIER_REFUSED"


class BadCredentials(Unauthenticated):
    """One refusal whatever is wrong with the credentials, so that nothing can be learnt by trying."""

    reason = "BAD_CREDENTIALS"

    def __init__(self) -> None:
        """Always the same text."""
        super().__init__("the client id and secret do not fit")


class ScopeNotGrantable(NotAllowed):
    """The caller lacks a scope that it wants to give, or the kind of client can't carry it."""

    reason = "SCOPE_NOT_GRANTABLE"

    def __init__(self, scopes: Iterable[str], *, why: str) -> None:
        """Names the scopes."""
        named = ", ".join(sorted(scopes))
        super().__init__(f"{why}: {named}", metadata={"scopes": named})


class UnknownMember(Missing):
    """No such member in this tenant, or nobody owns the identifier."""

    reason = "MEMBER_NOT_FOUND"

    def __init__(self, name: str = "", *, field: str = "identifier") -> None:
        """`name` is the id, in the field; empty for an identifier, whose value is personal and not repeated."""
        text = "" if name else "no member owns this identifier"
        super().__init__(text, kind="member", name=name, metadata={"field": field})


class UnknownStore(Missing):
    """No such store in this tenant."""

    reason = "STORE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the store."""
        super().__init__(kind="store", name=name)


class UnknownClient(Missing):
    """No such client in this tenant."""

    reason = "CLIENT_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the client."""
        super().__init__(kind="client", name=name)


class UnknownTenant(Missing):
    """The call is made in no tenant, or in one that is not there."""

    reason = "TENANT_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """Names the tenant."""
        super().__init__(kind="tenant", name=name)


class IdentifierTaken(AlreadyExists):
    """The identifiers belong to somebody else, or to several members: those may have to be merged."""

    reason = "IDENTIFIER_TAKEN"

    def __init__(self, member_ids: Iterable[str]) -> None:
        """Names the members that own them."""
        named = ",".join(sorted(member_ids))
        super().__init__(
            "the identifiers belong to other members; merge them if they are one person", metadata={"member_ids": named}
        )


class TenantExists(AlreadyExists):
    """Another request took the code."""

    reason = "TENANT_EXISTS"

    def __init__(self, code: str) -> None:
        """Names the code."""
        super().__init__(f"the code {code!r} is taken; choose another", metadata={"code": code})


class PhoneNotVerified(Refused):
    """A phone number is a claim until its owner proved it; alone it names nobody."""

    reason = "PHONE_NOT_VERIFIED"

    def __init__(self) -> None:
        """Says what to do."""
        super().__init__(
            "a phone number names a member only when verified; verify it, or give another identifier", subject="phone"
        )


class SameMember(Refused):
    """Both ids lead to one member already."""

    reason = "SAME_MEMBER"

    def __init__(self, member_id: str) -> None:
        """Names the member."""
        super().__init__("both ids name the same member already", subject=member_id, metadata={"member_id": member_id})


class NoTestClock(Refused):
    """The tenant runs on machine time."""

    reason = "NO_TEST_CLOCK"

    def __init__(self) -> None:
        """Says what to do."""
        super().__init__("this tenant has no test clock; make one with test_clock_at", subject="test_clock")


class ClockBackwards(Refused):
    """A test clock only moves forward."""

    reason = "CLOCK_BACKWARDS"

    def __init__(self, at: str) -> None:
        """Tells where the clock stands."""
        super().__init__(f"the test clock stands at {at} and only moves forward", subject="test_clock")


class LastAdmin(Refused):
    """Without this client nobody could make or revoke clients any more."""

    reason = "LAST_ADMIN"

    def __init__(self, client_id: str) -> None:
        """Says what to do."""
        super().__init__(
            "it is the last client that can make and revoke clients; make another one first", subject=client_id
        )


class TooManyAttempts(Exhausted):
    """Too many wrong secrets for this client from this address."""

    reason = "TOO_MANY_ATTEMPTS"

    def __init__(self, retry_after_s: float) -> None:
        """Tells when to come back."""
        super().__init__("too many failed attempts; wait and try again", retry_after_s=retry_after_s)


class OwnershipRace(Conflict):
    """Another call linked, merged or registered the same identifiers at this moment; a retry sees its result."""

    def __init__(self) -> None:
        """The use case goes round again by itself, a few times."""
        super().__init__("another call changes the same members; try again")
