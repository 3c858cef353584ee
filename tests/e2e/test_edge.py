"""A request through the real Envoy: who gets in, what is answered, and in which words when it is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf.message import Message
from redis.asyncio import Redis

from gateway import contracts
from gateway.limits import ALONE_FOR_S
from services.runtime.call import Call
from services.runtime.errors import Refused, Unauthenticated, Unavailable
from services.runtime.ids import new_id
from services.runtime.status import from_rpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc
from tests.e2e.edge import BUSY_CLIENT, CLIENT, OTHER_TENANT, SECRET, TENANT, Signer, TestEdge, examples, running_edge
from tests.e2e.shop import eventually

MEMBER = "0199a3c4-7d1e-7000-8000-000000000001"
BALANCE = f"/v1/members/{MEMBER}/points/points"
ACCRUE = {"requestId": "r1", "memberId": MEMBER, "pointCurrency": "points", "points": "5", "reason": "goodwill"}
ROUNDS = 5
GENEROUS = {"SIYU_EDGE_CLIENT_RATE_PER_S": "1000", "SIYU_EDGE_CLIENT_BURST": "2000"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> AsyncIterator[TestEdge]:
    limits = {**GENEROUS, "SIYU_EDGE_ADDRESS_RATE_PER_S": "1000", "SIYU_EDGE_ADDRESS_BURST": "2000"}
    async with running_edge(tmp_path_factory.mktemp("edge"), valkey_url, **limits) as edge:
        yield edge


def check_status(reply: httpx.Response, *, http: int, code: int, reason: str) -> dict[str, Any]:
    """A google.rpc.Status in JSON, whoever wrote it."""
    assert reply.status_code == http, reply.text
    assert reply.headers["content-type"].startswith("application/json"), reply.headers
    status: dict[str, Any] = reply.json()
    assert status["code"] == code, status
    assert status["message"], status
    info = status["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert (info["reason"], info["domain"]) == (reason, "siyu")
    assert info["metadata"].keys() & {"trace_id", "request_id"}, "by which its log lines are found"
    return status


async def test_a_rest_call_with_a_token(edge: TestEdge) -> None:
    async def balance(request: Any, call: Call) -> Message:
        assert (call.tenant_id, call.client_id) == (TENANT, CLIENT)
        assert (request.member_id, request.point_currency) == (MEMBER, "points")
        return points_pb2.GetBalanceResponse(available_points=2**53 + 1)

    edge.answers["siyu.loyalty.v1.PointsService.GetBalance"] = balance
    reply = await edge.http.get(BALANCE, headers=edge.bearer("loyalty.points.read"))
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found["availablePoints"] == "9007199254740993", "64 bits survive JSON"
    assert found["heldPoints"] == "0", "zeros are written out"


async def test_a_rest_call_with_an_api_key(edge: TestEdge) -> None:
    edge.answers.pop("siyu.loyalty.v1.PointsService.GetBalance", None)
    edge.seen.clear()
    for _ in range(3):
        reply = await edge.http.get(BALANCE, headers={"x-api-key": f"{CLIENT}.{SECRET}"})
        assert reply.status_code == 200, reply.text
    asked = [name for name, _, _ in edge.seen if name.endswith("IssueToken")]
    assert len(asked) <= 1, "the token is kept"


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(f"{CLIENT}.wrong", id="wrong secret"),
        pytest.param("nonsense", id="not a key"),
        pytest.param("service:loyalty.gateway-secret", id="the installation's own clients have no API keys"),
        pytest.param("", id="empty"),
    ],
)
async def test_a_bad_api_key(edge: TestEdge, key: str) -> None:
    # also beside a good token: whoever sends a key means it
    headers = {"x-api-key": key, **edge.bearer("loyalty.points.read")}
    check_status(await edge.http.get(BALANCE, headers=headers), http=401, code=16, reason="BAD_CREDENTIALS")


BAD_TOKENS = pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param(lambda _: {}, "TOKEN_MISSING", id="none"),
        pytest.param(lambda _: {"authorization": "Basic c2l5dTpzaXl1"}, "TOKEN_MISSING", id="no bearer"),
        pytest.param(lambda _: {"authorization": "Bearer nonsense"}, "TOKEN_INVALID", id="nonsense"),
        pytest.param(lambda edge: edge.bearer("loyalty.points.read", life_s=-60), "TOKEN_EXPIRED", id="expired"),
        pytest.param(lambda edge: edge.bearer("loyalty.points.read", aud="others"), "TOKEN_INVALID", id="for others"),
        pytest.param(lambda edge: edge.bearer("loyalty.points.read", iss="others"), "TOKEN_INVALID", id="from others"),
        pytest.param(
            lambda _: {"authorization": f"Bearer {Signer().token('loyalty.points.read')}"},
            "TOKEN_INVALID",
            id="another key",
        ),
        pytest.param(
            lambda _: {"authorization": f"Bearer {Signer().token('loyalty.points.read', life_s=-60)}"},
            "TOKEN_EXPIRED",
            id="expired, and of another key: time is looked at first",
        ),
    ],
)


@BAD_TOKENS
async def test_a_bad_token(edge: TestEdge, headers: Any, reason: str) -> None:
    edge.seen.clear()
    check_status(await edge.http.get(BALANCE, headers=headers(edge)), http=401, code=16, reason=reason)
    check_status(await edge.http.get("/v1/events", headers=headers(edge)), http=401, code=16, reason=reason)
    assert edge.seen == [], "it does not get past the edge"


@BAD_TOKENS
async def test_a_bad_token_over_grpc(edge: TestEdge, headers: Any, reason: str) -> None:
    edge.seen.clear()
    async with grpc.aio.insecure_channel(edge.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(
                points_pb2.GetBalanceRequest(), metadata=tuple(headers(edge).items())
            )
    refusal = from_rpc(refused.value)
    assert (type(refusal), refusal.reason) == (Unauthenticated, reason), "with its details"
    assert edge.seen == [], "it does not get past the edge"


async def test_a_token_in_the_query_is_no_token(edge: TestEdge) -> None:
    token = edge.signer.token("identity.read")
    reply = await edge.http.get(f"/v1/tenant?access_token={token}")
    assert reply.status_code in {400, 401}, reply.text


async def test_the_wrong_scope(edge: TestEdge) -> None:
    reply = await edge.http.get(BALANCE, headers=edge.bearer("commerce.orders.read"))
    status = check_status(reply, http=403, code=7, reason="SCOPE_MISSING")
    assert status["details"][0]["metadata"]["scope"] == "loyalty.points.read"


async def test_a_refusal_of_the_contract_names_the_fields(edge: TestEdge) -> None:
    asked = {**ACCRUE, "memberId": "no-uuid", "points": "0"}
    reply = await edge.http.post("/v1/points:accrue", json=asked, headers=edge.bearer("loyalty.points.write"))
    status = check_status(reply, http=400, code=3, reason="INVALID_FIELD")
    violations = next(each for each in status["details"] if each["@type"].endswith("BadRequest"))["fieldViolations"]
    assert {each["field"] for each in violations} == {"member_id", "points"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "/v1/points:accrue", "{", id="no JSON"),
        pytest.param("POST", "/v1/points:accrue", '{"points": "many"}', id="no number"),
        pytest.param("POST", "/v1/clients", '{"kind": "ACTOR_KIND_NOBODY"}', id="no such choice"),
        pytest.param("GET", "/v1/stores?pageSice=5", None, id="an unknown parameter"),
        pytest.param("GET", "/v1/stores?pageSize=five", None, id="a parameter that is no number"),
    ],
)
async def test_what_envoy_can_not_read(edge: TestEdge, method: str, path: str, body: str | None) -> None:
    headers = edge.bearer("loyalty.points.write identity.read")
    reply = await edge.http.request(method, path, content=body, headers={"content-type": "application/json", **headers})
    status = check_status(reply, http=400, code=3, reason="MALFORMED_REQUEST")
    assert "/openapi.json tells every field's type and choices" in status["message"]


async def test_what_can_not_be_read_and_has_no_token(edge: TestEdge) -> None:
    reply = await edge.http.get("/v1/stores?pageSice=5")
    check_status(reply, http=400, code=3, reason="MALFORMED_REQUEST")
    reply = await edge.http.post("/v1/points:accrue", content="{", headers={"content-type": "application/json"})
    check_status(reply, http=401, code=16, reason="TOKEN_MISSING")


async def test_an_unknown_field_of_a_body_is_ignored_and_the_document_says_so(edge: TestEdge) -> None:
    """A newer Envoy may be able to refuse it; then the document has to change, too."""
    edge.seen.clear()
    asked = {**ACCRUE, "expiryClas": "bonus"}
    reply = await edge.http.post("/v1/points:accrue", json=asked, headers=edge.bearer("loyalty.points.write"))
    assert reply.status_code == 200, reply.text
    assert edge.seen[-1][1].expiry_class == ""
    told = (await edge.http.get("/openapi.json")).json()["info"]["description"]
    assert "unknown field of a body is **ignored**" in told


async def test_an_id_in_the_path_may_have_any_character(edge: TestEdge) -> None:
    edge.seen.clear()
    url = "/v1/points/holds/till%2F1%3A%3F%25:void"
    reply = await edge.http.post(url, json={"requestId": "r1"}, headers=edge.bearer("loyalty.points.write"))
    assert reply.status_code == 200, reply.text
    assert edge.seen[-1][1].hold_id == "till/1:?%"


async def test_an_unknown_path(edge: TestEdge) -> None:
    for path in ("/v1/nothing", "/edge/key/v1/tenant", "/readyz", "/siyu.common.v1.FeedService/ReadLog"):
        reply = await edge.http.post(path, json={}, headers=edge.bearer("events.read"))
        check_status(reply, http=404, code=5, reason="PATH_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        pytest.param("GET", "/v1/pos:sell", "POST", id="a call"),
        pytest.param("POST", "/v1/orders/o1", "GET", id="a thing"),
        pytest.param("GET", "/v1/orders/o1:pay", "POST", id="what is done to a thing"),
        pytest.param("DELETE", "/v1/orders?page_size=1", "GET, POST", id="a list, with a query"),
        pytest.param("PATCH", "/v1/sources/a%2Fb", "GET, PUT", id="an id with a slash"),
        pytest.param("POST", "/v1/events", "GET", id="a page of the application"),
    ],
)
async def test_another_method_of_a_known_path_is_told_which(
    edge: TestEdge, method: str, path: str, allowed: str
) -> None:
    for headers in (edge.bearer("events.read"), {}):
        reply = await edge.http.request(method, path, headers=headers)
        if path == "/v1/events" and not headers:
            check_status(reply, http=401, code=16, reason="TOKEN_MISSING")
            continue
        status = check_status(reply, http=405, code=12, reason="METHOD_NOT_ALLOWED")
        assert sorted(reply.headers["allow"].replace("HEAD, ", "").replace(", HEAD", "").split(", ")) == allowed.split(
            ", "
        )
        assert status["message"] == f"this path takes other methods: {reply.headers['allow']}"


async def test_what_is_done_to_a_thing_and_by_no_contract_is_an_unknown_path(edge: TestEdge) -> None:
    reply = await edge.http.post("/v1/orders/o1:nothing", json={}, headers=edge.bearer("commerce.orders.write"))
    check_status(reply, http=404, code=5, reason="PATH_NOT_FOUND")


async def test_a_business_refusal_comes_with_its_details(edge: TestEdge) -> None:
    async def refuse(_request: Message, _call: Call) -> Message:
        raise Refused("not enough", subject="points", reason="INSUFFICIENT_POINTS", metadata={"available_points": "3"})

    edge.answers["siyu.loyalty.v1.PointsService.Accrue"] = refuse
    reply = await edge.http.post("/v1/points:accrue", json=ACCRUE, headers=edge.bearer("loyalty.points.write"))
    status = check_status(reply, http=400, code=9, reason="INSUFFICIENT_POINTS")
    assert status["details"][0]["metadata"]["available_points"] == "3"
    assert status["details"][1]["violations"][0]["subject"] == "points"


async def test_an_unavailable_service_is_asked_again(edge: TestEdge) -> None:
    tries = []

    async def once_away(_request: Message, _call: Call) -> Message:
        tries.append(1)
        if len(tries) == 1:
            raise Unavailable("in a moment")
        return points_pb2.AccrueResponse()

    edge.answers["siyu.loyalty.v1.PointsService.Accrue"] = once_away
    reply = await edge.http.post("/v1/points:accrue", json=ACCRUE, headers=edge.bearer("loyalty.points.write"))
    assert (reply.status_code, len(tries)) == (200, 2), reply.text


async def test_the_deadline_of_the_contract_holds_at_the_edge(edge: TestEdge) -> None:
    left_s: list[float] = []

    async def slow(_request: Message, call: Call) -> Message:
        left_s.append(call.remaining_s())
        await asyncio.sleep(30)
        return points_pb2.GetBalanceResponse()

    edge.answers["siyu.loyalty.v1.PointsService.GetBalance"] = slow
    try:
        reply = await edge.http.get(BALANCE, headers=edge.bearer("loyalty.points.read"))
        check_status(reply, http=504, code=4, reason="DEADLINE_EXCEEDED")
        patient = {**edge.bearer("loyalty.points.read"), "grpc-timeout": "60S"}
        assert (await edge.http.get(BALANCE, headers=patient)).status_code == 504
        hasty = {**edge.bearer("loyalty.points.read"), "grpc-timeout": "500m"}
        assert (await edge.http.get(BALANCE, headers=hasty)).status_code == 504
    finally:
        edge.answers.pop("siyu.loyalty.v1.PointsService.GetBalance")
    # what is left when the servicer begins; a loaded machine takes its share of it, and a hasty call may not arrive
    contract, capped, *rest = left_s
    assert 0.5 < contract <= 1.0, "GetBalance declares one second"
    assert 0.5 < capped <= 1.0, "and a caller's minute does not lengthen it"
    assert all(each <= 0.5 for each in rest), "what is shorter is kept"


async def test_grpc_passes_with_the_same_rules(edge: TestEdge) -> None:
    edge.answers.pop("siyu.loyalty.v1.PointsService.Accrue", None)
    request = points_pb2.GetBalanceRequest(member_id=MEMBER, point_currency="points")
    async with grpc.aio.insecure_channel(edge.target) as channel:
        stub = points_pb2_grpc.PointsServiceStub(channel)
        metadata = tuple(edge.bearer("loyalty.points.read loyalty.points.write").items())
        assert await stub.GetBalance(request, metadata=metadata) == points_pb2.GetBalanceResponse()
        replies = stub.StreamAccrue(iter([points_pb2.StreamAccrueRequest()] * 0), metadata=metadata)
        assert [reply async for reply in replies] == []
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetBalance(request)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert refused.value.details() == "send authorization: Bearer <token>"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetBalance(request, metadata=(("x-api-key", f"{CLIENT}.wrong"),))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert refused.value.details() == "this API key is not valid"
        refusal = from_rpc(refused.value)
        assert (type(refusal), refusal.reason) == (Unauthenticated, "BAD_CREDENTIALS"), "the details survive"


async def test_nobody_outside_speaks_as_siyu(edge: TestEdge) -> None:
    # a forged client or address would spend another's limit
    headers = {**edge.bearer("identity.read"), "x-siyu-client": BUSY_CLIENT, "x-siyu-address": "1.2.3.4"}
    assert (await edge.http.get("/v1/tenant", headers=headers)).status_code == 200
    log = [json.loads(line) for line in await _access_log(edge) if line.startswith("{")]
    assert BUSY_CLIENT not in {line.get("client") for line in log}


async def test_the_access_log_knows_no_person(edge: TestEdge) -> None:
    headers = {**edge.bearer("identity.read"), "user-agent": "agent-of-a-person"}
    await edge.http.get("/v1/stores?pageToken=told-in-a-query", headers=headers)
    await edge.http.get(BALANCE, headers=edge.bearer("loyalty.points.read"))
    lines = await _access_log(edge)
    assert any('"siyu.identity.v1.StoreService.ListStores"' in line for line in lines)
    for secret in ("told-in-a-query", MEMBER, "agent-of-a-person", SECRET, "Bearer"):
        assert not any(secret in line for line in lines), secret


async def test_envoys_own_refusals_over_grpc_have_details(edge: TestEdge) -> None:
    async def slow(_request: Message, _call: Call) -> Message:
        await asyncio.sleep(30)
        return points_pb2.GetBalanceResponse()

    metadata = tuple(edge.bearer("loyalty.points.read loyalty.points.write").items())
    large = points_pb2.AccrueRequest(reason="x" * (5 * 1024 * 1024))
    edge.answers["siyu.loyalty.v1.PointsService.GetBalance"] = slow
    options = (("grpc.max_send_message_length", -1),)
    try:
        async with grpc.aio.insecure_channel(edge.target, options=options) as channel:
            stub = points_pb2_grpc.PointsServiceStub(channel)
            nowhere = channel.unary_unary("/siyu.common.v1.FeedService/ReadLog", request_serializer=bytes)
            valid = points_pb2.GetBalanceRequest(member_id=MEMBER, point_currency="points")
            for call, code, reason in (
                (nowhere(b"", metadata=metadata), grpc.StatusCode.UNIMPLEMENTED, "PATH_NOT_FOUND"),
                (stub.Accrue(large, metadata=metadata), grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_LARGE"),
                (stub.GetBalance(valid, metadata=metadata), grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() is code, refused.value
                assert from_rpc(refused.value).reason == reason
    finally:
        edge.answers.pop("siyu.loyalty.v1.PointsService.GetBalance")


async def test_too_large_a_request(edge: TestEdge) -> None:
    body = json.dumps({**ACCRUE, "reason": "x" * (5 * 1024 * 1024)})
    headers = {"content-type": "application/json", **edge.bearer("loyalty.points.write")}
    reply = await edge.http.post("/v1/points:accrue", content=body, headers=headers)
    check_status(reply, http=413, code=3, reason="REQUEST_TOO_LARGE")


async def test_every_operation_answers(edge: TestEdge) -> None:
    """Each OpenAPI operation, called with the example from its schema, reaches the RPC that it says."""
    for name in [name for name in edge.answers if "TokenService" not in name]:
        del edge.answers[name]
    reached: set[str] = set()
    for example in examples():
        rpc = example.operation["x-siyu-grpc"]
        edge.seen.clear()
        headers = edge.bearer(" ".join(example.operation["x-siyu-scopes"]), kind=_kind(rpc))
        reply = await edge.http.request(example.verb, example.url, json=example.body, headers=headers)
        label = f"{example} → {reply.status_code} {reply.text[:300]}"
        if "TokenService" not in rpc:
            assert reply.status_code == 200, label
            seen = [f"/{name.rpartition('.')[0]}/{name.rpartition('.')[2]}" for name, _, _ in edge.seen]
            assert seen == [rpc], label
        reached.add(rpc)
    assert reached == {rpc.path for rpc in contracts.rpcs() if rpc.bindings}


def _kind(path: str) -> str:
    rule = next(rpc.rule for rpc in contracts.rpcs() if rpc.path == path)
    kinds = {1: "pos", 2: "backend", 3: "supplier", 4: "partner", 5: "staff", 6: "service", 7: "platform"}
    return kinds[rule.actors[0]] if rule.actors else "backend"


async def test_a_limit_is_per_client_and_says_when_to_come_back(tmp_path: Path, valkey_url: str) -> None:
    # nothing comes back meanwhile, however slow the machine is
    limits = {"SIYU_EDGE_CLIENT_RATE_PER_S": "0.01", "SIYU_EDGE_CLIENT_BURST": "20"}
    async with running_edge(tmp_path, valkey_url, **limits) as edge:
        busy, refused = await _forty_at_once(edge)
        assert len(refused) == 20
        check_status(refused[0], http=429, code=8, reason="RATE_LIMITED")
        assert int(refused[0].headers["retry-after"]) >= 1
        calm = edge.bearer("identity.read", client="0199a3c4-7d1e-7000-8000-0000000000c3", tenant=OTHER_TENANT)
        assert (await edge.http.get("/v1/tenant", headers=calm)).status_code == 200
        async with grpc.aio.insecure_channel(edge.target) as channel:
            get = points_pb2_grpc.PointsServiceStub(channel).GetBalance

            async def is_over() -> bool:
                try:
                    await get(points_pb2.GetBalanceRequest(), metadata=tuple(busy.items()))
                except grpc.aio.AioRpcError as refusal:
                    return refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                return False

            # an edge that counts alone for a while lets a burst more pass
            await eventually(is_over)


async def test_guessed_keys_cost_identity_no_more_than_an_addresss_calls(tmp_path: Path, valkey_url: str) -> None:
    limits = {**GENEROUS, "SIYU_EDGE_ADDRESS_RATE_PER_S": "0.01", "SIYU_EDGE_ADDRESS_BURST": "5"}
    redis = Redis.from_url(valkey_url)
    await redis.delete("edge:limit:address/127.0.0.1")
    async with running_edge(tmp_path, valkey_url, **limits) as edge:
        good = {"x-api-key": f"{CLIENT}.{SECRET}"}
        for _ in range(8):
            assert (await edge.http.get(BALANCE, headers=good)).status_code == 200
        assert not await redis.exists("edge:limit:address/127.0.0.1"), "a good key was no guess"
        edge.seen.clear()
        guesses = [{"x-api-key": f"{CLIENT}.guess-{number}"} for number in range(40)]
        before = await _uncounted(edge)
        replies = await asyncio.gather(*(edge.http.get(BALANCE, headers=guess) for guess in guesses))
        asked = [name for name, _, _ in edge.seen if name.endswith("IssueToken")]
        # an edge that counts alone for a while lets a burst more pass
        most = 5 if await _uncounted(edge) == before else 10
        assert len(asked) <= most
        assert sum(reply.status_code == 401 for reply in replies) == len(asked)
        check_status(next(each for each in replies if each.status_code == 429), http=429, code=8, reason="RATE_LIMITED")
        assert (await edge.http.get(BALANCE, headers=good)).status_code == 200, "beside the guesses"
    await redis.delete("edge:limit:address/127.0.0.1")
    await redis.aclose()


async def _forty_at_once(edge: TestEdge) -> tuple[dict[str, str], list[httpx.Response]]:
    """A client's headers, and those of its forty calls that were refused, once Valkey was asked in time for each.

    On a machine under load it may not be: the edge then counts alone, and lets more pass, as it should.
    """
    for _ in range(ROUNDS):
        headers = edge.bearer("identity.read", client=new_id())
        before = await _uncounted(edge)
        replies = await asyncio.gather(*(edge.http.get("/v1/tenant", headers=headers) for _ in range(40)))
        refused = [reply for reply in replies if reply.status_code == 429]
        assert len(refused) <= 20, "nobody is refused before the burst is spent"
        if await _uncounted(edge) == before:
            return headers, refused
        await asyncio.sleep(ALONE_FOR_S)
    raise AssertionError("Valkey was never asked in time")


async def _uncounted(edge: TestEdge) -> tuple[float, str]:
    """Moves with each call that was not counted in Valkey: by the application's account, and by Envoy's."""
    async with httpx.AsyncClient() as client:
        allowed = await client.get(f"{edge.admin}/stats", params={"filter": "limit.failure_mode_allowed"})
    assert "failure_mode_allowed" in allowed.text
    return edge.application.edge.limits._alone_until_s, allowed.text


async def test_without_valkey_limits_are_kept_alone(tmp_path: Path) -> None:
    limits = {"SIYU_EDGE_CLIENT_RATE_PER_S": "1", "SIYU_EDGE_CLIENT_BURST": "20"}
    async with running_edge(tmp_path, "redis://127.0.0.1:1/0", **limits) as edge:
        busy = edge.bearer("identity.read", client=BUSY_CLIENT)
        replies = await asyncio.gather(*(edge.http.get("/v1/tenant", headers=busy) for _ in range(40)))
        assert {reply.status_code for reply in replies} == {200, 429}


async def test_without_the_application_tokens_still_pass(tmp_path: Path, valkey_url: str) -> None:
    async with running_edge(tmp_path, valkey_url) as edge:
        assert (await edge.http.get("/v1/tenant", headers=edge.bearer("identity.read"))).status_code == 200
        await edge.application.stop()
        for _ in range(3):
            reply = await edge.http.get("/v1/tenant", headers=edge.bearer("identity.read"))
            assert reply.status_code == 200, "keys are known, and a limit that can't be asked stops nobody"
        reply = await edge.http.get("/v1/tenant", headers={"x-api-key": f"{CLIENT}.{SECRET}"})
        check_status(reply, http=503, code=14, reason="UNAVAILABLE")
        check_status(await edge.http.get("/docs"), http=503, code=14, reason="UNAVAILABLE")


async def test_without_keys_no_token_is_called_bad(tmp_path: Path, valkey_url: str) -> None:
    """Whoever is told 401 throws the token away, and asks identity for another."""
    async with running_edge(tmp_path, valkey_url, tells_keys=False) as edge:
        headers = edge.bearer("identity.read loyalty.points.read")
        reply = await edge.http.get("/v1/tenant", headers=headers)
        check_status(reply, http=503, code=14, reason="KEYS_NOT_READY")
        async with grpc.aio.insecure_channel(edge.target) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await points_pb2_grpc.PointsServiceStub(channel).GetBalance(
                    points_pb2.GetBalanceRequest(), metadata=tuple(headers.items())
                )
        refusal = from_rpc(refused.value)
        assert (type(refusal), refusal.reason) == (Unavailable, "KEYS_NOT_READY")


async def _access_log(edge: TestEdge) -> list[str]:
    """What Envoy logged; it writes in batches."""
    await asyncio.sleep(0.5)
    return await asyncio.to_thread(lambda: edge.log.read_text().splitlines())
