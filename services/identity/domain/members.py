"""Members, and which of two survives."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.identity.domain.identifiers import Named
from services.runtime.errors import Invalid
from services.runtime.ids import MemberId

AHEAD_MAX: Final = timedelta(minutes=5)
"""How far a till's clock may run ahead of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person, as one tenant knows them. `signed_up_at` is business time."""

    member_id: MemberId
    display_name: str
    sign_up_channel: str
    sign_up_store_id: str
    signed_up_at: datetime
    identifiers: tuple[Named, ...]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """The result of a merge: the survivor, and who became its alias."""

    merge_id: str
    survivor: Member
    merged_member_id: MemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """What decides which of two members is older."""

    member_id: MemberId
    signed_up_at: datetime


def older_first(one: Age, other: Age) -> tuple[Age, Age]:
    """The survivor, then the one that becomes its alias: the earlier sign-up, ties to the earlier id."""
    assert one.member_id != other.member_id, "a member does not merge with itself"
    pair = sorted((one, other), key=lambda age: (age.signed_up_at, age.member_id))
    return pair[0], pair[1]


def sign_up_time(occurred_at: datetime | None, *, now: datetime) -> datetime:
    """When the sign-up happened, in business time.

    Raises Invalid for a future one: it decides who is older, and who survives a merge.
    """
    if occurred_at is None:
        return now
    if occurred_at > now + AHEAD_MAX:
        raise Invalid("lies in the future", field="occurred_at")
    return occurred_at
