"""The edge of the running stack: what a partner and a till do over REST, with the real services behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio

from services.console.stack.local import LocalStack
from services.runtime.ids import new_id
from siyu.common.v1 import rule_pb2
from tests.e2e.edge import examples
from tests.e2e.shop import STORE, TEA, TEA_CENTS, Shop, client, open_shop
from tests.e2e.test_edge import check_status

FEED_TIMEOUT_S = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(stack: LocalStack) -> AsyncIterator[Shop]:
    shop = await open_shop(stack)
    yield shop
    await shop.wire.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def http(stack: LocalStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{stack.addresses['edge']}", timeout=15) as http:
        yield http


async def signed_in(http: httpx.AsyncClient, caller: Any) -> dict[str, str]:
    reply = await http.post("/v1/token", json={"clientId": caller.client_id, "clientSecret": caller.secret})
    assert reply.status_code == 200, reply.text
    return {"authorization": f"Bearer {reply.json()['accessToken']}"}


def by_key(caller: Any) -> dict[str, str]:
    return {"x-api-key": f"{caller.client_id}.{caller.secret}"}


async def test_a_till_sells_over_rest(http: httpx.AsyncClient, shop: Shop) -> None:
    member_id = await shop.member()
    basket = {
        "storeId": STORE,
        "channel": "pos",
        "memberId": member_id,
        "lines": [{"lineId": "1", "sku": TEA, "quantity": "2"}],
    }
    sale = {"tillId": "rest", "saleNumber": "1", "basket": basket, "payments": [{"tender": "TENDER_CASH"}]}
    asked = {"requestId": new_id(), "sale": sale}
    headers = await signed_in(http, shop.till)
    first = await http.post("/v1/pos:sell", json=asked, headers=headers)
    assert first.status_code == 200, first.text
    order = first.json()["order"]
    assert (order["state"], order["netMinor"]) == ("ORDER_STATE_PAID", str(2 * TEA_CENTS))
    again = await http.post("/v1/pos:sell", json=asked, headers=by_key(shop.till))
    assert again.json()["order"]["orderId"] == order["orderId"], "a repeated request is answered the same"
    other = {**asked, "sale": {**sale, "saleNumber": "2"}}
    reused = await http.post("/v1/pos:sell", json=other, headers=headers)
    check_status(reused, http=409, code=6, reason="REQUEST_ID_REUSED")


async def test_a_bad_log_in(http: httpx.AsyncClient, shop: Shop) -> None:
    reply = await http.post("/v1/token", json={"clientId": shop.till.client_id, "clientSecret": "wrong"})
    check_status(reply, http=401, code=16, reason="BAD_CREDENTIALS")
    headers = {"x-api-key": f"{shop.till.client_id}.wrong"}
    check_status(await http.get("/v1/tenant", headers=headers), http=401, code=16, reason="BAD_CREDENTIALS")


async def test_a_till_may_not_make_clients(http: httpx.AsyncClient, shop: Shop) -> None:
    asked = {"requestId": new_id(), "displayName": "x", "kind": "ACTOR_KIND_BACKEND"}
    reply = await http.post("/v1/clients", json=asked, headers=by_key(shop.till))
    check_status(reply, http=403, code=7, reason="SCOPE_MISSING")


async def test_a_till_sees_its_own_store_only(http: httpx.AsyncClient, shop: Shop) -> None:
    own = await http.get(f"/v1/stores/{STORE}", headers=by_key(shop.till))
    assert own.status_code == 200, own.text
    reply = await http.get(f"/v1/stores/{STORE}", headers=by_key(shop.other_till))
    check_status(reply, http=403, code=7, reason="OUT_OF_SCOPE")


async def test_a_partner_follows_the_feed(http: httpx.AsyncClient, shop: Shop) -> None:
    partner = await client(shop, rule_pb2.ACTOR_KIND_PARTNER, scopes=("events.read", "commerce.orders.read"))
    headers = by_key(partner)
    begin = await http.get("/v1/events", params={"start": "now"}, headers=headers)
    assert begin.status_code == 200, begin.text
    assert begin.json()["events"] == []
    member_id = await shop.member()
    order = await shop.sell(shop.basket((TEA, 1), member_id=member_id))
    wanted = {"identity.MemberRegistered": member_id, "commerce.OrderPaid": order.order_id}
    cursor, found = begin.json()["nextCursor"], {}
    until = time.monotonic() + FEED_TIMEOUT_S
    while wanted.keys() - found.keys() and time.monotonic() < until:
        page = (await http.get("/v1/events", params={"cursor": cursor}, headers=headers)).json()
        cursor = page["nextCursor"]
        found |= {event["type"]: event for event in page["events"]}
        await asyncio.sleep(0.1)
    assert {name: found[name]["aggregateId"] for name in wanted if name in found} == wanted
    assert found["commerce.OrderPaid"]["payload"]["netMinor"] == str(TEA_CENTS)
    assert found["identity.MemberRegistered"]["payload"]["memberId"] == member_id


async def test_one_brand_does_not_see_the_other(http: httpx.AsyncClient, shop: Shop, stack: LocalStack) -> None:
    other = await open_shop(stack)
    order = await shop.sell(shop.basket((TEA, 1)))
    reply = await http.get(f"/v1/orders/{order.order_id}", headers=by_key(other.admin))
    check_status(reply, http=404, code=5, reason="ORDER_NOT_FOUND")
    page = (await http.get("/v1/events", headers=by_key(other.admin))).json()
    assert shop.tenant_id not in str(page)
    ours = (await http.get("/v1/events", params={"start": "now"}, headers=by_key(shop.admin))).json()["nextCursor"]
    stolen = await http.get("/v1/events", params={"cursor": ours}, headers=by_key(other.admin))
    check_status(stolen, http=400, code=3, reason="CURSOR_INVALID")
    await other.wire.close()


async def test_every_operation_of_the_real_services_answers(http: httpx.AsyncClient, shop: Shop) -> None:
    """Called with the example of its schema, each does it or says why not: none is missing, and none has a bug."""
    headers = by_key(shop.admin)
    for example in examples():
        reply = await http.request(example.verb, example.url, json=example.body, headers=headers)
        label = f"{example.verb} {example.url} {example.body} → {reply.status_code} {reply.text[:500]}"
        assert reply.status_code < 500, label
        if reply.status_code != 200:
            reason = reply.json()["details"][0]["reason"]
            assert reason not in {"PATH_NOT_FOUND", "MALFORMED_REQUEST", "INTERNAL"}, label
