"""The SQL ledger equals the reference model on 10,000 generated sequences, many members in each batch."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from services.runtime.ids import new_id
from tests.store.loyalty.sequences import Member, Steps, end_of_grace, expected, take_step
from tests.store.loyalty.sql_ledger import Ledger, connect, new_ledger
from tests.unit.loyalty.points_model import PointsModel

START = datetime(2026, 1, 1, 12, tzinfo=UTC)
SEQUENCES = 10_000
MEMBERS = 80
ROUNDS = 12
WAITS_H = (0, 0, 5, 30, 80)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_sql_equals_the_model(database_url: str) -> None:
    """10,000 sequences of twelve steps, 80 members in every batch, balances and books compared."""
    # sequences that took back what had expired unused, and those that took something else of the same member besides
    expired = both = tails = 0
    with asyncio.Runner() as runner:
        connection = runner.run(connect(database_url))

        @settings(
            max_examples=SEQUENCES // MEMBERS,
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
                ledger = await new_ledger(connection)
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


async def _run(ledger: Ledger, rolls: list[list[int]], waits: list[int]) -> list[PointsModel]:
    members = [
        Member(
            id=new_id(),
            rolls=row,
            model=PointsModel(now=START, debt_allowed=number % 4 != 0, grace=end_of_grace),
        )
        for number, row in enumerate(rolls)
    ]
    now = START
    ids = [member.id for member in members]
    for turn, wait_h in enumerate(waits):
        now += timedelta(hours=wait_h)
        steps: Steps = {kind: [] for kind in ("earn", "grant", "hold", "resolve", "expire", "refund")}
        for member in members:
            member.model.advance(now)
            take_step(member, member.rolls[turn], steps)
        if turn % 3 == 2:
            await ledger.settle_due(now)
        await _compare(ledger, now, steps)
        ledger.tails += await _tails(ledger)
        if turn % 2:
            balances = await ledger.balances(now, ids)
            for member, balance in zip(members, balances, strict=True):
                assert balance == expected(member.model)
    # what is left expires as in the model: the lots are the same, not only their sum
    for days in (1, 2, 3, 10, 15, 40):
        now += timedelta(days=days)
        for member in members:
            member.model.advance(now)
        balances = await ledger.balances(now, ids)
        for member, balance in zip(members, balances, strict=True):
            assert balance == expected(member.model)
    await _check_books(ledger, members)
    return [member.model for member in members]


async def _compare(ledger: Ledger, now: datetime, steps: Steps) -> None:
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
