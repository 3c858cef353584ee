"""The SQL ledger equals the reference model on 10,000 generated sequences, many members in each batch."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.runtime.ids import derive_id, new_id
from services.runtime.settings import Settings
from tests.unit.loyalty.points_model import PointsModel, Pool, Refusal

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLOCK = datetime(2026, 6, 1, tzinfo=UTC)
LATER = CLOCK + timedelta(days=365)
CURRENCY = "points"
POOLS = [Pool(funder, kind) for funder in ("brand", "partner") for kind in ("short", "long")]
BUNCH = 2
SEQUENCES = 10_000
MEMBERS = 80
ROUNDS = 12
WAITS_H = (0, 0, 5, 30, 80)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def _end_of_grace(now: datetime) -> datetime:
    """30 days, to the end of the last one (the tenant of this test lives in UTC)."""
    day: date = now.date() + timedelta(days=31)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Member:
    """A member in both worlds: the model's, and the names of things in SQL."""

    id: str
    model: PointsModel
    rolls: list[int]
    count: int = 0
    earned: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    burnt: list[str] = field(default_factory=list)
    grants: list[tuple[Any, ...]] = field(default_factory=list)

    def name(self) -> str:
        """A new name for a thing of this member."""
        self.count += 1
        return derive_id(self.id, str(self.count))


class Dice:
    """Choices out of one integer, so that hypothesis has one number to draw (and to shrink) a step."""

    def __init__(self, roll: int) -> None:
        self.left = roll

    def below(self, limit: int) -> int:
        """A number below the limit."""
        self.left, chosen = divmod(self.left, limit)
        return chosen

    def one_of(self, items: list[Any]) -> Any:
        """One of the items."""
        return items[self.below(len(items))]


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


def _expected(model: PointsModel) -> tuple[Any, ...]:
    live = [lot for lots in model.lots.values() for lot in lots if lot.left]
    next_expiry = min((lot.expires_at for lot in live), default=None)
    points = sum(lot.left for lot in live if lot.expires_at == next_expiry)
    return (model.available, model.pending, model.held, model.debt, next_expiry, points)


def _refusal(work: Callable[[], object]) -> str | None:
    try:
        work()
    except Refusal as refusal:
        return refusal.reason
    return None


def _grant(member: Member, key: str, pool: Pool, points: int, expires: datetime) -> tuple[Any, Any]:
    """A grant, done in the model, and what must be told of it."""
    owed = member.model.debt
    member.model.earn(key, pool, points, expires)
    return (member.id, key, pool, points, expires), (member.model.available, owed - member.model.debt)


def _play(member: Member, roll: int, steps: dict[str, list[tuple[Any, ...]]]) -> None:
    """One step of the member: done in the model at once, and noted for the batch of its kind with what must come."""
    dice = Dice(roll)
    model = member.model
    kind = dice.one_of(["earn", "earn", "grant", "grant", "hold", "hold", "resolve", "refund", "refund", "expire"])
    now = model.now
    if kind in {"earn", "grant"}:
        pool = POOLS[dice.one_of([0, 0, 1, 1, 1, 2, 3])]
        points = 1 + dice.below(100)
        expires = now + timedelta(days=dice.one_of([-2, 0, 1, 2, 4] if pool.expiry_class == "short" else [20, 22, 30]))
        key = member.name()
        if kind == "earn":
            days = dice.one_of([None, None, 0, 1, 3])
            matures = None if days is None else now + timedelta(days=days)
            model.earn(key, pool, points, expires, matures)
            member.earned.append(key)
            steps[kind].append(((member.id, key, pool, points, expires, matures), None))
            return
        grant, verdict = _grant(member, key, pool, points, expires)
        steps[kind].append((grant, verdict))
        for _ in range(dice.below(4)):
            # more of the same at once: what the account's tail is for
            steps[kind].append(_grant(member, member.name(), pool, 1 + dice.below(50), expires))
        for again in [(grant, verdict)] * (dice.below(4) == 0) + member.grants[: dice.below(3) == 0]:
            steps[kind].append(again)
        member.grants.append((grant, verdict))
    elif kind == "hold":
        repeat = dice.below(8) == 0 and member.count > 0
        key = derive_id(member.id, str(1 + dice.below(member.count))) if repeat else member.name()
        points, offline = 1 + dice.below(120), dice.below(6) == 0
        refusal = _refusal(lambda: model.hold(key, points, debt_allowed=offline))
        if refusal is None:
            member.opened.append(key)
        steps[kind].append(((member.id, key, points, offline), (refusal, model.available)))
    elif kind == "resolve":
        key = dice.one_of(member.opened) if member.opened and dice.below(8) else member.name()
        capture, points = dice.below(3) > 0, dice.below(60)
        held = model.holds[key].points if key in model.holds else 0
        refusal = _refusal(lambda: model.capture(key, points or None) if capture else model.void(key))
        if refusal is None and capture and points <= held:
            member.burnt.append(key)
        steps[kind].append(((member.id, key, capture, points), refusal))
    elif kind == "expire":
        keys = [key for key in member.opened if model.holds[key].state == "HELD"][:1]
        for key in keys:
            model.expire_hold(key)
            steps[kind].append((key, None))
    else:
        gives = [(key, dice.below(model.holds[key].points + 1)) for key in set(member.burnt[-2:])]
        takes = []
        for key in {dice.one_of(member.earned) for _ in range(2)} if member.earned else ():
            earning = model.earnings[key]
            takes.append((key, dice.below(earning.points - earning.taken + 1)))
        gives, takes = sorted(gives), sorted(takes)
        shortfall = model.refund(gives=gives, takes=takes)
        steps[kind].append(((member.id, gives, takes, model.debt_allowed), shortfall))


async def _run(ledger: Ledger, rolls: list[list[int]], waits: list[int]) -> list[PointsModel]:
    members = [
        Member(
            id=new_id(),
            rolls=row,
            model=PointsModel(now=START, debt_allowed=number % 4 != 0, grace=_end_of_grace),
        )
        for number, row in enumerate(rolls)
    ]
    now = START
    ids = [member.id for member in members]
    for turn, wait_h in enumerate(waits):
        now += timedelta(hours=wait_h)
        steps: dict[str, list[tuple[Any, ...]]] = {
            kind: [] for kind in ("earn", "grant", "hold", "resolve", "expire", "refund")
        }
        for member in members:
            member.model.advance(now)
            _play(member, member.rolls[turn], steps)
        if turn % 3 == 2:
            await ledger.settle_due(now)
        await _compare(ledger, now, steps)
        ledger.tails += await _tails(ledger)
        if turn % 2:
            balances = await ledger.balances(now, ids)
            for member, balance in zip(members, balances, strict=True):
                assert balance == _expected(member.model)
    # what is left expires as in the model: the lots are the same, not only their sum
    for days in (1, 2, 3, 10, 15, 40):
        now += timedelta(days=days)
        for member in members:
            member.model.advance(now)
        balances = await ledger.balances(now, ids)
        for member, balance in zip(members, balances, strict=True):
            assert balance == _expected(member.model)
    await _check_books(ledger, members)
    return [member.model for member in members]


async def _compare(ledger: Ledger, now: datetime, steps: dict[str, list[tuple[Any, ...]]]) -> None:
    calls = {"grant": ledger.grant, "hold": ledger.hold, "resolve": ledger.resolve, "refund": ledger.refund}
    if steps["earn"]:
        await ledger.earn(now, [row for row, _ in steps["earn"]])
    for kind, call in calls.items():
        if steps[kind]:
            got = await call(now, [row for row, _ in steps[kind]])  # type: ignore[operator]
            for (row, wanted), verdict in zip(steps[kind], got, strict=True):
                assert verdict == wanted, (kind, row, verdict, wanted)
    if steps["expire"]:
        swept = await ledger.expire_holds(now, [key for key, _ in steps["expire"]])
        assert swept == len(steps["expire"])


async def _tails(ledger: Ledger) -> int:
    """How many pools rest behind the tail that their account keeps."""
    async with ledger.connection.transaction():
        await ledger.connection.execute("SELECT set_config('siyu.tenant', $1, true)", ledger.tenant_id)
        found: int = await ledger.connection.fetchval(
            "SELECT count(*) FROM accounts a JOIN pools p ON p.member_id = a.member_id AND p.class_no = a.tail_class"
            " WHERE p.earned_points < a.tail_end"
        )
    return found


async def _check_books(ledger: Ledger, members: list[Member]) -> None:
    """Every bucket of every account is what the entries and the model's entries say, and every lot's expired rest."""
    async with ledger.connection.transaction():
        await ledger.connection.execute("SELECT set_config('siyu.tenant', $1, true)", ledger.tenant_id)
        rows = await ledger.connection.fetch(
            """
            SELECT owner_id::text, bucket, sum(points)::bigint FROM (
                SELECT owner_id, target AS bucket, points FROM entries
                UNION ALL SELECT owner_id, source, -points FROM entries
            ) sides GROUP BY 1, 2
            """
        )
        unused = await ledger.connection.fetch(
            """
            SELECT owner_id::text, earning_id::text, expired_unused(tenant_id, member_id, class_no, end_points)
            FROM earnings WHERE end_points IS NOT NULL
            """
        )
    booked = {(owner, bucket): points for owner, bucket, points in rows}
    names = {
        1: "pending",
        2: "available",
        3: "held",
        4: "debt",
        11: "issued",
        12: "burnt",
        13: "expired",
        14: "shortfall",
    }
    for member in members:
        for bucket, name in names.items():
            assert booked.get((member.id, bucket), 0) == member.model.booked(name), name
    models = {member.id: member.model for member in members}
    for owner, key, points in unused:
        lot = models[owner].earnings[key].lot
        assert lot is not None
        assert lot.unused == points, "what of each lot expired unused"


async def _open(url: str) -> Any:
    settings = Settings(database_url=url, role_password="roles-of-a-test-run")
    return await asyncpg.connect(
        settings.role_dsn("loyalty", "app"),
        server_settings={"search_path": "loyalty", "jit": "off", "synchronous_commit": "off"},
    )


async def _new_tenant(connection: Any) -> Ledger:
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


def test_sql_equals_the_model(database_url: str) -> None:
    """10,000 sequences of twelve steps, 80 members in every batch, balances and books compared."""
    # sequences that took back what had expired unused, and those that took something else of the same member besides
    expired = both = tails = 0
    with asyncio.Runner() as runner:
        connection = runner.run(_open(database_url))

        @settings(
            max_examples=SEQUENCES // MEMBERS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.lists(
                st.lists(st.integers(0, 2**60 - 1), min_size=ROUNDS, max_size=ROUNDS),
                min_size=MEMBERS,
                max_size=MEMBERS,
            ),
            st.lists(st.sampled_from(WAITS_H), min_size=ROUNDS, max_size=ROUNDS),
        )
        def play(rolls: list[list[int]], waits: list[int]) -> None:
            async def example() -> list[PointsModel]:
                nonlocal tails
                ledger = await _new_tenant(connection)
                models = await _run(ledger, rolls, waits)
                tails += ledger.tails
                return models

            nonlocal expired, both
            for model in runner.run(example()):
                sources = {entry.source for entry in model.entries if entry.reason == "take_back"}
                expired += "expired" in sources
                both += "expired" in sources and len(sources) > 1

        play()
        runner.run(connection.close())
    # or the short way of a grant would have been compared with nothing
    assert tails > MEMBERS
    assert expired > SEQUENCES // 10
    assert both > SEQUENCES // 20
