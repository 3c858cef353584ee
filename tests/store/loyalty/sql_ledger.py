"""The functions of the SQL ledger as the reference model's operations, for many members in each call."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from services.runtime.ids import new_id
from services.runtime.settings import Settings
from tests.unit.loyalty.points_model import Pool

CLOCK = datetime(2026, 6, 1, tzinfo=UTC)
LATER = CLOCK + timedelta(days=365)
CURRENCY = "points"
POOLS = [Pool(funder, kind) for funder in ("brand", "partner") for kind in ("short", "long")]
BUNCH = 2


class Ledger:
    """The SQL functions, called for many members at once."""

    def __init__(self, connection: Any, tenant_id: str, classes: dict[Pool, int]) -> None:
        self.connection = connection
        self.tenant_id = tenant_id
        self.classes = classes
        self.turn = 0
        # how many pools rested behind their accounts' tails, turn by turn
        self.tails = 0

    async def earn(self, now: datetime, rows: list[tuple[Any, ...]]) -> None:
        """Reversible earnings, as orders make them: (member, key, pool, points, expires, matures)."""
        members, keys, pools, points, expires, matures = zip(*rows, strict=True)
        nothing = [None] * len(rows)
        async with self.connection.transaction():
            await self.connection.execute("SELECT set_config('siyu.tenant', $1, true)", self.tenant_id)
            await self.connection.execute(
                "SELECT enter($1, $2, $3, $4)", self.tenant_id, now, [CURRENCY] * len(rows), members
            )
            await self.connection.execute(
                "SELECT post_points($1, $2, true, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
                self.tenant_id,
                now,
                [True] * len(rows),
                members,
                [CURRENCY] * len(rows),
                [self.classes[pool] for pool in pools],
                keys,
                points,
                expires,
                matures,
                [now] * len(rows),
                keys,
                ["order"] * len(rows),
                nothing,
                nothing,
                [True] * len(rows),
            )

    async def grant(self, now: datetime, rows: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
        """Grants under request ids: (member, key, pool, points, expires). Returns (available, repaid).

        Every second time in bunches of different members, sorted as the service sorts them: a bunch in which all
        accounts are plain goes the short way, which leaves tails."""
        self.turn += 1
        if self.turn % 2:
            return await self._grant(now, rows)
        waves: dict[int, list[int]] = {}
        count: dict[str, int] = {}
        for i, row in enumerate(rows):
            count[row[0]] = count.get(row[0], 0) + 1
            waves.setdefault(count[row[0]], []).append(i)
        told: dict[int, tuple[int, int]] = {}
        for wave in waves.values():
            order = sorted(wave, key=lambda i: rows[i][0])
            for bunch in (order[at : at + BUNCH] for at in range(0, len(order), BUNCH)):
                told.update(zip(bunch, await self._grant(now, [rows[i] for i in bunch]), strict=True))
        return [told[i] for i in range(len(rows))]

    async def _grant(self, now: datetime, rows: list[tuple[Any, ...]]) -> list[tuple[int, int]]:
        members, keys, pools, points, expires = zip(*rows, strict=True)
        seen: set[str] = set()
        first = [not (key in seen or seen.add(key)) for key in keys]  # type: ignore[func-returns-value]
        nothing = [None] * len(rows)
        terms = sorted({(self.classes[pool], expires_at) for pool, expires_at in zip(pools, expires, strict=True)})
        parameters = (
            self.tenant_id,
            now,
            "",
            ["client"] * len(terms),
            [CURRENCY] * len(terms),
            [class_no for class_no, _ in terms],
            [expires_at for _, expires_at in terms],
            ["goodwill"] * len(terms),
            [None] * len(terms),
            [None] * len(terms),
            [1 + terms.index((self.classes[pool], at)) for pool, at in zip(pools, expires, strict=True)],
            None if all(first) else first,
            keys,
            [b"print"] * len(rows),
            members,
            [new_id() for _ in rows],
            points,
            None,
            members == tuple(sorted(set(members))),
            [new_id()],
            [b"payload" * len(rows)],
        )
        statement = (
            "SELECT * FROM accrue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,"
            " $19, $20, $21, $22, $23)"
        )
        row = await self.connection.fetchrow(statement, *parameters, None, None)
        if row["again"]:
            row = await self.connection.fetchrow(statement, *parameters, [0] * len(rows), [b"payload"] * len(rows))
        repaid = row["repaid"] or nothing
        available = row["available"] or [left + new for left, new in zip(row["before"], points, strict=True)]
        return [(left, paid or 0) for left, paid in zip(available, repaid, strict=True)]

    async def hold(self, now: datetime, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Holds: (member, hold, points, off-line). Returns (refusal, available)."""
        members, keys, points, offline = zip(*rows, strict=True)
        row = await self.connection.fetchrow(
            "SELECT * FROM hold_points($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            self.tenant_id,
            now,
            [True] * len(rows),
            ["client"] * len(rows),
            [new_id() for _ in rows],
            [b"print"] * len(rows),
            keys,
            members,
            [CURRENCY] * len(rows),
            points,
            [LATER] * len(rows),
            [None] * len(rows),
            [False] * len(rows),
            [self.classes[POOLS[1]] if owes else None for owes in offline],
        )
        return list(zip(row["refusals"], row["available"], strict=True))

    async def resolve(self, now: datetime, rows: list[tuple[Any, ...]]) -> list[str | None]:
        """Captures and voids: (member, hold, whether to capture, points). Returns refusals."""
        _, keys, captures, points = zip(*rows, strict=True)
        row = await self.connection.fetchrow(
            "SELECT * FROM resolve_holds($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            self.tenant_id,
            now,
            CLOCK,
            LATER,
            ["client"] * len(rows),
            [new_id() for _ in rows],
            [b"print"] * len(rows),
            keys,
            captures,
            points,
        )
        return list(row["refusals"])

    async def expire_holds(self, now: datetime, keys: list[str]) -> int:
        """Ages the holds past their time to live, and sweeps."""
        async with self.connection.transaction():
            await self.connection.execute("SELECT set_config('siyu.tenant', $1, true)", self.tenant_id)
            await self.connection.execute(
                "UPDATE holds SET expires_at = $1 WHERE hold_id = ANY($2) AND state = 1", CLOCK, keys
            )
        swept: int = await self.connection.fetchval("SELECT expire_holds($1, $2, $3, 1000)", self.tenant_id, now, CLOCK)
        return swept

    async def refund(self, now: datetime, rows: list[tuple[Any, ...]]) -> list[int]:
        """Refunds: (member, gives, takes, debt allowed). Returns shortfalls."""
        gives = [(i, "client", *give) for i, row in enumerate(rows, 1) for give in row[1]]
        takes = [(i, *take) for i, row in enumerate(rows, 1) for take in row[2]]
        row = await self.connection.fetchrow(
            "SELECT * FROM refund_points($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            self.tenant_id,
            now,
            [row[0] for row in rows],
            [CURRENCY] * len(rows),
            [now] * len(rows),
            [None] * len(rows),
            ["refund"] * len(rows),
            [row[3] for row in rows],
            *(list(column) for column in _columns(gives, 4)),
            *(list(column) for column in _columns(takes, 3)),
        )
        return list(row["shortfalls"])

    async def settle_due(self, now: datetime) -> None:
        """The sweeper's turn."""
        await self.connection.execute("SELECT settle_due($1, $2, 1000)", self.tenant_id, now)

    async def balances(self, now: datetime, members: list[str]) -> list[tuple[Any, ...]]:
        """(available, pending, held, debt, next expiry, points that expire then) of each member."""
        row = await self.connection.fetchrow(
            "SELECT * FROM balances($1, $2, $3, $4)", self.tenant_id, now, members, [CURRENCY] * len(members)
        )
        return list(zip(*(row[name] for name in row.keys()), strict=True))  # noqa: SIM118 -- a record, not a dict


def _columns(rows: list[tuple[Any, ...]], width: int) -> Iterator[Iterable[Any]]:
    return iter(zip(*rows, strict=True)) if rows else iter([()] * width)


async def connect(url: str) -> Any:
    """A connection of loyalty's app role."""
    settings = Settings(database_url=url, role_password="roles-of-a-test-run")
    return await asyncpg.connect(
        settings.role_dsn("loyalty", "app"),
        server_settings={"search_path": "loyalty", "jit": "off", "synchronous_commit": "off"},
    )


async def new_ledger(connection: Any) -> Ledger:
    """The books of a new tenant, with a class for each of the pools."""
    tenant_id = new_id()
    async with connection.transaction():
        await connection.execute("SELECT set_config('siyu.tenant', $1, true)", tenant_id)
        await connection.execute(
            "INSERT INTO tenants (tenant_id, time_zone, currency_code, version) VALUES ($1, 'UTC', 'CNY', 1)", tenant_id
        )
        classes = {
            pool: await connection.fetchval(
                "SELECT class_for($1, $2, $3, $4, 'test')", tenant_id, CURRENCY, pool.funder, pool.expiry_class
            )
            for pool in POOLS
        }
    return Ledger(connection, tenant_id, classes)
