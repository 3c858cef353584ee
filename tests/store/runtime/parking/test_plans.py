"""What a worker asks each second, or who waits for an event, reads a row a shelf, however many events wait on it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from services.runtime import log, parking
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.ids import new_id
from tests.store.runtime.conftest import PRODUCER, system_of
from tests.store.runtime.events import QUEUE
from tests.store.runtime.parking.conftest import Stage

OTHER_QUEUE = "usage"
FREE_QUEUE = "views"
ON_A_SHELF = 4_000
SHELVES = 6
_FILL = """
    INSERT INTO parked_events (tenant_id, producer, queue, partition, seq, place, event_id, type, aggregate_type,
                               aggregate_id, version, occurred_at, posted_at, payload, trace, reason)
    SELECT $1::uuid, $2, queue, partition, seq, 0, 'e', 't', 'order', 'o', 1, now(), now(), 'paid', '', 'BEHIND'
    FROM unnest(ARRAY[$3, $4]) AS queue, generate_series(0, 1) AS partition, generate_series(1, $5::integer) AS seq
"""
_CURSORS = """
    INSERT INTO cursors (producer, queue, partition, seq)
    SELECT $1, queue, partition, $3
    FROM unnest($2::text[]) AS queue, generate_series(0, 1) AS partition
"""


@pytest.fixture
async def crowded(stage: Stage) -> Stage:
    """Three tenants with two shelves each, in each of two queues."""

    async def fill(connection: Connection, tenant_id: str) -> None:
        await raw(connection).execute(_FILL, tenant_id, PRODUCER, OTHER_QUEUE, QUEUE, ON_A_SHELF)

    for tenant_id in (stage.ill, stage.well, new_id()):
        await stage.consumer_app.run(tenant_id, lambda connection, to=tenant_id: fill(connection, to))
    return stage


async def read_by(stage: Stage, statement: str, *values: str | int) -> int:
    """How many parked events its kept plan takes from their table and its indexes."""

    async def work(connection: Connection) -> list[dict[str, Any]]:
        driver = raw(connection)
        await driver.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await driver.execute(f"PREPARE watched AS {statement}")
        told = await driver.fetchval(
            f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE watched({', '.join(map(repr, values))})"
        )
        await driver.execute("DEALLOCATE watched")
        return json.loads(told) if isinstance(told, str) else told

    (explained,) = await system_of(stage.consumer_app).read(EVERY_TENANT, work)
    rows = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(explained["Plan"])
        if node.get("Relation Name") == "parked_events"
    )
    # each node's rows are the mean of its loops, to two decimals
    return round(rows)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The plan's nodes."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def test_which_shelves_are_due_is_read_from_their_first_events(crowded: Stage) -> None:
    assert await read_by(crowded, parking._DUE, PRODUCER, QUEUE, parking.MAX_SHELVES_AT_ONCE) == SHELVES

    async def due(connection: Connection) -> tuple[parking.Shelf, ...]:
        return await parking.due(connection, producer=PRODUCER, queue=QUEUE)

    assert len(set(await system_of(crowded.consumer_app).read(EVERY_TENANT, due))) == SHELVES


async def test_what_is_parked_is_counted_up_to_a_bound(crowded: Stage) -> None:
    counted = await read_by(crowded, parking._COUNT, PRODUCER, QUEUE, parking.MAX_COUNTED)
    assert counted == parking.MAX_COUNTED < SHELVES * ON_A_SHELF


async def test_what_who_waits_for_an_event_asks_reads_the_first_of_each_queue(crowded: Stage) -> None:
    async def move(connection: Connection) -> None:
        await raw(connection).execute(_CURSORS, PRODUCER, [OTHER_QUEUE, QUEUE, FREE_QUEUE], ON_A_SHELF)

    await crowded.consumer_app.run(crowded.ill, move)
    of_all = "{" + ",".join((OTHER_QUEUE, QUEUE, FREE_QUEUE)) + "}"
    assert await read_by(crowded, log._PARKED_FROM, crowded.ill, PRODUCER, 0, of_all) == 2

    async def queues(connection: Connection, tenant_id: str) -> dict[str, int]:
        return await log.queues(connection, producer=PRODUCER, partition=0, tenant_id=tenant_id)

    system = system_of(crowded.consumer_app)
    of_ill = await system.read(EVERY_TENANT, lambda connection: queues(connection, crowded.ill))
    assert of_ill == {OTHER_QUEUE: 0, QUEUE: 0, FREE_QUEUE: ON_A_SHELF}
    for nobody in (new_id(), EVERY_TENANT):
        found = await system.read(EVERY_TENANT, lambda connection, of=nobody: queues(connection, of))
        assert found == dict.fromkeys(of_ill, ON_A_SHELF)
