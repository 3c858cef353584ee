"""Grants by column: picked apart and put together again, nothing changes its place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.loyalty.domain.grants import Granted, GrantKind, Grants, GrantsAsked, GrantTerms
from services.loyalty.domain.points import Accrued, BalanceTooLarge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KIND = GrantKind("points", "", "", "goodwill", None, "", "")
TERMS = GrantTerms("till-1", "points", 1, NOW, "goodwill", "", "")


def grants(name: str, which: list[int]) -> Grants:
    """Grants of one call, whose values tell their places."""
    places = [f"{name}{place}" for place in range(len(which))]
    kinds = [KIND._replace(store_id=str(number), reason=name) for number in range(max(which) + 1)]
    return Grants(
        asked=GrantsAsked(
            request_ids=places,
            fingerprints=[place.encode() for place in places],
            member_ids=[f"member of {place}" for place in places],
            points=list(range(len(which))),
            which=which,
            kinds=kinds,
        ),
        terms={number: TERMS._replace(client_id=name, class_no=number) for number in which},
        entry_ids=[f"entry of {place}" for place in places],
        partitions=list(range(len(which))),
        event_parts=[f"told of {place}".encode() for place in places],
        now=NOW,
        trace=name,
    )


def row(of: Grants, place: int) -> tuple[object, ...]:
    """All that is known of the grant at a place."""
    kind = of.asked.which[place]
    return (
        of.asked.request_ids[place],
        of.asked.fingerprints[place],
        of.asked.member_ids[place],
        of.asked.points[place],
        of.asked.kind(place),
        of.terms[kind],
        of.client_ids()[place],
        of.entry_ids[place],
        of.partitions[place],
        of.event_parts[place],
    )


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=4), st.randoms())
def test_calls_joined_and_picked_from_keep_what_each_grant_is(whose: list[list[int]], chance: object) -> None:
    """Whichever are picked, in whichever order."""
    bundles = [grants(f"call-{number}-", which) for number, which in enumerate(whose)]
    rows = [row(bundle, place) for bundle in bundles for place in range(len(bundle))]
    joined = Grants.joined(bundles)
    assert [row(joined, place) for place in range(len(joined))] == rows
    places = list(range(len(joined)))
    chance.shuffle(places)  # type: ignore[attr-defined]
    picked = joined.pick(places[: len(places) // 2 + 1])
    assert [row(picked, at) for at in range(len(picked))] == [rows[place] for place in places[: len(picked)]]


def test_calls_joined_are_as_of_the_latest_and_traced_by_the_first() -> None:
    """One statement has one moment."""
    first = grants("a", [0])
    later = replace(grants("b", [0]), now=NOW + timedelta(seconds=1))
    assert (Grants.joined([first, later]).now, Grants.joined([first, later]).trace) == (later.now, "a")
    assert Grants.joined([later, first]).now == later.now


@given(st.lists(st.one_of(st.integers(0, 9), st.none()), min_size=1, max_size=9), st.randoms())
def test_verdicts_go_back_to_where_their_grants_were(points: list[int | None], chance: object) -> None:
    """From the turns they were posted in, and to the calls that asked."""
    verdicts = [
        BalanceTooLarge() if number is None else Accrued(f"entry {place}", number, place % 2)
        for place, number in enumerate(points)
    ]
    places = list(range(len(verdicts)))
    chance.shuffle(places)  # type: ignore[attr-defined]
    turns = [places[: len(places) // 2], places[len(places) // 2 :]]
    placed = Granted.placed([(turn, Granted.of([verdicts[place] for place in turn])) for turn in turns])
    assert placed.verdicts() == verdicts
    middle = len(verdicts) // 2
    assert placed.part(0, middle).verdicts() + placed.part(middle, len(verdicts)).verdicts() == verdicts
