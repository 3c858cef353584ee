"""Tier counters by day, standings, and their changes."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple

from services.loyalty.domain.tiers import Change, Counters, Standing, Window
from services.runtime.database import Connection, raw


class Account(NamedTuple):
    """Whose tier: a member in one programme."""

    member_id: str
    point_currency: str


class Day(NamedTuple):
    """A counter's bucket."""

    account: Account
    day: date


_STANDINGS = """
    SELECT m.member_id::text, m.point_currency, m.tier_id, m.since, m.until, m.tier_version
    FROM unnest($2::uuid[], $3::text[]) AS x(member_id, point_currency)
    CROSS JOIN LATERAL (
        SELECT * FROM member_tiers AS t
        WHERE t.tenant_id = $1::uuid AND t.member_id = x.member_id AND t.point_currency = x.point_currency
        LIMIT 1
    ) AS m
"""
# the sweeper, which locks no account, judges a standing at the same moment: who writes it again has to see its verdict
_LOCK_STANDINGS = _STANDINGS.replace("LIMIT 1", "LIMIT 1 FOR UPDATE")
_COUNTERS = """
    SELECT x.member_id::text, x.point_currency, c.amount_minor, c.orders, c.activity
    FROM unnest($2::uuid[], $3::text[], $4::date[], $5::date[]) AS x(member_id, point_currency, first, last)
    CROSS JOIN LATERAL (
        SELECT least(coalesce(sum(d.amount_minor), 0), 9e18)::bigint AS amount_minor,
               coalesce(sum(d.orders), 0)::bigint AS orders,
               coalesce(sum(d.activity), 0)::bigint AS activity
        FROM tier_days AS d
        WHERE d.tenant_id = $1::uuid AND d.member_id = x.member_id AND d.point_currency = x.point_currency
          AND d.day BETWEEN x.first AND x.last
    ) AS c
"""
# the deltas of a batch are summed before, so that a day is touched once; a count below zero is refused by its CHECK.
# An amount ends at 9e18 and at zero: an absurd sale must not fail, and park what follows it of its brand.
_RAISE = """
    INSERT INTO tier_days AS d (tenant_id, member_id, point_currency, day, amount_minor, orders)
    SELECT $1::uuid, x.member_id, x.point_currency, x.day, x.amount_minor, x.orders
    FROM unnest($2::uuid[], $3::text[], $4::date[], $5::bigint[], $6::bigint[])
         AS x(member_id, point_currency, day, amount_minor, orders)
    ON CONFLICT (tenant_id, member_id, point_currency, day)
    DO UPDATE SET amount_minor = least(d.amount_minor + excluded.amount_minor::numeric, 9e18)::bigint,
                  orders = d.orders + excluded.orders
"""
# a lowered bucket exists; after a merge it is the survivor's
_LOWER = """
    UPDATE tier_days AS d
    SET amount_minor = greatest(d.amount_minor + x.amount_minor, 0), orders = d.orders + x.orders
    FROM unnest($2::uuid[], $3::text[], $4::date[], $5::bigint[], $6::bigint[])
         AS x(member_id, point_currency, day, amount_minor, orders)
    WHERE d.tenant_id = $1::uuid AND d.member_id = x.member_id AND d.point_currency = x.point_currency
      AND d.day = x.day
"""
_STORE = """
    INSERT INTO member_tiers AS m (tenant_id, member_id, point_currency, tier_id, since, until, tier_version)
    VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant_id, member_id, point_currency)
    DO UPDATE SET tier_id = excluded.tier_id, since = excluded.since, until = excluded.until,
                  tier_version = excluded.tier_version
"""
_NOTE = """
    INSERT INTO tier_changes (tenant_id, member_id, point_currency, tier_version, from_tier_id, to_tier_id, changed_at,
                              why)
    VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8)
"""
_CHANGES = """
    SELECT tier_version, from_tier_id, to_tier_id, changed_at, why
    FROM tier_changes
    WHERE tenant_id = $1::uuid AND member_id = $2::uuid AND point_currency = $3 AND tier_version < $4
    ORDER BY tier_version DESC
    LIMIT $5
"""
# those that another process judges are skipped
_DUE = """
    SELECT member_id::text, point_currency, tier_id, since, until, tier_version
    FROM member_tiers
    WHERE tenant_id = $1::uuid AND until <= $2
    ORDER BY until
    LIMIT $3
    FOR UPDATE SKIP LOCKED
"""
_MERGE_DAYS = """
    WITH moved AS (
        DELETE FROM tier_days WHERE tenant_id = $1::uuid AND member_id = $2::uuid
        RETURNING point_currency, day, amount_minor, orders, activity
    )
    INSERT INTO tier_days AS d (tenant_id, member_id, point_currency, day, amount_minor, orders, activity)
    SELECT $1::uuid, $3::uuid, point_currency, day, amount_minor, orders, activity FROM moved
    ON CONFLICT (tenant_id, member_id, point_currency, day)
    DO UPDATE SET amount_minor = least(d.amount_minor + excluded.amount_minor::numeric, 9e18)::bigint,
                  orders = d.orders + excluded.orders,
                  activity = d.activity + excluded.activity
    RETURNING d.point_currency
"""
_DROP_STANDING = """
    DELETE FROM member_tiers WHERE tenant_id = $1::uuid AND member_id = $2::uuid
    RETURNING member_id::text, point_currency, tier_id, since, until, tier_version
"""


async def standings(
    connection: Connection, tenant_id: str, accounts: Sequence[Account], *, lock: bool = False
) -> dict[Account, Standing]:
    """The standings that are stored, locked for who is to write them; who has none is in the lowest tier."""
    rows = await raw(connection).fetch(_LOCK_STANDINGS if lock else _STANDINGS, tenant_id, *_split(accounts))
    return {Account(row[0], row[1]): _standing(row) for row in rows}


async def counters(
    connection: Connection, tenant_id: str, windows: Mapping[Account, Window]
) -> dict[Account, Counters]:
    """What counts within each account's window."""
    rows = await raw(connection).fetch(
        _COUNTERS,
        tenant_id,
        *_split(list(windows)),
        [window.first for window in windows.values()],
        [window.last for window in windows.values()],
    )
    return {Account(row[0], row[1]): Counters(amount_minor=row[2], orders=row[3], activity=row[4]) for row in rows}


async def raise_days(connection: Connection, tenant_id: str, days: Mapping[Day, Counters]) -> None:
    """Adds to the buckets, in one order over all of them."""
    await _change_days(connection, tenant_id, days, _RAISE)


async def lower_days(connection: Connection, tenant_id: str, days: Mapping[Day, Counters]) -> None:
    """Adds negative counters to buckets that exist."""
    await _change_days(connection, tenant_id, days, _LOWER)


async def store(
    connection: Connection,
    tenant_id: str,
    standing: Mapping[Account, Standing],
    changes: Sequence[tuple[Account, int, Change]],
) -> None:
    """Stores standings and notes the changes: (account, version, change)."""
    driver = raw(connection)
    await driver.executemany(
        _STORE,
        [
            (tenant_id, *account, now.tier_id, now.since, now.until, now.version)
            for account, now in sorted(standing.items())
        ],
    )
    await driver.executemany(
        _NOTE,
        [
            (tenant_id, *account, version, each.from_tier_id, each.to_tier_id, each.changed_at, each.why)
            for account, version, each in changes
        ],
    )


async def changes_of(
    connection: Connection, tenant_id: str, account: Account, *, before: int, limit: int
) -> list[tuple[int, Change]]:
    """The account's changes, newest first, with their versions, all below `before`."""
    rows = await raw(connection).fetch(_CHANGES, tenant_id, *account, before, limit)
    return [
        (
            row["tier_version"],
            Change(
                from_tier_id=row["from_tier_id"],
                to_tier_id=row["to_tier_id"],
                changed_at=row["changed_at"],
                why=row["why"],
            ),
        )
        for row in rows
    ]


async def due(connection: Connection, tenant_id: str, now: datetime, *, limit: int) -> dict[Account, Standing]:
    """Standings whose time is over, locked."""
    rows = await raw(connection).fetch(_DUE, tenant_id, now, limit)
    return {Account(row[0], row[1]): _standing(row) for row in rows}


async def merge(connection: Connection, tenant_id: str, *, alias_id: str, member_id: str) -> dict[str, Standing | None]:
    """Adds the alias's buckets to the survivor's. Returns the currencies that this concerns, each with the alias's
    standing, which is no more; None for the lowest."""
    driver = raw(connection)
    moved = await driver.fetch(_MERGE_DAYS, tenant_id, alias_id, member_id)
    dropped = await driver.fetch(_DROP_STANDING, tenant_id, alias_id)
    return dict.fromkeys(sorted(row[0] for row in moved)) | {row[1]: _standing(row) for row in dropped}


async def _change_days(connection: Connection, tenant_id: str, days: Mapping[Day, Counters], statement: str) -> None:
    ordered = sorted(day for day, delta in days.items() if delta != Counters())
    if ordered:
        await raw(connection).execute(
            statement,
            tenant_id,
            *_split([day.account for day in ordered]),
            [day.day for day in ordered],
            [days[day].amount_minor for day in ordered],
            [days[day].orders for day in ordered],
        )


def _split(accounts: Sequence[Account]) -> tuple[list[str], list[str]]:
    return [account.member_id for account in accounts], [account.point_currency for account in accounts]


def _standing(row: Sequence[object]) -> Standing:
    _, _, tier_id, since, until, version = row
    return Standing(tier_id=tier_id, since=since, until=until, version=version)  # type: ignore[arg-type]
