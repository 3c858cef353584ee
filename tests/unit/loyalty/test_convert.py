"""What grants are on the wire: written by hand for speed, and equal to what the messages say."""

import pytest

from services.loyalty import convert
from services.loyalty.domain.requests import GrantAsked
from services.runtime.ids import new_id
from siyu.loyalty.v1 import events_pb2, points_pb2


def asked(points: int, reason: str) -> GrantAsked:
    """A grant as it comes in."""
    request = points_pb2.AccrueRequest(
        request_id="r", member_id=new_id(), point_currency="points", points=points, reason=reason
    )
    return convert.grant(request)


def test_parts_of_grants_joined_are_one_message() -> None:
    """Points of every length on the wire, and reasons that make the part longer than a byte can say."""
    grants = [asked(points, "r" * length) for points in (1, 127, 128, 16_384, 10**9) for length in (1, 64)]
    entries = [new_id() for _ in grants]
    joined = b"".join(convert.granted_part(each, entry_id) for each, entry_id in zip(grants, entries, strict=True))
    assert events_pb2.PointsGranted.FromString(joined) == events_pb2.PointsGranted(
        grants=[
            events_pb2.PointsGrant(
                member_id=each.member_id,
                point_currency=each.point_currency,
                entry_id=entry_id,
                points=each.points,
                reason=each.reason,
            )
            for each, entry_id in zip(grants, entries, strict=True)
        ]
    )


@pytest.mark.parametrize("length", [1, 127, 128])
def test_a_grant_is_known_by_its_body_whatever_its_request_id(length: int) -> None:
    """The fingerprint is of what follows the request id, however long that is; any other difference shows."""
    request = points_pb2.AccrueRequest(
        request_id="x", member_id=new_id(), point_currency="points", points=5, reason="goodwill"
    )
    first = convert.grant(request).fingerprint
    request.request_id = "y" * length
    assert convert.grant(request).fingerprint == first
    request.points = 6
    assert convert.grant(request).fingerprint != first
