"""What is told of parked events: to the log, the audit and who waits, and none of it to another tenant."""

import zlib

import asyncpg
import pytest
from structlog.testing import capture_logs

from services.runtime import audit
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.errors import Refused
from services.runtime.feed import Feed
from siyu.common.v1 import feed_pb2
from tests.store.runtime.conftest import CONSUMER, PARTITIONS, PRODUCER, call_of, system_of
from tests.store.runtime.events import event, running, until
from tests.store.runtime.parking.conftest import ORDERS, POISON, Bug, Stage, postponed


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(lambda: Refused("an event is a fact", reason="NONSENSE"), "NONSENSE", id="a refusal"),
        pytest.param(lambda: KeyError("quoted"), "KeyError", id="a bug"),
        pytest.param(lambda: zlib.error("quoted"), "error", id="a payload that is not what it should be"),
    ],
)
async def test_what_is_told_names_the_event_and_quotes_nothing_of_it(stage: Stage, error, reason: str) -> None:
    bug = Bug(stage.ill, error=error)
    await stage.told(stage.ill, event(POISON, 7, payload=b"quoted"))
    with capture_logs() as logs:
        async with running(stage.consumer(bug)):
            await until(lambda: postponed(stage))
    assert [found[1] for found in await stage.parked()] == [reason]
    (told,) = [entry for entry in logs if entry["event"] == "events are parked"]
    assert (told["reason"], told["tenant_id"], told["partition"], told["events"]) == (reason, stage.ill, 0, 1)
    again = next(entry for entry in logs if entry["event"] == "a parked event can't be handled yet")
    assert (again["reason"], again["aggregate_id"], again["attempts"]) == (reason, POISON, 1)
    assert "conftest.py" in again["stack"]
    assert "quoted" not in repr(logs)


class NoBooks:
    """A service without checks of its own."""

    CHECKS: dict[str, str] = {}  # noqa: RUF012

    async def run(self, *_args, **_kwargs):
        return []

    async def figures(self, *_args):
        return {}


async def test_the_audit_is_red_while_an_event_is_parked_and_green_after(stage: Stage) -> None:
    desk = audit.AuditDesk(database=system_of(stage.consumer_app), books=NoBooks())

    async def parked(tenant_id: str) -> audit.Finding:
        audited = await desk.audit(call_of(tenant_id), prefix=f"{CONSUMER}.no_event")
        (finding,) = audited.findings
        return finding

    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1), event(ORDERS[1], 1))
    await stage.told(stage.well, event(ORDERS[1], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
        await until(stage.all_taken)
        finding = await parked(stage.ill)
        assert (finding.check, finding.ok, finding.examined) == (f"{CONSUMER}.no_event_is_parked", False, 2)
        for words in (
            "2 events have no effect here yet",
            "queue accrual can't handle commerce.OrderPaid",
            f"of order {POISON}",
            "ValueError",
            "1 wait behind it",
        ):
            assert words in finding.detail
        # another brand's books are whole
        assert (await parked(stage.well)).ok
        bug.mend()
        await until(stage.none_parked)
        finding = await parked(stage.ill)
        assert (finding.ok, finding.detail) == (True, "")


async def test_who_waits_for_an_event_is_not_told_that_a_parked_one_is_in_the_books(stage: Stage) -> None:
    feed = Feed(system_of(stage.consumer_app), PARTITIONS)

    async def position(tenant_id: str) -> int:
        request = feed_pb2.GetPositionsRequest(producer=PRODUCER, partition=0)
        (found,) = (await feed.get_positions(request, call_of(tenant_id))).positions
        return found.seq

    bug = Bug(stage.ill)
    await stage.told(stage.well, event(ORDERS[1], 1))
    await stage.told(stage.ill, event(POISON, 1))
    await stage.told(stage.well, event(ORDERS[2], 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))
        await until(stage.all_taken)
        assert (await position(stage.ill), await position(stage.well), await position(EVERY_TENANT)) == (1, 3, 3)
        bug.mend()
        await until(stage.none_parked)
        assert await position(stage.ill) == 3


async def test_parked_events_are_their_tenants_own(stage: Stage) -> None:
    bug = Bug(stage.ill)
    await stage.told(stage.ill, event(POISON, 1))
    async with running(stage.consumer(bug)):
        await until(lambda: postponed(stage))

    async def seen(connection: Connection) -> int:
        return await raw(connection).fetchval("SELECT count(*) FROM parked_events")

    assert await stage.consumer_app.read(stage.ill, seen) == 1
    assert await stage.consumer_app.read(stage.well, seen) == 0

    async def removed(connection: Connection) -> None:
        await raw(connection).execute("DELETE FROM parked_events")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await system_of(stage.consumer_app).run(EVERY_TENANT, removed)
