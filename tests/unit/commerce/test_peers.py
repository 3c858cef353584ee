"""What commerce tells its peers of a hold."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.commerce.convert.peers import CampaignOffers, LoyaltyPoints
from services.commerce.domain.saga import Step, StepKind, StepState
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.channels import Channels
from services.runtime.ids import OrderId, new_id

PLACED = datetime(2026, 5, 1, 4, tzinfo=UTC)


@dataclass(slots=True)
class Recorder:
    """Channels that keep what is asked and answer nothing."""

    asked: list[Any] = field(default_factory=list)

    def stub(self, _service: str, _stub: object) -> SimpleNamespace:
        return SimpleNamespace(HoldPoints=None, HoldBenefits=None)

    async def invoke(self, _method: object, request: object, _call: Call) -> None:
        self.asked.append(request)


@pytest.mark.parametrize("kind", list(StepKind))
async def test_a_hold_is_told_when_its_order_was_placed(kind: StepKind) -> None:
    """Whenever it comes: a peer that has forgotten the hold's void refuses it by its age."""
    recorder = Recorder()
    channels = cast("Channels", recorder)
    step = Step(order_id=OrderId(new_id()), kind=kind, state=StepState.ASKED, issued_at=PLACED)
    call = Call(
        tenant_id=new_id(),
        client_id="commerce",
        actor=Actor(kind=ActorKind.SERVICE, id="commerce"),
        now=PLACED.replace(year=2027),
        time_zone="Asia/Shanghai",
        deadline_at=deadline_in(30),
    )
    if kind is StepKind.POINTS:
        await LoyaltyPoints(channels).hold(call, step)
    else:
        await CampaignOffers(channels).hold(call, step, occurred_at=PLACED)
    (request,) = recorder.asked
    assert request.issued_at.ToDatetime(tzinfo=UTC) == PLACED
