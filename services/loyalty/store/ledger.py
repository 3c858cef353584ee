"""The ledger's batch functions: one statement, one transaction, one verdict an item."""

from collections.abc import Sequence
from datetime import datetime

from services.loyalty.domain.points import Balance, Hold, HoldState, refusal, reused
from services.loyalty.domain.programme import NEVER
from services.loyalty.domain.requests import BalanceAsked, HoldAsked, ResolveAsked
from services.loyalty.store import batches
from services.runtime.database import Connection, Lane, raw
from services.runtime.errors import DomainError
from services.runtime.holds import TOMBSTONE_KEPT

# ids have no spaces: the driver takes a text for a third of what an array of texts takes it; an array of nothing but
# the usual is not sent
_HOLD = """
    SELECT reused, refusals, available, CASE WHEN reused IS NOT NULL THEN expires END
    FROM hold_points($1::uuid, $2, coalesce($3, array_fill(true, ARRAY[cardinality($8::uuid[])])), $4,
                     string_to_array($5, ' '), $6, string_to_array($7, ' '), $8::uuid[], $9, $10::text::bigint[], $11,
                     $12, coalesce($13, array_fill(false, ARRAY[cardinality($8::uuid[])])), NULL)
"""
_RESOLVE = """
    SELECT reused, refusals, states, held, captured, expires
    FROM resolve_holds($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_BALANCES = """
    SELECT available, pending, held, debt, next_expiry, next_points
    FROM balances($1::uuid, $2, $3::uuid[], $4)
"""
_CLASS = "SELECT class_for($1::uuid, $2, $3, $4, $5)"


async def hold(lane: Lane, tenant_id: str, holds: Sequence[HoldAsked]) -> list[Hold | DomainError]:
    """Makes the holds; each is told what is available after it, or why it is refused."""
    later = _later_of_a_name(holds)
    if later:
        # whoever comes second for a name is told that it is taken, and not what the first has left: one by one
        verdicts: list[Hold | DomainError | None] = [None] * len(holds)
        first = [i for i in range(len(holds)) if i not in later]
        for part in (first, sorted(later)):
            for i, verdict in zip(part, await hold(lane, tenant_id, [holds[i] for i in part]), strict=True):
                verdicts[i] = verdict
        return [verdict for verdict in verdicts if verdict is not None]
    clients = [ask.client_id for ask in holds]
    request_ids = [ask.request_id for ask in holds]
    orders = [ask.order_id or None for ask in holds]
    too_old = [ask.is_too_old for ask in holds]
    row = await batches.run(
        lane,
        _HOLD,
        tenant_id,
        max(ask.now for ask in holds),
        batches.firsts(clients, request_ids) if len(set(request_ids)) < len(request_ids) else None,
        clients,
        " ".join(request_ids),
        [ask.fingerprint for ask in holds],
        " ".join([ask.hold_id for ask in holds]),
        [ask.member_id for ask in holds],
        [ask.point_currency for ask in holds],
        # as Postgres writes an array: the driver looks twice at each element of a list
        "{" + ",".join([str(ask.points) for ask in holds]) + "}",
        [ask.expires_at for ask in holds],
        orders if any(orders) else None,
        too_old if any(too_old) else None,
    )
    was_reused, refusals, available, expires = row
    return [
        reused(ask.request_id)
        if was_reused and was_reused[i]
        else refusal(refusals[i], name=ask.hold_id, available_points=available[i])
        if refusals[i]
        else Hold(
            hold_id=ask.hold_id,
            state=HoldState.HELD,
            held_points=ask.points,
            captured_points=0,
            expires_at=expires[i] if expires else ask.expires_at,
            available_points=available[i],
        )
        for i, ask in enumerate(holds)
    ]


async def resolve(
    lane: Lane, tenant_id: str, asked: Sequence[ResolveAsked], *, machine_now: datetime
) -> list[Hold | DomainError]:
    """Captures and voids; a hold past its time to live expires and is refused."""
    row = await batches.run(
        lane,
        _RESOLVE,
        tenant_id,
        max(ask.now for ask in asked),
        machine_now,
        machine_now + TOMBSTONE_KEPT,
        [ask.client_id for ask in asked],
        [ask.request_id for ask in asked],
        [ask.fingerprint for ask in asked],
        [ask.hold_id for ask in asked],
        [ask.is_capture for ask in asked],
        [ask.points for ask in asked],
    )
    was_reused, refusals, states, held, captured, expires = row
    return [
        reused(ask.request_id)
        if was_reused[i]
        else refusal(refusals[i], name=ask.hold_id)
        if refusals[i]
        else Hold(
            hold_id=ask.hold_id,
            state=HoldState(states[i]),
            held_points=held[i],
            captured_points=captured[i],
            expires_at=expires[i],
        )
        for i, ask in enumerate(asked)
    ]


async def balances(lane: Lane, tenant_id: str, asked: Sequence[BalanceAsked]) -> list[Balance]:
    """The balances as of the latest of the callers' business times; what is due is posted first."""
    (row,) = await lane.fetch(
        _BALANCES,
        tenant_id,
        max(ask.now for ask in asked),
        [ask.member_id for ask in asked],
        [ask.point_currency for ask in asked],
    )
    available, pending, held, debt, next_expiry, next_points = row
    return [
        Balance(
            available_points=available[i],
            pending_points=pending[i],
            held_points=held[i],
            debt_points=debt[i],
            next_expiry_at=None if next_expiry[i] == NEVER else next_expiry[i],
            next_expiry_points=0 if next_expiry[i] == NEVER else next_points[i],
        )
        for i in range(len(asked))
    ]


async def class_no(
    connection: Connection, tenant_id: str, *, point_currency: str, funder: str, expiry_class: str, expiry_rule: str
) -> int:
    """The number of a class of points, made when first asked for, the same for ever."""
    number: int = await raw(connection).fetchval(_CLASS, tenant_id, point_currency, funder, expiry_class, expiry_rule)
    return number


def _later_of_a_name(holds: Sequence[HoldAsked]) -> set[int]:
    """The items whose hold another request of the batch asked for before."""
    names: dict[tuple[str, str], str] = {}
    return {
        i
        for i, ask in enumerate(holds)
        if names.setdefault((ask.client_id, ask.hold_id), ask.request_id) != ask.request_id
    }
