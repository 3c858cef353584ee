"""The saga's rows: who holds what for an order, and what is due."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.commerce.domain.saga import BudgetUse, CouponUse, Step, StepKind, StepState, retry_after_s
from services.runtime.database import Connection, raw
from services.runtime.ids import OrderId

_COLUMNS = """
    s.order_id::text, s.kind, s.state, coalesce(s.member_id::text, '') AS member_id, s.point_currency, s.points,
    s.coupons, s.budgets, s.ttl_s, s.attempts,
    (SELECT o.placed_at FROM orders AS o WHERE o.tenant_id = s.tenant_id AND o.order_id = s.order_id) AS issued_at
"""
_INSERT = """
    INSERT INTO order_steps (tenant_id, order_id, kind, state, member_id, point_currency, points, coupons, budgets,
                             ttl_s)
    SELECT $1::uuid, $2::uuid, n.kind, n.state, n.member_id, n.point_currency, n.points, n.coupons::jsonb,
           n.budgets::jsonb, n.ttl_s
    FROM unnest($3::smallint[], $4::smallint[], $5::uuid[], $6::text[], $7::bigint[], $8::text[], $9::text[],
                $10::integer[])
         AS n(kind, state, member_id, point_currency, points, coupons, budgets, ttl_s)
"""
_OF_ORDER = f"""
    SELECT {_COLUMNS}
    FROM order_steps AS s
    WHERE s.tenant_id = $1::uuid AND s.order_id = $2::uuid
    ORDER BY s.kind
"""
# only from the state in which it was seen: a step that somebody else has moved stays as it is
_MOVE = """
    UPDATE order_steps AS s
    SET state = m.after, due_at = now(), last_error = NULL
    FROM unnest($3::smallint[], $4::smallint[], $5::smallint[]) AS m(kind, before, after)
    WHERE s.tenant_id = $1::uuid AND s.order_id = $2::uuid AND s.kind = m.kind AND s.state = m.before
"""
_FAILED = """
    UPDATE order_steps
    SET attempts = attempts + 1, due_at = now() + make_interval(secs => $4), last_error = $5
    WHERE tenant_id = $1::uuid AND order_id = $2::uuid AND kind = $3 AND state IN (3, 4)
"""
# over all tenants; a call that is still on its way finishes its own steps within the delay
_DUE = f"""
    SELECT s.tenant_id::text, {_COLUMNS}
    FROM order_steps AS s
    WHERE s.state IN (3, 4) AND s.due_at <= now() - make_interval(secs => $1)
    ORDER BY s.due_at
    LIMIT $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueStep:
    """A step that a dead or hurried orchestrator left behind."""

    tenant_id: str
    step: Step


async def insert(connection: Connection, tenant_id: str, order_id: OrderId, steps: Sequence[Step]) -> None:
    """Writes the steps of a new order."""
    if not steps:
        return
    await raw(connection).execute(
        _INSERT,
        tenant_id,
        order_id,
        [step.kind for step in steps],
        [step.state for step in steps],
        [step.member_id or None for step in steps],
        [step.point_currency for step in steps],
        [step.points for step in steps],
        [json.dumps([[use.coupon_id, use.amount_minor] for use in step.coupons]) for step in steps],
        [json.dumps([[use.promotion_id, use.amount_minor] for use in step.budgets]) for step in steps],
        [step.ttl_s for step in steps],
    )


async def of_order(connection: Connection, tenant_id: str, order_id: OrderId) -> tuple[Step, ...]:
    """The order's steps."""
    return tuple(_step(row) for row in await raw(connection).fetch(_OF_ORDER, tenant_id, order_id))


async def move(
    connection: Connection, tenant_id: str, order_id: OrderId, moves: Sequence[tuple[StepKind, StepState, StepState]]
) -> int:
    """Moves steps (kind, before, after); answers how many were still where they were seen."""
    if not moves:
        return 0
    status = await raw(connection).execute(
        _MOVE,
        tenant_id,
        order_id,
        [kind for kind, _, _ in moves],
        [before for _, before, _ in moves],
        [after for _, _, after in moves],
    )
    return int(status.rpartition(" ")[2])


async def failed(connection: Connection, tenant_id: str, step: Step, *, error: str) -> None:
    """Notes that a due step could not be done, and when it is tried again."""
    await raw(connection).execute(
        _FAILED, tenant_id, step.order_id, step.kind, float(retry_after_s(step.attempts)), error[:200]
    )


async def due(connection: Connection, *, after_s: float, limit: int) -> tuple[DueStep, ...]:
    """Steps that have been due for `after_s`, oldest first, over all tenants; on the system role."""
    rows = await raw(connection).fetch(_DUE, after_s, limit)
    return tuple(DueStep(tenant_id=row["tenant_id"], step=_step(row)) for row in rows)


def _step(row: Any) -> Step:
    return Step(
        order_id=row["order_id"],
        kind=StepKind(row["kind"]),
        state=StepState(row["state"]),
        issued_at=row["issued_at"],
        member_id=row["member_id"],
        point_currency=row["point_currency"],
        points=row["points"],
        coupons=tuple(CouponUse(coupon_id=each[0], amount_minor=int(each[1])) for each in row["coupons"]),
        budgets=tuple(BudgetUse(promotion_id=each[0], amount_minor=int(each[1])) for each in row["budgets"]),
        ttl_s=row["ttl_s"],
        attempts=row["attempts"],
    )
