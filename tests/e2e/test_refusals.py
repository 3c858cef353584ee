"""Bad input at every RPC of the running services, generated from the contracts: a clear refusal, and never INTERNAL.

The adapter's checks of every malformed field are in tests/contract; here each RPC is called over gRPC.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

import grpc
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from gateway import contracts
from gateway.openapi import reasons
from services.console.audit import Auditor, Finding
from services.console.demo.calls import Caller
from services.console.stack.local import LocalStack
from services.runtime.call import ActorKind
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2, coupon_pb2_grpc
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import tenant_pb2, tenant_pb2_grpc
from siyu.loyalty.v1 import points_pb2_grpc
from tests.e2e.outcomes import Installation, Outcome, installation, stranger
from tests.e2e.shop import CUP, FLOWERS, TEA, Shop, client, open_shop
from tests.e2e.valid_calls import CALLS
from tests.e2e.valid_calls.campaign import hold_benefits
from tests.e2e.valid_calls.loyalty import hold_points
from tests.e2e.valid_calls.suppliers import requested
from tests.requests import Rpc, largest, malformed, out_of_bounds, rpcs, well_formed

RPCS = rpcs()
GUARDED = [rpc for rpc in RPCS if not rpc.rule.public]
CHANGING = [rpc for rpc in RPCS if rpc.rule.family]
CHANGED_BY_SERVICES = [rpc for rpc in CHANGING if not rpc.rule.kinds]
MALFORMED_EACH = 3
AT_ONCE = 4
# what a caller can be told who asks for what is not there, or may not be
CLEAR = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z")
_PAGE = re.compile(r"\"nextPageToken\": \"[^\"]*\"")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def siyu(stack: LocalStack) -> AsyncIterator[Installation]:
    async with installation(stack) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(stack: LocalStack) -> AsyncIterator[Shop]:
    opened = await open_shop(stack)
    yield opened
    await opened.wire.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def empty_tenant(shop: Shop) -> str:
    """A brand with nothing in it."""
    made = await shop.call(
        tenant_pb2_grpc.TenantServiceStub,
        "CreateTenant",
        tenant_pb2.CreateTenantRequest(request_id=new_id(), code=f"empty-{new_id()[-12:]}", display_name="Empty"),
        caller=shop.platform,
    )
    return str(made.tenant.tenant_id)


def entitled(siyu: Installation, rpc: Rpc, tenant_id: str, *, kind: ActorKind | None = None) -> str:
    """A token that the RPC's rule lets in."""
    fits = kind or min(rpc.rule.kinds, default=ActorKind.BACKEND)
    platform = fits is ActorKind.PLATFORM
    return siyu.token(kind=fits, scopes=rpc.rule.scopes, tenant_id="" if platform else tenant_id)


# --- who is calling? -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc", GUARDED, ids=str)
async def test_a_caller_that_is_not_known_or_not_allowed(siyu: Installation, shop: Shop, rpc: Rpc) -> None:
    request = well_formed(rpc)
    rule = rpc.rule

    async def told(token: str) -> tuple[grpc.StatusCode, str]:
        outcome = await siyu.send(rpc, request, token=token)
        return outcome.code, outcome.reason

    unknown = grpc.StatusCode.UNAUTHENTICATED
    known = {"scopes": rule.scopes, "tenant_id": shop.tenant_id}
    assert await told("") == (unknown, "TOKEN_MISSING")
    assert await told(siyu.token(key=stranger(siyu.key), **known)) == (unknown, "TOKEN_INVALID")
    assert await told(siyu.token(age=timedelta(hours=1), **known)) == (unknown, "TOKEN_EXPIRED")
    denied = grpc.StatusCode.PERMISSION_DENIED
    fits = min(rule.kinds, default=ActorKind.BACKEND)
    unrelated = frozenset({"identity.read", "campaign.quote"}) - rule.scopes
    assert await told(siyu.token(kind=fits, scopes=unrelated, tenant_id=shop.tenant_id)) == (denied, "SCOPE_MISSING")
    if rule.kinds:
        assert await told(siyu.token(kind=ActorKind.PARTNER, **known)) == (denied, "ACTOR_KIND_REFUSED")
    else:
        assert await told(siyu.token(scopes=rule.scopes)) == (denied, "TENANT_MISSING")
    if rule.object and rule.object_path:
        bound = {"store_id": "elsewhere", "supplier_id": "elsewhere"}
        kind = ActorKind.SUPPLIER if rule.object == rule_pb2.OBJECT_SCOPE_OWN_SUPPLIER else ActorKind.POS
        token = siyu.token(kind=kind, **known, **bound)
        assert await told(token) == (denied, "OUT_OF_SCOPE")
        assert (await siyu.send(rpc, request, token=token)).metadata["field"] == ".".join(rule.object_path)


async def test_a_client_with_one_scope_reaches_what_it_opens_and_nothing_else(siyu: Installation, shop: Shop) -> None:
    """A real client of identity, and not a token of our own making."""
    reader = await client(shop, rule_pb2.ACTOR_KIND_PARTNER, scopes=("loyalty.tiers.read",))
    token = await shop.wire.token(reader)
    opened = set()
    for rpc in GUARDED:
        outcome = await siyu.send(rpc, well_formed(rpc), token=token)
        if outcome.reason != "SCOPE_MISSING":
            opened.add(rpc.method.name)
    assert opened == {"GetTier", "ListTierChanges"}


@pytest.mark.parametrize("rpc", CHANGED_BY_SERVICES, ids=str)
async def test_a_service_that_changes_something_says_until_when(siyu: Installation, shop: Shop, rpc: Rpc) -> None:
    token = entitled(siyu, rpc, shop.tenant_id, kind=ActorKind.SERVICE)
    outcome = await siyu.send(rpc, well_formed(rpc), token=token, timeout_s=None)
    assert (outcome.code, outcome.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED")


# --- what is asked? --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc", RPCS, ids=str)
async def test_a_malformed_field_is_named(siyu: Installation, shop: Shop, rpc: Rpc) -> None:
    token = "" if rpc.rule.public else entitled(siyu, rpc, shop.tenant_id)
    for case in (*islice(malformed(rpc), MALFORMED_EACH), *out_of_bounds(rpc)):
        outcome = await siyu.send(rpc, case.request, token=token)
        assert outcome.code is grpc.StatusCode.INVALID_ARGUMENT, (case.field, case.why, outcome)
        named = [re.sub(r"\[\d+\]", "", name) for name in outcome.fields]
        assert any(name == case.field or name.startswith(f"{case.field}.") for name in named), (case.field, outcome)


@pytest.mark.parametrize("rpc", RPCS, ids=str)
@pytest.mark.parametrize("brand", ["empty", "furnished"])
async def test_what_is_not_there_is_said_so(
    siyu: Installation, shop: Shop, empty_tenant: str, rpc: Rpc, brand: str
) -> None:
    token = "" if rpc.rule.public else entitled(siyu, rpc, empty_tenant if brand == "empty" else shop.tenant_id)
    outcome = await siyu.send(rpc, well_formed(rpc), token=token)
    check_clear(rpc, outcome)


@pytest.mark.parametrize("rpc", RPCS, ids=str)
@pytest.mark.parametrize("brand", ["empty", "furnished"])
async def test_nothing_that_the_contract_allows_is_too_large(
    siyu: Installation, shop: Shop, empty_tenant: str, rpc: Rpc, brand: str
) -> None:
    token = "" if rpc.rule.public else entitled(siyu, rpc, empty_tenant if brand == "empty" else shop.tenant_id)
    request = largest(rpc)
    if brand == "furnished":
        named(request, {"point_currency": "points", "sku": TEA, "store_id": "s1", "supplier_id": "florist"})
    outcome = await siyu.send(rpc, request, token=token)
    check_clear(rpc, outcome)


def check_clear(rpc: Rpc, outcome: Outcome) -> None:
    """Answered, or refused in the contract's own words."""
    if outcome.code is grpc.StatusCode.OK:
        told = of_items(rpc)
        assert all(reason in told for reason in refusals_within(outcome)), (told, outcome)
        return
    assert outcome.code in CLEAR, outcome
    assert outcome.reason in documented(rpc), f"{outcome.reason} is not in the comment of {rpc}: {outcome}"
    if outcome.code is grpc.StatusCode.INVALID_ARGUMENT:
        assert outcome.fields, outcome


def documented(rpc: Rpc) -> frozenset[str]:
    """The reasons that the RPC's comment lists, and those that every call can meet."""
    known = next((each for each in contracts.rpcs() if each.path == rpc.path), None)
    if known is not None:
        return frozenset(refusal.reason for refusal in reasons.refusals_of(known))
    comment = contracts.comments().get(rpc.method.full_name, "")
    return frozenset(refusal.reason for refusal in reasons.declared(comment)) | {"INVALID_FIELD"}


def of_items(rpc: Rpc) -> str:
    """What the comment says of the refusals of single items, with the comment of the RPC that it refers to."""
    comments = contracts.comments()
    told = comments.get(rpc.method.full_name, "")
    others = re.findall(r"Refusals\s+of\s+an?\s+\w+\s+are\s+(\w+)'s", told)
    contract = rpc.method.containing_service.full_name
    return " ".join((told, *(comments[f"{contract}.{other}"] for other in others), "INVALID_FIELD"))


# --- somebody else's -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """What a brand has, by the names that requests give it; holds by the service that keeps them."""

    names: Mapping[str, str]
    holds: Mapping[str, str] = field(default_factory=dict)

    def of(self, rpc: Rpc) -> dict[str, str]:
        """By field name, for one RPC."""
        return {**self.names, "hold_id": self.holds.get(rpc.service, "")}

    @property
    def all(self) -> frozenset[str]:
        """Every name."""
        return frozenset((*self.names.values(), *self.holds.values()))


async def trade(shop: Shop) -> Objects:
    """A sale with all that belongs to it."""
    member_id = await shop.member(points=500)
    code = await shop.coupon(member_id)
    partner = await client(shop, rule_pb2.ACTOR_KIND_PARTNER)
    order = await shop.sell(shop.basket((TEA, 2), (CUP, 1), (FLOWERS, 1), member_id=member_id, burn_points=100))
    points, benefits = (await hold_points(shop)).request, (await hold_benefits(shop)).request
    await shop.call(points_pb2_grpc.PointsServiceStub, "HoldPoints", points)
    await shop.call(coupon_pb2_grpc.CouponServiceStub, "HoldBenefits", benefits)
    listed = await shop.call(
        coupon_pb2_grpc.CouponServiceStub, "ListCoupons", coupon_pb2.ListCouponsRequest(member_id=member_id)
    )
    await shop.settled(order.order_id)
    return Objects(
        names={
            "order_id": order.order_id,
            "member_id": member_id,
            "other_member_id": await shop.member(),
            "client_id": partner.client_id,
            "supplier_order_id": await requested(shop),
            "coupon_id": listed.coupons[0].coupon_id,
            "coupon_codes": code,
            "value": shop.cards[0],
        },
        holds={"loyalty": points.hold_id, "campaign": benefits.hold_id},
    )


def nobodys() -> Objects:
    """Names that nobody has."""
    ids = ("order_id", "member_id", "other_member_id", "client_id", "supplier_order_id", "coupon_id")
    return Objects(
        names={**{name: new_id() for name in ids}, "coupon_codes": f"C{new_id()[-12:]}", "value": f"card-{new_id()}"},
        holds={"loyalty": new_id(), "campaign": new_id()},
    )


def named(message: Message, names: Mapping[str, str]) -> bool:
    """Puts the names into the request's fields of that name, wherever there is a message; whether there was any."""
    found = False
    for descriptor in message.DESCRIPTOR.fields:
        value = getattr(message, descriptor.name)
        if descriptor.message_type is not None:
            if not descriptor.message_type.full_name.startswith("siyu."):
                continue
            inside = value if descriptor.is_repeated else [value] if message.HasField(descriptor.name) else []
            found = sum(named(each, names) for each in inside) > 0 or found
        elif names.get(descriptor.name):
            if descriptor.is_repeated:
                value[:] = [names[descriptor.name]]
            else:
                setattr(message, descriptor.name, names[descriptor.name])
            found = True
    return found


async def test_another_brands_objects_are_not_there(siyu: Installation, stack: LocalStack, shop: Shop) -> None:
    """Whatever names another brand's object is answered as if nobody had it, and moves nothing of it."""
    theirs = await open_shop(stack)
    objects, nobody = await trade(theirs), nobodys()
    before = await books(stack, theirs)
    wrong: list[object] = []
    tried = set()
    for rpc in GUARDED:
        token = entitled(siyu, rpc, shop.tenant_id)
        request, same = well_formed(rpc), well_formed(rpc)
        if named(request, objects.of(rpc)):
            tried.add(rpc.method.name)
            named(same, nobody.of(rpc))
            answers = [await siyu.send(rpc, each, token=token) for each in (request, same)]
            if masked(answers[0], objects) != masked(answers[1], nobody):
                wrong.append((str(rpc), *answers))
        else:
            answer = await siyu.send(rpc, request, token=token)
            wrong += [(str(rpc), answer)] * any(name in str(answer.reply) for name in objects.all)
    assert wrong == []
    assert tried >= {"GetOrder", "RefundOrder", "GetBalance", "RevokeClient", "ListCoupons", "CaptureHold", "VoidHold"}
    assert await books(stack, theirs) == before
    await theirs.wire.close()


async def books(stack: LocalStack, shop: Shop) -> list[Finding]:
    """What the audit sees of one brand: the logs are everybody's."""
    auditor = Auditor(addresses=stack.addresses, client_secret=stack.client_secret("service:console"))
    found = await auditor.audit(shop.tenant_id)
    assert [each for each in found if not each.ok] == []
    return [each for each in found if each.check != "taken exactly once" and not each.check.endswith(".log_runs_on")]


def masked(outcome: Outcome, names: Objects) -> tuple[grpc.StatusCode, str, str]:
    """What the caller sees, less what it sent itself and what is new each time."""
    shown = "" if outcome.reply is None else MessageToJson(outcome.reply)
    for name in sorted(names.all, key=len, reverse=True):
        shown = shown.replace(name, "<name>")
    return outcome.code, outcome.reason, _PAGE.sub("<page>", _TIME.sub("<time>", _UUID.sub("<id>", shown)))


async def test_a_supplier_sees_its_own_orders_and_shares_only(siyu: Installation, shop: Shop) -> None:
    supplier_order_id = await requested(shop)
    by_name = {rpc.method.name: rpc for rpc in RPCS if rpc.service == "commerce"}
    other = siyu.token(
        kind=ActorKind.SUPPLIER,
        tenant_id=shop.tenant_id,
        supplier_id="baker",
        scopes=frozenset(
            {"commerce.supplier_orders.read", "commerce.supplier_orders.write", "commerce.settlement.read"}
        ),
    )
    for name in ("AcceptSupplierOrder", "RejectSupplierOrder", "ShipParcel", "DeliverParcel"):
        request = well_formed(by_name[name])
        named(request, {"supplier_order_id": supplier_order_id})
        outcome = await siyu.send(by_name[name], request, token=other)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.NOT_FOUND, "SUPPLIER_ORDER_NOT_FOUND")
    for kind, party in ((1, "florist"), (2, "brand"), (3, "s1")):
        request = well_formed(by_name["GetStatement"])
        request.party_kind, request.party_id = kind, party  # type: ignore[attr-defined]
        outcome = await siyu.send(by_name["GetStatement"], request, token=other)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OUT_OF_SCOPE"), party
        request = well_formed(by_name["ListClosedStatements"])
        request.party_kind, request.party_id = kind, party  # type: ignore[attr-defined]
        outcome = await siyu.send(by_name["ListClosedStatements"], request, token=other)
        assert (outcome.code, outcome.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OUT_OF_SCOPE"), party


# --- again? ----------------------------------------------------------------------------------------------------------


def test_every_changing_rpc_has_a_valid_call() -> None:
    changing = {f"{rpc.method.containing_service.name}.{rpc.method.name}" for rpc in CHANGING}
    assert changing == set(CALLS)


@pytest.mark.parametrize("rpc", CHANGING, ids=str)
async def test_a_request_id_stands_for_one_body(siyu: Installation, shop: Shop, rpc: Rpc) -> None:
    """The same again is answered the same, at once or later; another body is refused, and changes nothing."""
    valid = await CALLS[f"{rpc.method.containing_service.name}.{rpc.method.name}"](shop)
    token = await shop.wire.token(valid.caller or shop.admin)
    # at once, as an impatient till or a retrying proxy does
    first, *copies = await asyncio.gather(*(siyu.send(rpc, valid.request, token=token) for _ in range(AT_ONCE)))
    assert first.code is grpc.StatusCode.OK, first
    assert refusals_within(first) == set(), first
    for copy in copies:
        assert copy.code is grpc.StatusCode.OK, copy
        assert without_duplicate(copy.reply) == without_duplicate(first.reply)
    for request, answer in ((valid.request, None), (valid.other, "REQUEST_ID_REUSED"), (valid.request, None)):
        outcome = await siyu.send(rpc, request, token=token)
        if answer is None:
            assert without_duplicate(outcome.reply) == without_duplicate(first.reply)
        elif outcome.code is grpc.StatusCode.OK:
            assert refusals_within(outcome) == {answer}, outcome
        else:
            assert (outcome.code, outcome.reason) == (grpc.StatusCode.ALREADY_EXISTS, answer)


def refusals_within(outcome: Outcome) -> set[str]:
    """The refusals of single items of a batch."""
    found: set[str] = set()
    for descriptor, items in outcome.reply.ListFields() if outcome.reply is not None else ():
        if descriptor.message_type is not None and descriptor.is_repeated:
            found |= {item.refusal_reason for item in items if getattr(item, "refusal_reason", "")}
    return found


def without_duplicate(reply: Message | None) -> Message | None:
    """An off-line sale says whether it was recorded before: the one thing that a repeated reply tells differently."""
    for verdict in getattr(reply, "verdicts", ()):
        if hasattr(verdict, "duplicate"):
            verdict.duplicate = False
    return reply


async def test_request_ids_of_two_clients_are_two(siyu: Installation, shop: Shop) -> None:
    rpc = next(rpc for rpc in CHANGING if rpc.method.name == "Accrue")
    valid = await CALLS["PointsService.Accrue"](shop)
    one: Caller = await client(shop, rule_pb2.ACTOR_KIND_BACKEND)
    two: Caller = await client(shop, rule_pb2.ACTOR_KIND_BACKEND)
    first = await siyu.send(rpc, valid.request, token=await shop.wire.token(one))
    second = await siyu.send(rpc, valid.other, token=await shop.wire.token(two))
    assert (first.code, second.code) == (grpc.StatusCode.OK, grpc.StatusCode.OK)
