"""What grants are on the wire: put together from pieces for speed, and equal to what the messages say."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from services.loyalty import convert
from services.loyalty.domain.grants import Granted, GrantKind
from services.loyalty.domain.points import Accrued, BalanceTooLarge
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from siyu.loyalty.v1 import events_pb2, points_pb2


def asked(points: int = 5, reason: str = "goodwill", request_id: str = "r", **more: object) -> points_pb2.AccrueRequest:
    """A grant as it comes in."""
    request = points_pb2.AccrueRequest(
        request_id=request_id, member_id=new_id(), point_currency="points", points=points, reason=reason
    )
    request.MergeFrom(points_pb2.AccrueRequest(**more))  # type: ignore[arg-type]
    return request


def test_parts_of_grants_joined_are_one_message() -> None:
    """Points of every length on the wire, and reasons that make the part longer than a byte can say."""
    requests = [asked(points, "r" * length) for points in (1, 127, 128, 16_384, 10**9) for length in (1, 64)]
    requests += [asked(), asked()]
    entries = [new_id() for _ in requests]
    joined = b"".join(convert.granted_parts(convert.grants(requests), entries))
    assert events_pb2.PointsGranted.FromString(joined) == events_pb2.PointsGranted(
        grants=[
            events_pb2.PointsGrant(
                member_id=each.member_id,
                point_currency=each.point_currency,
                entry_id=entry_id,
                points=each.points,
                reason=each.reason,
            )
            for each, entry_id in zip(requests, entries, strict=True)
        ]
    )


def test_grants_of_a_kind_are_read_once_and_others_are_told_apart() -> None:
    """Whatever differs but request, member and points makes another kind."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    requests = [
        asked(),
        asked(points=10**9),
        asked(request_id="x" * 128),
        asked(reason="other"),
        asked(occurred_at=convert.timestamp(at)),
        asked(store_id="s", channel="pos"),
        asked(expiry_class="bonus", funder="dairy-co"),
        asked(),
    ]
    read = convert.grants(requests)
    assert read.request_ids == [request.request_id for request in requests]
    assert read.member_ids == [request.member_id for request in requests]
    assert read.points == [5, 10**9, 5, 5, 5, 5, 5, 5]
    assert read.which == [0, 0, 0, 1, 2, 3, 4, 0]
    plain = GrantKind("points", "", "", "goodwill", None, "", "")
    assert read.kinds == [
        plain,
        plain._replace(reason="other"),
        plain._replace(occurred_at=at),
        plain._replace(store_id="s", channel="pos"),
        plain._replace(expiry_class="bonus", funder="dairy-co"),
    ]


def test_a_member_is_known_by_its_id_however_that_is_written() -> None:
    """In upper case, which the contract allows."""
    request = asked()
    request.member_id = request.member_id.upper()
    assert convert.grants([request]).member_ids == [request.member_id.lower()]


@pytest.mark.parametrize("length", [1, 127, 128])
def test_a_grant_is_known_by_its_body_whatever_its_request_id(length: int) -> None:
    """The fingerprint is of what follows the request id, however long that is; any other difference shows."""

    def fingerprints(requests: Sequence[points_pb2.AccrueRequest]) -> list[bytes]:
        return convert.grants(requests).fingerprints

    request = asked(request_id="x")
    first = fingerprints([request])
    request.request_id = "y" * length
    assert fingerprints([request]) == first
    request.points = 6
    assert fingerprints([request]) != first


def test_a_batch_is_told_its_verdicts_in_order() -> None:
    """Of one that was posted, one that repaid debt, and one that was refused."""
    repaying, refused = Accrued("b", 0, 300), BalanceTooLarge()
    verdicts: list[Accrued | DomainError] = [Accrued("a", 5, 0), refused, repaying, Accrued("c", 0, 0)]
    said = convert.verdicts_message(points_pb2.BatchAccrueResponse(), Granted.of(verdicts))
    assert said == points_pb2.BatchAccrueResponse(
        verdicts=[
            points_pb2.AccrueVerdict(accrued=points_pb2.AccrueResponse(entry_id="a", available_points=5)),
            points_pb2.AccrueVerdict(refusal_reason="BALANCE_TOO_LARGE", refusal_message=refused.message),
            points_pb2.AccrueVerdict(accrued=points_pb2.AccrueResponse(entry_id="b", repaid_points=300)),
            points_pb2.AccrueVerdict(accrued=points_pb2.AccrueResponse(entry_id="c")),
        ]
    )
