"""Grants outside an order, by column: what one call grants is one value with a list for each thing that grants have.

A batch has hundreds of grants, and they are alike but for their members: a row each would cost more to make than all
that is done with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import NamedTuple, TypeVar

from services.loyalty.domain.points import Accrued
from services.runtime.errors import DomainError

T = TypeVar("T")


class GrantKind(NamedTuple):
    """What grants can have in common. `occurred_at` None is now; empty names take the programme's defaults."""

    point_currency: str
    expiry_class: str
    funder: str
    reason: str
    occurred_at: datetime | None
    store_id: str
    channel: str


class GrantTerms(NamedTuple):
    """What the programme makes of a kind."""

    client_id: str
    point_currency: str
    class_no: int
    expires_at: datetime
    reason: str
    store_id: str
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantsAsked:
    """The grants that one call asks for. `which` of the `kinds` each is; a fingerprint is of all but the request id."""

    request_ids: list[str]
    fingerprints: list[bytes]
    member_ids: list[str]
    points: list[int]
    which: list[int]
    kinds: list[GrantKind]

    def __len__(self) -> int:
        """How many grants."""
        return len(self.request_ids)

    def kind(self, place: int) -> GrantKind:
        """The kind of the grant at a place."""
        return self.kinds[self.which[place]]

    def pick(self, places: Sequence[int]) -> "GrantsAsked":
        """The grants at the places, in their order."""
        return GrantsAsked(
            request_ids=_pick(self.request_ids, places),
            fingerprints=_pick(self.fingerprints, places),
            member_ids=_pick(self.member_ids, places),
            points=_pick(self.points, places),
            which=_pick(self.which, places),
            kinds=self.kinds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Grants that are ready to be posted: the `terms` of each kind that occurs, and for each grant the id of its entry,
    the partition of its member, and its part of the event that tells a transaction's grants."""

    asked: GrantsAsked
    terms: Mapping[int, GrantTerms]
    entry_ids: list[str]
    partitions: list[int]
    event_parts: list[bytes]
    now: datetime
    trace: str

    def __len__(self) -> int:
        """How many grants."""
        return len(self.entry_ids)

    def client_ids(self) -> list[str]:
        """Who asked for each."""
        return [self.terms[kind].client_id for kind in self.asked.which]

    def pick(self, places: Sequence[int]) -> "Grants":
        """The grants at the places, in their order."""
        return Grants(
            asked=self.asked.pick(places),
            terms=self.terms,
            entry_ids=_pick(self.entry_ids, places),
            partitions=_pick(self.partitions, places),
            event_parts=_pick(self.event_parts, places),
            now=self.now,
            trace=self.trace,
        )

    @staticmethod
    def joined(bundles: Sequence["Grants"]) -> "Grants":
        """One call's grants after the other's, as of the latest of their moments."""
        if len(bundles) == 1:
            return bundles[0]
        kinds: list[GrantKind] = []
        which: list[int] = []
        terms: dict[int, GrantTerms] = {}
        for bundle in bundles:
            offset = len(kinds)
            kinds += bundle.asked.kinds
            which += [kind + offset for kind in bundle.asked.which]
            terms.update({kind + offset: found for kind, found in bundle.terms.items()})
        asked = [bundle.asked for bundle in bundles]
        return Grants(
            asked=GrantsAsked(
                request_ids=_chained(each.request_ids for each in asked),
                fingerprints=_chained(each.fingerprints for each in asked),
                member_ids=_chained(each.member_ids for each in asked),
                points=_chained(each.points for each in asked),
                which=which,
                kinds=kinds,
            ),
            terms=terms,
            entry_ids=_chained(bundle.entry_ids for bundle in bundles),
            partitions=_chained(bundle.partitions for bundle in bundles),
            event_parts=_chained(bundle.event_parts for bundle in bundles),
            now=max(bundle.now for bundle in bundles),
            trace=bundles[0].trace,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What became of grants, in their order. Where one was refused, `refusals` says why, and the lists say nothing."""

    entry_ids: list[str]
    available: list[int]
    repaid: list[int]
    refusals: Mapping[int, DomainError] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many grants."""
        return len(self.entry_ids)

    def verdict(self, place: int) -> Accrued | DomainError:
        """What became of the grant at a place."""
        refusal = self.refusals.get(place)
        return refusal or Accrued(self.entry_ids[place], self.available[place], self.repaid[place])

    def verdicts(self) -> list[Accrued | DomainError]:
        """What became of each."""
        return [self.verdict(place) for place in range(len(self))]

    def part(self, start: int, end: int) -> "Granted":
        """What became of those from `start` to before `end`."""
        return Granted(
            entry_ids=self.entry_ids[start:end],
            available=self.available[start:end],
            repaid=self.repaid[start:end],
            refusals={place - start: why for place, why in self.refusals.items() if start <= place < end},
        )

    @staticmethod
    def placed(parts: Iterable[tuple[Sequence[int], "Granted"]]) -> "Granted":
        """What became of grants that were picked apart: each part with the places that it was picked from."""
        parts = tuple(parts)
        count = sum(len(part) for _, part in parts)
        entry_ids, available, repaid = [""] * count, [0] * count, [0] * count
        refusals: dict[int, DomainError] = {}
        for places, part in parts:
            for place, entry_id, left, paid in zip(places, part.entry_ids, part.available, part.repaid, strict=True):
                entry_ids[place] = entry_id
                available[place] = left
                repaid[place] = paid
            refusals.update({places[at]: why for at, why in part.refusals.items()})
        return Granted(entry_ids=entry_ids, available=available, repaid=repaid, refusals=refusals)

    @staticmethod
    def of(verdicts: Sequence[Accrued | DomainError]) -> "Granted":
        """The verdicts, by column."""
        nothing = Accrued("", 0, 0)
        rows = [nothing if isinstance(verdict, DomainError) else verdict for verdict in verdicts]
        return Granted(
            entry_ids=[row.entry_id for row in rows],
            available=[row.available_points for row in rows],
            repaid=[row.repaid_points for row in rows],
            refusals={place: told for place, told in enumerate(verdicts) if isinstance(told, DomainError)},
        )


def _pick(column: Sequence[T], places: Sequence[int]) -> list[T]:
    return [column[place] for place in places]


def _chained(columns: Iterable[Iterable[T]]) -> list[T]:
    return list(chain.from_iterable(columns))
