"""The peers' part of an order: holds made in parallel, captured after the pivot, voided before it.

A step's calls carry the same ids at every attempt. What is due is tried by whoever made it so, and by the worker for as
long as it takes.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from services.commerce.domain.offline import Difference, SaleException
from services.commerce.domain.orders import Order
from services.commerce.domain.saga import (
    HOLD_GRACE_S,
    MAX_HOLD_TTL_S,
    Step,
    StepEvent,
    StepKind,
    StepState,
    advance,
    hold_id_of,
)
from services.commerce.store import order_lists, orders, steps
from services.commerce.usecases.pricing import Priced
from services.commerce.usecases.shop import Shop
from services.runtime.call import Call
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.errors import AlreadyExists, DomainError, Missing, Refused
from services.runtime.ids import OrderId, new_id

INLINE_TIMEOUT_S: Final = 3.0
WORKER_TIMEOUT_S: Final = 8.0
ROUND_S: Final = 4.0
"""No order is begun later in a round. With a last one's time-out it ends while the worker's lease still lives."""
MAX_AT_ONCE: Final = 4
"""Orders side by side: a peer that hangs keeps those waiting that need only the other."""
LEFT_ALONE_S: Final = 5.0
"""A call that is on its way captures by itself; the worker looks at what is older."""
MAX_DUE: Final = 200

_GONE: Final = frozenset({"HOLD_EXPIRED", "HOLD_VOIDED", "HOLD_NOT_FOUND"})
_log = structlog.get_logger(__name__)


def steps_of(priced: Priced, *, order_id: OrderId, payment_ttl_s: int, issued_at: datetime) -> tuple[Step, ...]:
    """What the peers must hold for the order that is placed at `issued_at` (machine time); empty: nothing."""
    ttl_s = min(payment_ttl_s + HOLD_GRACE_S, MAX_HOLD_TTL_S)
    wanted = []
    if priced.tender.points:
        wanted.append(
            Step(
                order_id=order_id,
                kind=StepKind.POINTS,
                state=StepState.ASKED,
                issued_at=issued_at,
                member_id=priced.member_id,
                point_currency=priced.point_currency,
                points=priced.tender.points,
                ttl_s=ttl_s,
            )
        )
    if priced.coupons or priced.budgets:
        wanted.append(
            Step(
                order_id=order_id,
                kind=StepKind.BENEFITS,
                state=StepState.ASKED,
                issued_at=issued_at,
                member_id=priced.member_id,
                coupons=priced.coupons,
                budgets=priced.budgets,
                ttl_s=ttl_s,
            )
        )
    return tuple(wanted)


def with_hold_ids(order: Order, saga: Sequence[Step]) -> Order:
    """The order with the names of what is held for it."""
    kinds = {step.kind for step in saga}
    return replace(
        order,
        points_hold_id=hold_id_of(order.order_id, StepKind.POINTS) if StepKind.POINTS in kinds else "",
        benefits_hold_id=hold_id_of(order.order_id, StepKind.BENEFITS) if StepKind.BENEFITS in kinds else "",
    )


async def hold_all(shop: Shop, call: Call, saga: Sequence[Step], order: Order) -> None:
    """Makes the holds that were only asked for, in parallel.

    Raises the first refusal; where there is none, the first failure whose outcome is unknown.
    """
    asked = [step for step in saga if step.state is StepState.ASKED]
    outcomes = await asyncio.gather(*(_hold(shop, call, step, order) for step in asked), return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    refusals = [failure for failure in failures if is_refusal(failure)]
    for failure in (*refusals, *failures):
        raise failure


def is_refusal(failure: BaseException) -> bool:
    """Whether the peer said no, so that nothing is held; else the outcome is unknown."""
    return isinstance(failure, DomainError) and failure.storable


async def settle_due(shop: Shop, call: Call, order_id: OrderId) -> None:
    """Tries once what is due for an order; what fails is left to the worker. Never raises a DomainError."""

    async def read(connection: Connection) -> tuple[Step, ...]:
        return await steps.of_order(connection, call.tenant_id, order_id)

    try:
        saga = await shop.database.read(call.tenant_id, read, timeout_s=INLINE_TIMEOUT_S)
        await resolve(shop, call, [step for step in saga if step.state in _DUE])
    except DomainError as error:
        _log.warning("left a saga to the worker", order_id=order_id, reason=error.reason)


async def resolve_inline(shop: Shop, call: Call, due: Sequence[Step]) -> None:
    """Tries once what the caller has just made due; what fails is left to the worker. Never raises a DomainError."""
    try:
        await resolve(shop, call, due)
    except DomainError as error:
        _log.warning("left a saga to the worker", order_id=due[0].order_id, reason=error.reason)


async def resolve(shop: Shop, call: Call, due: Sequence[Step]) -> None:
    """Captures or voids the steps of one order in parallel, and writes what became of them in one transaction."""
    if not due:
        return
    outcomes = await asyncio.gather(*(_resolve(shop, call, step) for step in due))

    async def write(connection: Connection) -> None:
        moves = []
        for step, (event, error) in zip(due, outcomes, strict=True):
            if event is None:
                await steps.failed(connection, call.tenant_id, step, error=error)
            elif event is StepEvent.CAPTURE_IMPOSSIBLE:
                await _lose(connection, shop, call, step)
            else:
                moves.append((step.kind, step.state, advance(step.state, event)))
        await steps.move(connection, call.tenant_id, due[0].order_id, moves)

    await shop.database.run(call.tenant_id, write)


async def resume(shop: Shop, system: Database, *, round_s: float = ROUND_S) -> int:
    """Tries what is due over all tenants, a few orders side by side; how many orders it tried.

    What the worker does, again and again: what a round has no time for is the first of the next, since what was tried
    and failed waits for its own time.
    """

    async def find(connection: Connection) -> tuple[steps.DueStep, ...]:
        return await steps.due(connection, after_s=LEFT_ALONE_S, limit=MAX_DUE)

    by_order: dict[tuple[str, OrderId], list[Step]] = {}
    for each in await system.read(EVERY_TENANT, find):
        by_order.setdefault((each.tenant_id, each.step.order_id), []).append(each.step)
    waiting, until = iter(by_order.items()), time.monotonic() + round_s
    tried = 0

    async def work() -> None:
        nonlocal tried
        while time.monotonic() < until and (following := next(waiting, None)) is not None:
            tried += 1
            (tenant_id, _), due = following
            await _resume(shop, tenant_id, due)

    async with asyncio.TaskGroup() as group:
        for _ in range(MAX_AT_ONCE):
            group.create_task(work())
    return tried


async def _resume(shop: Shop, tenant_id: str, due: Sequence[Step]) -> None:
    try:
        call = await shop.own_call(tenant_id, timeout_s=WORKER_TIMEOUT_S)
        await resolve(shop, call, due)
    except DomainError as error:
        # one order that cannot be helped now must not keep the others waiting
        _log.warning("a step stays due", order_id=due[0].order_id, reason=error.reason)
        await _put_off(shop, tenant_id, due, why=error.message)
    except Exception as error:  # noqa: BLE001 - nor must a broken one, or end the process
        _log.error("a step stays due", order_id=due[0].order_id, exc_info=error)
        await _put_off(shop, tenant_id, due, why=repr(error))


async def _put_off(shop: Shop, tenant_id: str, due: Sequence[Step], *, why: str) -> None:
    """What stays waits for its own time: else as many as a round takes would hide all others. Never a DomainError."""

    async def write(connection: Connection) -> None:
        for step in due:
            await steps.failed(connection, tenant_id, step, error=why)

    try:
        await shop.database.run(tenant_id, write)
    except DomainError as error:
        _log.warning("a step is not put off", order_id=due[0].order_id, reason=error.reason)


_DUE: Final = frozenset({StepState.CAPTURE_DUE, StepState.VOID_DUE})


async def _hold(shop: Shop, call: Call, step: Step, order: Order) -> None:
    if step.kind is StepKind.POINTS:
        await shop.peers.points.hold(call, step)
    else:
        await shop.peers.offers.hold(call, step, occurred_at=order.occurred_at)


async def _resolve(shop: Shop, call: Call, step: Step) -> tuple[StepEvent | None, str]:
    """What became of the step; None with an error's text where it must be tried again."""
    peer = shop.peers.points if step.kind is StepKind.POINTS else shop.peers.offers
    capturing = step.state is StepState.CAPTURE_DUE
    try:
        await (peer.capture(call, step) if capturing else peer.void(call, step))
    except (Refused, Missing, AlreadyExists) as refusal:
        if capturing and refusal.reason == "HOLD_CAPTURED":
            return StepEvent.CAPTURE_DONE, ""
        if refusal.reason in _GONE:
            return (StepEvent.CAPTURE_IMPOSSIBLE if capturing else StepEvent.VOID_DONE), refusal.message
        _log.error("a peer refuses what is due", order_id=step.order_id, step=step.kind.name, reason=refusal.reason)
        return None, refusal.message
    except DomainError as error:
        return None, error.message
    return (StepEvent.CAPTURE_DONE if capturing else StepEvent.VOID_DONE), ""


async def _lose(connection: Connection, shop: Shop, call: Call, step: Step) -> None:
    """A hold that was gone when its paid order came to capture it: the goods are sold, a person must see it, once."""
    lost_now = (step.kind, step.state, advance(step.state, StepEvent.CAPTURE_IMPOSSIBLE))
    if not await steps.move(connection, call.tenant_id, step.order_id, [lost_now]):
        return  # who tried it at the same moment has told it
    stored = (await orders.find(connection, call.tenant_id, [step.order_id]))[step.order_id]
    _log.error("a hold was lost", order_id=step.order_id, step=step.kind.name)
    lost = SaleException(
        exception_id=new_id(),
        reason=Difference.HOLD_LOST,
        order_id=step.order_id,
        line_id="",
        difference=step.points
        or sum(use.amount_minor for use in step.coupons) + sum(use.amount_minor for use in step.budgets),
        detail=f"the hold of {step.kind.name.lower()} had expired when the paid order came to spend it",
        posted_at=shop.now(),
    )
    await order_lists.add_exceptions(connection, call.tenant_id, stored.order.store_id, [lost])
