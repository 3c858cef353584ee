"""The OpenAPI document and the API page against the contracts."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import protovalidate
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from gateway import contracts
from gateway.contracts import Binding
from gateway.docs import documents
from gateway.docs.page import inline, prose
from gateway.docs.sample import sample
from gateway.openapi.document import as_json, document, first_sentence, openapi_path
from gateway.openapi.reasons import Refusal, declared
from services.runtime.settings import SERVICES
from siyu.campaign.v1 import coupon_pb2
from siyu.loyalty.v1 import points_pb2

Told = dict[str, Any]
BOUND = [
    pytest.param(rpc, binding, id=f"{binding.verb} {binding.template}")
    for rpc in contracts.rpcs()
    for binding in rpc.bindings
]


@pytest.fixture(scope="module")
def told() -> Told:
    return document()


def operation_of(told: Told, binding: Binding) -> dict[str, Any]:
    found: dict[str, Any] = told["paths"][openapi_path(binding)][binding.verb.lower()]
    return found


def operations(told: Told) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in told["paths"].items():
        for verb, operation in item.items():
            yield path, verb, operation


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


@pytest.mark.parametrize(("rpc", "binding"), BOUND)
def test_an_rpc_is_told_with_its_comment_and_its_rule(told: Told, rpc: contracts.Rpc, binding: Binding) -> None:
    operation = operation_of(told, binding)
    assert rpc.comment, "every RPC has a comment"
    assert rpc.comment in operation["description"]
    assert operation["x-siyu-grpc"] == rpc.path
    assert operation["security"] == ([] if rpc.rule.public else [{"bearer": []}, {"apiKey": []}])
    for scope in rpc.rule.scopes:
        assert scope in operation["description"]


@pytest.mark.parametrize(("rpc", "binding"), BOUND)
def test_every_field_of_a_request_has_one_place(told: Told, rpc: contracts.Rpc, binding: Binding) -> None:
    operation = operation_of(told, binding)
    named = {each["name"] for each in operation["parameters"]}
    in_path = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
    assert in_path == set(re.findall(r"\{([^}]+)\}", openapi_path(binding)))
    fields = {field.json_name for field in rpc.descriptor.input_type.fields}
    if binding.body:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        properties = set(told["components"]["schemas"][body["$ref"].rpartition("/")[2]]["properties"])
        assert properties | {name for name in named if "." not in name} == fields
        assert not properties & named
    else:
        assert {name.partition(".")[0] for name in named} == fields


@pytest.mark.parametrize(("rpc", "binding"), BOUND)
def test_the_example_of_a_request_passes_its_own_rules(told: Told, rpc: contracts.Rpc, binding: Binding) -> None:
    """The schema and the rules that services enforce are read from the same place; here they meet."""
    operation = operation_of(told, binding)
    components = told["components"]["schemas"]
    request = GetMessageClass(rpc.descriptor.input_type)()
    if binding.body:
        json_format.ParseDict(
            sample(operation["requestBody"]["content"]["application/json"]["schema"], components), request
        )
    for each in operation["parameters"]:
        if each["in"] == "path":
            value: Any = sample(each["schema"], components, name=each["name"].rpartition(".")[2])
            for name in reversed(each["name"].split(".")):
                value = {name: value}
            json_format.ParseDict(value, request)
    protovalidate.validate(request)


def test_references_lead_somewhere_and_names_are_unique(told: Told) -> None:
    schemas = told["components"]["schemas"]
    for node in walk(told):
        if "$ref" in node:
            assert node["$ref"].removeprefix("#/components/schemas/") in schemas
    ids = [operation["operationId"] for _, _, operation in operations(told)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemas)
    assert set(schemas) - {"Status", "gateway.Event", "gateway.EventPage"} >= {"loyalty.AccrueRequest"}


def test_schemas_are_schemas(told: Told) -> None:
    kinds = {"object", "array", "string", "integer", "number", "boolean"}
    for name, schema in told["components"]["schemas"].items():
        for node in walk(schema):
            if isinstance(node.get("type"), str) and "properties" not in node.get("type", ""):
                assert node["type"] in kinds, name
            if isinstance(node.get("pattern"), str):
                re.compile(node["pattern"])
        assert set(schema.get("required", ())) <= set(schema.get("properties", ())), name


def test_every_answer_and_every_refusal_has_a_schema(told: Told) -> None:
    for path, verb, operation in operations(told):
        assert "200" in operation["responses"], (verb, path)
        for status, response in operation["responses"].items():
            assert response["description"], (verb, path, status)
            assert response["content"]["application/json"]["schema"]["$ref"], (verb, path, status)
        if operation["security"]:
            assert {"401", "403", "429"} <= set(operation["responses"]), (verb, path)


@pytest.mark.parametrize(
    ("message", "field", "expected"),
    [
        pytest.param(points_pb2.AccrueRequest, "memberId", {"type": "string", "format": "uuid"}, id="uuid"),
        pytest.param(
            points_pb2.AccrueRequest, "points", {"type": "string", "format": "int64"}, id="64 bits are a string"
        ),
        pytest.param(points_pb2.AccrueRequest, "requestId", {"minLength": 1, "maxLength": 128}, id="length"),
        pytest.param(points_pb2.AccrueRequest, "occurredAt", {"type": "string", "format": "date-time"}, id="time"),
        pytest.param(
            points_pb2.ListEntriesRequest, "pageSize", {"type": "integer", "minimum": 0, "maximum": 200}, id="bounds"
        ),
        pytest.param(points_pb2.BatchAccrueRequest, "items", {"type": "array", "minItems": 1}, id="items"),
    ],
)
def test_rules_become_schema(message: Any, field: str, expected: dict[str, Any]) -> None:
    from gateway.openapi.schema import Schemas

    schema = Schemas().message(message.DESCRIPTOR)["properties"][field]
    assert schema.items() >= expected.items()


def test_what_a_request_must_have() -> None:
    from gateway.openapi.schema import Schemas

    required = Schemas().message(points_pb2.AccrueRequest.DESCRIPTOR)["required"]
    assert required == ["requestId", "memberId", "pointCurrency", "points", "reason"]
    assert "required" not in Schemas().message(points_pb2.GetBalanceResponse.DESCRIPTOR)


def test_an_enum_says_what_its_values_mean() -> None:
    from gateway.openapi.schema import enum

    kind = next(iter(coupon_pb2.DESCRIPTOR.enum_types_by_name.values()))
    schema = enum(kind)
    assert schema["enum"] == [value.name for value in kind.values]
    assert all(f"`{value.name}`: " in schema["description"] for value in kind.values)


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        pytest.param("Reads. No refusals.", [], id="none"),
        pytest.param("Refusals: A_B (NOT_FOUND).", [("A_B", "NOT_FOUND")], id="one"),
        pytest.param(
            "Does.\n\nRefusals: A_B, C_D (NOT_FOUND); E_F (FAILED_PRECONDITION, metadata `g_h`)\nif I_J is so.",
            [("A_B", "NOT_FOUND"), ("C_D", "NOT_FOUND"), ("E_F", "FAILED_PRECONDITION")],
            id="several under one code, with words between",
        ),
    ],
)
def test_refusals_are_read_from_comments(comment: str, expected: list[tuple[str, str]]) -> None:
    assert declared(comment) == tuple(Refusal(reason=reason, code=code) for reason, code in expected)


def test_it_is_the_same_every_time() -> None:
    assert as_json() == json.dumps(document(), ensure_ascii=False, separators=(",", ":")).encode()


class Page(HTMLParser):
    """Ids, inner links, and whether tags are closed as they were opened."""

    VOID = frozenset({"meta", "link", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.sources: set[str] = set()
        self.articles: list[dict[str, str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "article":
            self.articles.append({name: str(value) for name, value in attrs})
        if tag not in self.VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        for name in ("href", "src"):
            if given.get(name):
                (self.links if str(given[name]).startswith("#") else self.sources).add(str(given[name]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_shows_every_call_and_every_link_leads_somewhere(told: Told) -> None:
    page = Page()
    page.feed(documents()["/docs"].content.decode())
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert {operation["operationId"] for _, _, operation in operations(told)} <= set(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert page.sources == {"/docs/icon.svg", "/docs/docs.css", "/docs/docs.js", "/openapi.json"}, "and no other page"
    assert page.sources <= set(documents()), "all of it is served"


def test_a_search_finds_by_what_is_a_calls_own() -> None:
    """What every call refuses would find every call: "token" is a word of few."""
    page = Page()
    page.feed(documents()["/docs"].content.decode())
    found = {each["id"] for each in page.articles if "token" in each["data-text"]}
    assert "TokenService_IssueToken" in found
    assert len(found) < len(page.articles) / 10
    by_name = {each["id"] for each in page.articles if "token" in each["data-name"]}
    assert by_name == {"TokenService_IssueToken"}, "what stands in front"
    refusing = {each["id"] for each in page.articles if "bad_credentials" in each["data-text"]}
    assert refusing == {"TokenService_IssueToken"}, "a call's own refusals are found"


def test_examples_say_what_the_services_need_beyond_the_contract(told: Told) -> None:
    components = told["components"]["schemas"]

    def example(name: str) -> Any:
        return sample({"$ref": f"#/components/schemas/{name}"}, components)

    assert example("commerce.StockDocumentLine")["quantity"] == "1"
    assert example("identity.Store")["active"] is True
    assert example("identity.Identifier") == {
        "type": "IDENTIFIER_TYPE_PHONE", "value": "+8613800138000", "verified": True,
    }  # fmt: skip
    merge = example("identity.MergeMembersRequest")
    assert merge["memberId"] != merge["otherMemberId"]


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        pytest.param("Reads. Then more.", "Reads", id="one of two"),
        pytest.param(
            "Finds the best total and\nexplains it. More.", "Finds the best total and explains it", id="wrapped"
        ),
        pytest.param("Asks a source, e.g. JD. More.", "Asks a source, e.g. JD", id="an abbreviation is no end"),
        pytest.param("Reads\n\nRefusals: A_B (NOT_FOUND).", "Reads", id="a paragraph ends it"),
        pytest.param("", "", id="none"),
    ],
)
def test_a_title_is_a_whole_sentence(comment: str, expected: str) -> None:
    assert first_sentence(comment) == expected


def test_identity_comes_first(told: Told) -> None:
    services = [tag["name"].partition(".")[0] for tag in told["tags"]]
    assert list(dict.fromkeys(services)) == [*SERVICES, "gateway"]


def test_comments_can_not_write_html() -> None:
    assert prose("<script>`<b>`</script>\n\n- **one**\n- two") == (
        "<p>&lt;script&gt;<code>&lt;b&gt;</code>&lt;/script&gt;</p><ul><li><strong>one</strong></li><li>two</li></ul>"
    )
    assert inline("a < b") == "a &lt; b"
