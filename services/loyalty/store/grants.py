"""Grants outside an order: many calls' in one statement, which is one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from services.loyalty.domain.grants import Granted, GrantKind, Grants, GrantsAsked, GrantTerms
from services.loyalty.domain.points import Accrued, BalanceTooLarge, refusal, reused
from services.loyalty.store import batches
from services.runtime.database import Connection, Lane, raw, sqlstate_of
from services.runtime.errors import Conflict, DomainError
from services.runtime.ids import new_id

# up to a quarter of a batch's grants may be a member's second ones and go in a transaction of their own
FEW_REPEATED = 4
# numeric_value_out_of_range
_OVERFLOW = "22003"

_ACCRUE = """
    SELECT again, reused, entry_ids::text[], before, available, repaid
    FROM accrue($1::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::smallint[], $12, string_to_array($13, ' '),
                $14, $15::uuid[], $16::uuid[], $17::text::bigint[], $18, $19, $20::uuid[], $21, $22, $23)
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


@dataclass(frozen=True, slots=True)
class GrantLedger:
    """Posts grants, told by one event of each of the `partitions` that a transaction touches.

    It knows which tenants repeat requests at this moment: a batch of theirs is looked up first, and not posted in vain.
    """

    partitions: int
    _repeating: set[str] = field(default_factory=set)

    async def post(self, lane: Lane, tenant_id: str, bundles: Sequence[Grants]) -> list[Granted]:
        """Posts what several calls grant, in one transaction, or a few where members repeat.

        A request id that came before gets its first verdict, or REQUEST_ID_REUSED. What no balance can hold is refused
        if it comes alone; else all fails, to be run again in halves.
        """
        grants = Grants.joined(bundles)
        try:
            granted = await self._post(lane, tenant_id, grants)
        except Exception as error:
            if len(grants) == 1 and sqlstate_of(error) == _OVERFLOW:
                return [Granted.of([BalanceTooLarge()])]
            raise
        if len(bundles) == 1:
            return [granted]
        parts: list[Granted] = []
        end = 0
        for bundle in bundles:
            start, end = end, end + len(bundle)
            parts.append(granted.part(start, end))
        return parts

    async def _post(self, lane: Lane, tenant_id: str, grants: Grants) -> Granted:
        turns = _turns(grants.asked.member_ids)
        return Granted.placed(
            [
                (places, await self._run(lane, tenant_id, grants.pick(places), is_distinct=is_distinct))
                for places, is_distinct in turns
            ]
        )

    async def _run(self, lane: Lane, tenant_id: str, grants: Grants, *, is_distinct: bool) -> Granted:
        asked = grants.asked
        firsts = _repeats(grants)
        parameters = _parameters(tenant_id, grants, firsts, is_distinct=is_distinct, partitions=self.partitions)
        row = None
        if firsts is None and tenant_id not in self._repeating:
            row = await batches.run(lane, _ACCRUE, *parameters, None, None)
        if row is None or row[0]:
            row = await batches.run(lane, _ACCRUE, *parameters, grants.partitions, grants.event_parts)
            self._saw(tenant_id, repeated=not set(row[2] or ()).issubset(grants.entry_ids))
        _again, was_reused, entry_ids, before, available, repaid = row
        if before is not None:
            available = [left + granted for left, granted in zip(before, asked.points, strict=True)]
        if repaid is None:
            repaid = [0] * len(grants)
        if entry_ids is None:
            return Granted(entry_ids=grants.entry_ids, available=available, repaid=repaid)
        refusals = await self._refused(lane, tenant_id, grants, entry_ids) if None in entry_ids else {}
        for place in compress(range(len(grants)), was_reused):
            refusals[place] = reused(asked.request_ids[place])
        return Granted(
            entry_ids=[entry_id or "" for entry_id in entry_ids],
            available=[left or 0 for left in available],
            repaid=[paid or 0 for paid in repaid],
            refusals=refusals,
        )

    async def _refused(
        self, lane: Lane, tenant_id: str, grants: Grants, entry_ids: Sequence[str | None]
    ) -> dict[int, DomainError]:
        """Those that were refused before, in a day's memory: by a programme of then, so nothing here could tell."""
        clients, request_ids = grants.client_ids(), grants.asked.request_ids
        async with lane.transaction(tenant_id) as connection:
            rows = await connection.fetch(_TOLD, tenant_id, clients, request_ids)
        reasons = {(row[0], row[1]): row[3] for row in rows if row[3]}
        return {
            place: _refusal(reasons.get((clients[place], request_ids[place])), grants.asked.kind(place))
            for place, entry_id in enumerate(entry_ids)
            if entry_id is None
        }

    def _saw(self, tenant_id: str, *, repeated: bool) -> None:
        if repeated:
            self._repeating.add(tenant_id)
        else:
            self._repeating.discard(tenant_id)


async def refuse(
    connection: Connection, tenant_id: str, client_id: str, asked: GrantsAsked, reasons: Sequence[str]
) -> None:
    """Stores refusals (by their reasons) for 24 hours; a request that was answered before keeps its answer."""
    await raw(connection).execute(_REFUSE, tenant_id, client_id, asked.request_ids, asked.fingerprints, list(reasons))


async def told(
    connection: Connection, tenant_id: str, client_id: str, asked: GrantsAsked
) -> dict[int, Accrued | DomainError]:
    """What those of the grants were told, by their places, whose request ids were answered before."""
    ids = sorted(set(asked.request_ids))
    rows = await raw(connection).fetch(_TOLD, tenant_id, [client_id for _ in ids], ids)
    stored = {row[1]: row[2:] for row in rows}
    verdicts: dict[int, Accrued | DomainError] = {}
    for place, (request_id, own) in enumerate(zip(asked.request_ids, asked.fingerprints, strict=True)):
        if request_id in stored:
            fingerprint, reason, entry_id, available, repaid = stored[request_id]
            if fingerprint != own:
                verdicts[place] = reused(request_id)
            elif reason:
                verdicts[place] = _refusal(reason, asked.kind(place))
            else:
                verdicts[place] = Accrued(entry_id, available, repaid)
    return verdicts


def _turns(member_ids: Sequence[str]) -> list[tuple[Sequence[int], bool]]:
    """The places of the grants that go together, and whether each of them is of another member.

    The first of each member go the short way, in the order of their members, since accounts are locked in one order;
    the others follow. Where members repeat much, all go together.
    """
    turns: list[tuple[Sequence[int], bool]] = []
    left: Sequence[int] = range(len(member_ids))
    while left:
        places: dict[str, int] = {}
        repeated = [place for place in left if places.setdefault(member_ids[place], place) != place]
        if len(repeated) > len(left) // FEW_REPEATED:
            return [*turns, (left, False)]
        turns.append(([places[member_id] for member_id in sorted(places)], True))
        left = repeated
    return turns


def _parameters(
    tenant_id: str,
    grants: Grants,
    firsts: Sequence[bool] | None,
    *,
    is_distinct: bool,
    partitions: int,
) -> tuple[Any, ...]:
    asked = grants.asked
    # the terms' numbers, counted from 1 as Postgres does
    numbers: dict[GrantTerms, int] = {}
    of_kind = {kind: numbers.setdefault(terms, len(numbers) + 1) for kind, terms in grants.terms.items()}
    occurred = [kind.occurred_at for kind in asked.kinds]
    return (
        tenant_id,
        grants.now,
        grants.trace,
        *map(list, zip(*numbers, strict=True)),
        _numbers([of_kind[kind] for kind in asked.which]),
        # an array of nothing but the usual is not sent: each costs a grant 1 µs
        firsts,
        # request ids have no spaces: the driver takes a text for a third of what an array of texts takes it
        " ".join(asked.request_ids),
        asked.fingerprints,
        asked.member_ids,
        grants.entry_ids,
        _numbers(asked.points),
        [occurred[kind] for kind in asked.which] if any(occurred) else None,
        is_distinct,
        [new_id() for _ in range(partitions)],
        _joined(grants, partitions=partitions),
    )


def _repeats(grants: Grants) -> list[bool] | None:
    """Which grants are the first of their request; None where all are."""
    request_ids = grants.asked.request_ids
    if len(set(request_ids)) == len(request_ids):
        return None
    firsts = batches.firsts(grants.client_ids(), request_ids)
    return None if all(firsts) else firsts


def _numbers(numbers: Sequence[int]) -> str:
    """The numbers as Postgres writes an array of them: the driver looks twice at each element of a list."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _joined(grants: Grants, *, partitions: int) -> list[bytes | None]:
    """What the grants of each partition tell together; None where there are none."""
    parts: list[list[bytes]] = [[] for _ in range(partitions)]
    for partition, part in zip(grants.partitions, grants.event_parts, strict=True):
        parts[partition].append(part)
    return [b"".join(part) or None for part in parts]


def _refusal(reason: str | None, kind: GrantKind) -> DomainError:
    """The stored refusal of a grant: its reason is stored, and its names are those of the same body."""
    if reason is None:
        # the sweeper has dropped it since: its day is over, and the next call is a new one
        return Conflict("the stored refusal of this request ran out at this moment; try again")
    return refusal(reason, name=kind.point_currency if reason == "PROGRAMME_NOT_FOUND" else kind.expiry_class)
