"""The ledger's batch functions: one statement, one transaction, one verdict an item."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.loyalty.domain.points import Accrued, Balance, BalanceTooLarge, Hold, HoldState, refusal, reused
from services.loyalty.domain.requests import BalanceAsked, Grant, GrantAsked, GrantTerms, HoldAsked, ResolveAsked
from services.runtime.database import Connection, Lane, constraint_of, raw, sqlstate_of
from services.runtime.errors import Conflict, DomainError
from services.runtime.holds import TOMBSTONE_KEPT
from services.runtime.ids import new_id

# up to a quarter of a batch's grants may be a member's second ones and go in a transaction of their own
FEW_REPEATED = 4
_RACES = frozenset({"holds_pkey", "point_requests_pkey"})
# numeric_value_out_of_range
_OVERFLOW = "22003"

_ACCRUE = """
    SELECT again, reused, entry_ids::text[], before, available, repaid
    FROM accrue($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::smallint[], $12, string_to_array($13, ' '),
                $14, $15::uuid[], $16::uuid[], $17::text::bigint[], $18, $19, $20::uuid[], $21, $22, $23)
"""
_HOLD = """
    SELECT reused, refusals, available, expires
    FROM hold_points($1::uuid, $2, $3, $4, $5, $6, $7, $8::uuid[], $9, $10, $11, $12, $13, $14)
"""
_RESOLVE = """
    SELECT reused, refusals, states, held, captured, expires
    FROM resolve_holds($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_BALANCES = """
    SELECT available, pending, held, debt, next_expiry, next_points
    FROM balances($1::uuid, $2, $3::uuid[], $4)
"""
_TOLD = """
    SELECT w.client_id, w.request_id, q.fingerprint, q.refusal, q.entry_id::text, q.available_points, q.repaid_points
    FROM unnest($2::text[], $3::text[]) AS w(client_id, request_id)
    CROSS JOIN LATERAL (
        SELECT * FROM point_requests AS r
        WHERE r.tenant_id = $1::uuid AND r.client_id = w.client_id AND r.family = 'loyalty.accrue'
          AND r.request_id = w.request_id
        LIMIT 1
    ) AS q
"""
# whatever was answered before stays; in order, as two bundles may have the same requests
_REFUSE = """
    INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, refusal)
    SELECT $1::uuid, $2, 'loyalty.accrue', i.request_id, i.print, i.refusal
    FROM unnest($3::text[], $4::bytea[], $5::text[]) AS i(request_id, print, refusal)
    ORDER BY i.request_id
    ON CONFLICT (tenant_id, request_id, client_id, family) DO NOTHING
"""
_CLASS = "SELECT class_for($1::uuid, $2, $3, $4, $5)"


@dataclass(slots=True)
class Repeating:
    """Which tenants repeat requests at this moment: a batch of theirs is looked up first, and not posted in vain."""

    _tenants: set[str] = field(default_factory=set)

    def expects(self, tenant_id: str) -> bool:
        """Whether the tenant's batch before this one had requests that were answered before."""
        return tenant_id in self._tenants

    def saw(self, tenant_id: str, *, repeated: bool) -> None:
        """What a batch turned out to have."""
        if repeated:
            self._tenants.add(tenant_id)
        else:
            self._tenants.discard(tenant_id)


async def accrue(
    lane: Lane, tenant_id: str, grants: Sequence[Grant], *, partitions: int, repeating: Repeating | None = None
) -> list[Accrued | DomainError]:
    """Posts the grants in one transaction, or a few where members repeat, each told by one event a partition.

    A request id that came before gets its first verdict, or REQUEST_ID_REUSED. What no balance can hold is refused if
    it comes alone; else all fails, to be run again in halves."""
    try:
        return await _accrue_all(lane, tenant_id, grants, partitions, repeating or Repeating())
    except Exception as error:
        if len(grants) == 1 and sqlstate_of(error) == _OVERFLOW:
            return [BalanceTooLarge()]
        raise


async def _accrue_all(
    lane: Lane, tenant_id: str, grants: Sequence[Grant], partitions: int, repeating: Repeating
) -> list[Accrued | DomainError]:
    places: dict[str, int] = {}
    repeated: list[int] = []
    for i, grant in enumerate(grants):
        if places.setdefault(grant.asked.member_id, i) != i:
            repeated.append(i)
    if len(repeated) > len(grants) // FEW_REPEATED:
        return await _accrue(lane, tenant_id, grants, partitions, repeating, is_distinct=False)
    # the first of each member go the short way, sorted here, since accounts are locked in one order; the others follow
    order = [places[member_id] for member_id in sorted(places)]
    firsts = await _accrue(lane, tenant_id, [grants[i] for i in order], partitions, repeating, is_distinct=True)
    verdicts = dict(zip(order, firsts, strict=True))
    if repeated:
        later = await _accrue_all(lane, tenant_id, [grants[i] for i in repeated], partitions, repeating)
        verdicts.update(zip(repeated, later, strict=True))
    return [verdicts[i] for i in range(len(grants))]


async def _accrue(
    lane: Lane, tenant_id: str, grants: Sequence[Grant], partitions: int, repeating: Repeating, *, is_distinct: bool
) -> list[Accrued | DomainError]:
    asked = [grant.asked for grant in grants]
    request_ids = [ask.request_id for ask in asked]
    # the terms' places, counted from 1 as Postgres does
    terms: dict[GrantTerms, int] = {}
    places = [terms.setdefault(grant.terms, len(terms) + 1) for grant in grants]
    occurred = [ask.occurred_at for ask in asked]
    points = [ask.points for ask in asked]
    firsts = _repeats(grants, request_ids)
    parameters = (
        tenant_id,
        max(grant.now for grant in grants),
        grants[0].trace,
        *map(list, zip(*terms, strict=True)),
        _numbers(places),
        # an array of nothing but the usual is not sent: each costs a grant 1 µs
        firsts,
        # request ids have no spaces: the driver takes a text for a third of what an array of texts takes it
        " ".join(request_ids),
        [ask.fingerprint for ask in asked],
        [ask.member_id for ask in asked],
        [grant.entry_id for grant in grants],
        _numbers(points),
        occurred if any(occurred) else None,
        is_distinct,
        [new_id() for _ in range(partitions)],
        _joined(grants, partitions=partitions),
    )
    if firsts is None and not repeating.expects(tenant_id):
        row = await _run(lane, _ACCRUE, *parameters, None, None)
    else:
        row = [True]
    if row[0]:
        own = ([grant.partition for grant in grants], [grant.event_part for grant in grants])
        row = await _run(lane, _ACCRUE, *parameters, *own)
        repeating.saw(tenant_id, repeated=row[2] is not None)
    _again, was_reused, entry_ids, before, available, repaid = row
    if before is not None:
        available = [left + granted for left, granted in zip(before, points, strict=True)]
    if entry_ids is None and repaid is None:
        return [Accrued(grant.entry_id, left, 0) for grant, left in zip(grants, available, strict=True)]
    refusals: dict[tuple[str, str], str] = {}
    if entry_ids and None in entry_ids:
        # refused before, in a day's memory: by a programme of then, so that nothing here could tell
        async with lane.transaction(tenant_id) as connection:
            rows = await connection.fetch(_TOLD, tenant_id, [grant.terms.client_id for grant in grants], request_ids)
        refusals = {(row[0], row[1]): row[3] for row in rows if row[3]}
    return [
        reused(request_ids[i])
        if was_reused and was_reused[i]
        else _grant_refusal(refusals.get((grant.terms.client_id, request_ids[i])), asked[i])
        if entry_ids and entry_ids[i] is None
        else Accrued(entry_ids[i] if entry_ids else grant.entry_id, available[i], (repaid[i] or 0) if repaid else 0)
        for i, grant in enumerate(grants)
    ]


async def refuse(
    connection: Connection, tenant_id: str, client_id: str, refused: Sequence[tuple[GrantAsked, str]]
) -> None:
    """Stores refusals (by their reasons) for 24 hours; a request that was answered before keeps its answer."""
    await raw(connection).execute(
        _REFUSE,
        tenant_id,
        client_id,
        [ask.request_id for ask, _ in refused],
        [ask.fingerprint for ask, _ in refused],
        [reason for _, reason in refused],
    )


async def told(
    connection: Connection, tenant_id: str, client_id: str, asked: Sequence[GrantAsked]
) -> dict[str, tuple[bytes, Accrued | DomainError]]:
    """What those of the grants were told that were answered before, by request id: fingerprint and verdict."""
    bodies = {(ask.request_id, ask.fingerprint): ask for ask in asked}
    ids = sorted({ask.request_id for ask in asked})
    rows = await raw(connection).fetch(_TOLD, tenant_id, [client_id for _ in ids], ids)
    verdicts: dict[str, tuple[bytes, Accrued | DomainError]] = {}
    for _, request_id, fingerprint, reason, entry_id, available, repaid in rows:
        body = bodies.get((request_id, fingerprint))
        verdicts[request_id] = (
            fingerprint,
            reused(request_id)
            if body is None
            else _grant_refusal(reason, body)
            if reason
            else Accrued(entry_id, available, repaid),
        )
    return verdicts


def _grant_refusal(reason: str | None, asked: GrantAsked) -> DomainError:
    """The stored refusal of a grant: its reason is stored, and its names are those of the same body."""
    if reason is None:
        # the sweeper has dropped it since: its day is over, and the next call is a new one
        return Conflict("the stored refusal of this request ran out at this moment; try again")
    return refusal(reason, name=asked.point_currency if reason == "PROGRAMME_NOT_FOUND" else asked.expiry_class)


def _repeats(grants: Sequence[Grant], request_ids: Sequence[str]) -> list[bool] | None:
    """Which grants are the first of their request; None where all are."""
    if len(set(request_ids)) == len(request_ids):
        return None
    firsts = _firsts([grant.terms.client_id for grant in grants], request_ids)
    return None if all(firsts) else firsts


def _numbers(numbers: Sequence[int]) -> str:
    """The numbers as Postgres writes an array of them: the driver looks twice at each element of a list."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _joined(grants: Sequence[Grant], *, partitions: int) -> list[bytes | None]:
    """What the grants of each partition tell together; None where there are none."""
    parts: list[list[bytes]] = [[] for _ in range(partitions)]
    for grant in grants:
        parts[grant.partition].append(grant.event_part)
    return [b"".join(part) or None for part in parts]


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
    row = await _run(
        lane,
        _HOLD,
        tenant_id,
        max(ask.now for ask in holds),
        _firsts(clients, request_ids),
        clients,
        request_ids,
        [ask.fingerprint for ask in holds],
        [ask.hold_id for ask in holds],
        [ask.member_id for ask in holds],
        [ask.point_currency for ask in holds],
        [ask.points for ask in holds],
        [ask.expires_at for ask in holds],
        [ask.order_id or None for ask in holds],
        [ask.is_too_old for ask in holds],
        [None for _ in holds],
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
            expires_at=expires[i],
            available_points=available[i],
        )
        for i, ask in enumerate(holds)
    ]


async def resolve(
    lane: Lane, tenant_id: str, asked: Sequence[ResolveAsked], *, machine_now: datetime
) -> list[Hold | DomainError]:
    """Captures and voids; a hold past its time to live expires and is refused."""
    row = await _run(
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
            next_expiry_at=next_expiry[i],
            next_expiry_points=next_points[i],
        )
        for i in range(len(asked))
    ]


async def class_no(
    connection: Connection, tenant_id: str, *, point_currency: str, funder: str, expiry_class: str, expiry_rule: str
) -> int:
    """The number of a class of points, made when first asked for, the same for ever."""
    number: int = await raw(connection).fetchval(_CLASS, tenant_id, point_currency, funder, expiry_class, expiry_rule)
    return number


async def _run(lane: Lane, statement: str, *parameters: Any) -> Any:
    """The row of a batch's verdicts. Raises Conflict if a request or hold of it came elsewhere at this moment."""
    try:
        (row,) = await lane.fetch(statement, *parameters)
    except Exception as error:
        # looked for before the other committed, and written after: whoever runs again finds it
        if constraint_of(error) in _RACES:
            raise Conflict("another call has this request or hold at this moment; try again") from error
        raise
    return row


def _later_of_a_name(holds: Sequence[HoldAsked]) -> set[int]:
    """The items whose hold another request of the batch asked for before."""
    names: dict[tuple[str, str], str] = {}
    return {
        i
        for i, ask in enumerate(holds)
        if names.setdefault((ask.client_id, ask.hold_id), ask.request_id) != ask.request_id
    }


def _firsts(clients: Sequence[str], request_ids: Sequence[str]) -> list[bool]:
    """Which items are the first of their request in the batch."""
    seen: set[tuple[str, str]] = set()
    firsts = []
    for key in zip(clients, request_ids, strict=True):
        firsts.append(key not in seen)
        seen.add(key)
    return firsts
