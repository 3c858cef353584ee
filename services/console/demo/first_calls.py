"""What a person pastes into a second terminal: a log-in, a REST call, a gRPC call."""

from collections.abc import Mapping

from services.console.demo import rules
from services.console.demo.brand import Brand


def first_calls(brand: Brand, addresses: Mapping[str, str]) -> str:
    """The commands, with this brand's own client and one of its members."""
    client_id, secret = brand.clients["admin"]
    member_id = min(brand.members.values())
    edge = f"http://{addresses['edge']}"
    return f"""
Your first calls, as the head office of {rules.BRAND_NAME!r}. In another terminal:

  # log in: a token for ten minutes
  TOKEN=$(curl -s {edge}/v1/token -d '{{"client_id": "{client_id}", "client_secret": "{secret}"}}' \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["accessToken"])')

  # REST: a member's points
  curl -s -H "authorization: Bearer $TOKEN" {edge}/v1/members/{member_id}/points/{rules.POINT_CURRENCY}

  # gRPC: the same, as a till's backend would
  TOKEN=$TOKEN .venv/bin/python - <<'END'
import os, grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc
with grpc.insecure_channel("{addresses["edge"]}") as channel:
    print(points_pb2_grpc.PointsServiceStub(channel).GetBalance(
        points_pb2.GetBalanceRequest(member_id="{member_id}", point_currency="{rules.POINT_CURRENCY}"),
        metadata=[("authorization", "Bearer " + os.environ["TOKEN"])], timeout=5))
END

  The API as a page: {edge}/docs    its description: {edge}/openapi.json
"""
