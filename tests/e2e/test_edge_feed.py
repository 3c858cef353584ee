"""The event feed through the real Envoy: the tenant's events only, each once, in order, by cursors nobody can forge."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.edge import OTHER_TENANT, TENANT, Log, TestEdge, paid, running_edge
from tests.e2e.test_edge import check_status

SCOPE = "events.read"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> AsyncIterator[TestEdge]:
    async with running_edge(tmp_path_factory.mktemp("feed"), valkey_url) as edge:
        yield edge


@pytest.fixture(autouse=True)
def _empty_logs(edge: TestEdge) -> None:
    for log in edge.logs.values():
        fresh = Log()
        log.blocks, log.floor, log.is_away = fresh.blocks, fresh.floor, False


async def read(edge: TestEdge, tenant: str = TENANT, **asked: Any) -> dict[str, Any]:
    reply = await edge.http.get("/v1/events", params=asked, headers=edge.bearer(SCOPE, tenant=tenant))
    assert reply.status_code == 200, reply.text
    page: dict[str, Any] = reply.json()
    return page


async def read_all(
    edge: TestEdge, tenant: str = TENANT, *, limit: int, cursor: str = ""
) -> tuple[list[dict[str, Any]], str]:
    found: list[dict[str, Any]] = []
    for _ in range(300):
        page = await read(edge, limit=limit, **({"cursor": cursor} if cursor else {}))
        assert len(page["events"]) <= limit
        found += page["events"]
        cursor = page["nextCursor"]
        if not page["hasMore"]:
            return found, cursor
    raise AssertionError("the feed does not end")


async def test_an_event_is_json_by_its_type(edge: TestEdge) -> None:
    edge.logs["commerce"].append(0, TENANT, paid(1))
    (event,) = (await read(edge))["events"]
    assert event["type"] == "commerce.OrderPaid"
    assert event["aggregateVersion"] == "3"
    assert event["occurredAt"] == "2026-01-31T00:00:00Z"
    assert (event["payload"]["orderId"], event["payload"]["netMinor"]) == ("order-1", "1250")
    assert event["payload"]["offline"] is False, "what is empty is written out"


@pytest.mark.parametrize("limit", [1, 3, 7, 500])
async def test_each_event_once_and_in_order_whatever_the_page(edge: TestEdge, limit: int) -> None:
    expected: dict[tuple[str, int], list[str]] = {}
    for service, log in edge.logs.items():
        for partition in log.blocks:
            for block in range(6):
                ours = [paid(block * 10 + number) for number in range(1 + block % 4)]
                log.append(partition, TENANT, *ours)
                log.append(partition, OTHER_TENANT, paid(999, tenant=OTHER_TENANT))
                expected.setdefault((service, partition), []).extend(event.event_id for event in ours)
    found, cursor = await read_all(edge, limit=limit)
    ids = [event["eventId"] for event in found]
    assert len(ids) == len(set(ids)) == sum(map(len, expected.values()))
    for of_partition in expected.values():
        wanted = set(of_partition)
        assert [each for each in ids if each in wanted] == of_partition
    again, cursor = await read_all(edge, limit=limit, cursor=cursor)
    assert again == []
    edge.logs["loyalty"].append(1, TENANT, paid(77))
    later, _ = await read_all(edge, limit=limit, cursor=cursor)
    assert [event["aggregateId"] for event in later] == ["order-77"]


async def test_a_start_from_now_leaves_out_what_was(edge: TestEdge) -> None:
    edge.logs["commerce"].append(0, TENANT, paid(1))
    page = await read(edge, start="now")
    assert page["events"] == []
    edge.logs["commerce"].append(0, TENANT, paid(2))
    page = await read(edge, cursor=page["nextCursor"])
    assert [event["aggregateId"] for event in page["events"]] == ["order-2"]


async def test_a_cursor_behind_what_is_kept(edge: TestEdge) -> None:
    log = edge.logs["commerce"]
    log.append(0, TENANT, paid(1))
    cursor = (await read(edge))["nextCursor"]
    for number in range(2, 6):
        log.append(0, TENANT, paid(number))
    log.floor[0] = 4
    reply = await edge.http.get("/v1/events", params={"cursor": cursor}, headers=edge.bearer(SCOPE))
    status = check_status(reply, http=400, code=9, reason="EVENTS_TRUNCATED")
    restart = status["details"][0]["metadata"]["restart_cursor"]
    page = await read(edge, cursor=restart)
    assert [event["aggregateId"] for event in page["events"]] == ["order-4", "order-5"]


async def test_a_cursor_is_good_for_its_tenant_only(edge: TestEdge) -> None:
    edge.logs["commerce"].append(0, TENANT, paid(1))
    cursor = (await read(edge))["nextCursor"]
    forged = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for text, tenant in ((cursor, OTHER_TENANT), (forged, TENANT), ("AQ", TENANT), ("ü", TENANT)):
        headers = edge.bearer(SCOPE, tenant=tenant)
        reply = await edge.http.get("/v1/events", params={"cursor": text}, headers=headers)
        check_status(reply, http=400, code=3, reason="CURSOR_INVALID")


async def test_a_service_that_is_away_is_named_and_caught_up(edge: TestEdge) -> None:
    cursor = (await read(edge))["nextCursor"]
    edge.logs["commerce"].append(0, TENANT, paid(1))
    edge.logs["loyalty"].append(0, TENANT, paid(2))
    edge.logs["loyalty"].is_away = True
    page = await read(edge, cursor=cursor)
    start = await edge.http.get("/v1/events", headers=edge.bearer(SCOPE))
    check_status(start, http=503, code=14, reason="UNAVAILABLE")
    edge.logs["loyalty"].is_away = False
    assert [event["aggregateId"] for event in page["events"]] == ["order-1"]
    assert page["unavailableServices"] == ["loyalty"]
    page = await read(edge, cursor=page["nextCursor"])
    assert [event["aggregateId"] for event in page["events"]] == ["order-2"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        pytest.param({"limit": "0"}, "limit", id="no events"),
        pytest.param({"limit": "501"}, "limit", id="too many"),
        pytest.param({"limit": "ten"}, "limit", id="no number"),
        pytest.param({"start": "yesterday"}, "start", id="no such start"),
        pytest.param({"curser": "x"}, "curser", id="misspelt"),
    ],
)
async def test_bad_parameters(edge: TestEdge, asked: dict[str, str], field: str) -> None:
    reply = await edge.http.get("/v1/events", params=asked, headers=edge.bearer(SCOPE))
    status = check_status(reply, http=400, code=3, reason="INVALID_FIELD")
    assert status["details"][1]["fieldViolations"][0]["field"] == field


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"scopes": "identity.read"}, "SCOPE_MISSING", id="without the scope"),
        pytest.param({"scopes": SCOPE, "sup": "supplier-1"}, "OUT_OF_SCOPE", id="a supplier"),
        pytest.param({"scopes": SCOPE, "sto": "store-1"}, "OUT_OF_SCOPE", id="a till"),
        pytest.param({"scopes": SCOPE, "tenant": ""}, "TENANT_MISSING", id="no tenant"),
    ],
)
async def test_who_may_not_read(edge: TestEdge, claims: dict[str, str], reason: str) -> None:
    reply = await edge.http.get("/v1/events", headers=edge.bearer(**claims))
    check_status(reply, http=403, code=7, reason=reason)


async def test_no_token_no_events(edge: TestEdge) -> None:
    check_status(await edge.http.get("/v1/events"), http=401, code=16, reason="TOKEN_MISSING")


async def test_the_pages_need_no_token(edge: TestEdge) -> None:
    told = await edge.http.get("/openapi.json")
    assert told.status_code == 200
    assert told.json()["openapi"] == "3.1.0"
    page = await edge.http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for file in ("/docs/docs.css", "/docs/docs.js"):
        assert (await edge.http.get(file)).status_code == 200, file
    again = await edge.http.get("/docs", headers={"if-none-match": page.headers["etag"]})
    assert again.status_code == 304
    assert (await edge.http.get("/healthz")).text == "ok\n"
    keys = (await edge.http.get("/.well-known/jwks.json")).json()["keys"]
    assert keys[0]["alg"] == "ES256"
    assert "d" not in keys[0], "the private half stays at home"
    assert (await edge.http.get("/")).headers["location"] == "/docs"
    check_status(await edge.http.get("/docs/nothing"), http=404, code=5, reason="PATH_NOT_FOUND")
