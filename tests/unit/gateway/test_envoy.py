"""Envoy's configuration against the contracts: everything annotated is routed, and nothing else gets in."""

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2

from gateway import contracts
from gateway.envoy.bootstrap import bootstrap
from gateway.envoy.listener import certificate_told
from gateway.envoy.names import API_KEY, BUFFER, LIMIT, TOKEN, TRANSCODER
from gateway.envoy.replies import _REPLIES, _TOKEN_REPLIES
from gateway.openapi.reasons import refusals_of
from gateway.pages import CLIENT_HEADER, KEY_CHECK, LIMIT_CHECK, PAGES
from gateway.refusals import HTTP_STATUS, METHOD_NOT_ALLOWED
from gateway.settings import EdgeSettings
from services.console.stack.wheels import envoy_program
from services.runtime.auth import bearer
from services.runtime.errors import Unauthenticated
from services.runtime.settings import SERVICES, Settings
from tests.e2e.certificates import self_signed

RPCS = [pytest.param(rpc, id=rpc.name.removeprefix("siyu.")) for rpc in contracts.rpcs()]


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    return bootstrap(Settings(), EdgeSettings())


def manager(rendered: dict[str, Any]) -> dict[str, Any]:
    chain = rendered["static_resources"]["listeners"][0]["filter_chains"][0]
    found: dict[str, Any] = chain["filters"][0]["typed_config"]
    return found


def routes(rendered: dict[str, Any]) -> dict[str, dict[str, Any]]:
    hosts = manager(rendered)["route_config"]["virtual_hosts"]
    assert len(hosts) == 1
    return {
        route["match"].get("path") or route["match"]["prefix"]: route
        for route in hosts[0]["routes"]
        if "safe_regex" not in route["match"]
    }


def other_methods(rendered: dict[str, Any]) -> list[dict[str, Any]]:
    """The routes that refuse a known path with another method."""
    (host,) = manager(rendered)["route_config"]["virtual_hosts"]
    return [route for route in host["routes"] if "safe_regex" in route["match"]]


def of_filter(rendered: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in manager(rendered)["http_filters"] if each["name"] == name)
    return found["typed_config"]


@pytest.mark.parametrize("rpc", RPCS)
def test_an_rpc_is_routed_to_its_service_within_its_deadline(rendered: dict[str, Any], rpc: contracts.Rpc) -> None:
    route = routes(rendered)[rpc.path]
    assert route["route"]["cluster"] == rpc.service
    duration = route["route"]["max_stream_duration"]
    deadline = f"{rpc.rule.deadline_ms / 1000:.3f}s"
    assert duration == {"max_stream_duration": deadline, "grpc_timeout_header_max": deadline}
    assert ("retry_policy" in route["route"]) is rpc.is_repeatable


@pytest.mark.parametrize("rpc", RPCS)
def test_only_public_rpcs_are_open(rendered: dict[str, Any], rpc: contracts.Rpc) -> None:
    per_filter = routes(rendered)[rpc.path]["typed_per_filter_config"]
    assert (TOKEN in per_filter) is rpc.rule.public
    assert (API_KEY in per_filter) is rpc.rule.public
    assert LIMIT not in per_filter, "also who needs no token is limited"
    assert (BUFFER in per_filter) is rpc.is_streaming


@pytest.mark.parametrize("rpc", RPCS)
def test_what_is_retried_can_be_repeated(rpc: contracts.Rpc) -> None:
    """A call that changes something names a family, and carries a request id or items that do."""
    request = rpc.descriptor.input_type
    own = "request_id" in request.fields_by_name
    items = [field.message_type for field in request.fields if field.message_type is not None and field.is_repeated]
    of_items = any("request_id" in item.fields_by_name or "sale_number" in item.fields_by_name for item in items)
    assert bool(rpc.rule.family) == (own or of_items or rpc.is_streaming)


def test_nothing_else_is_routed(rendered: dict[str, Any]) -> None:
    assert set(routes(rendered)) == {rpc.path for rpc in contracts.rpcs()} | {page.path for page in PAGES}
    for path in (KEY_CHECK, LIMIT_CHECK, "/readyz", "/metrics"):
        assert not any(
            path == known or (known != "/" and known.endswith("/") and path.startswith(known))
            for known in routes(rendered)
        )


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_a_page_is_not_transcoded(rendered: dict[str, Any], page: Any) -> None:
    per_filter = routes(rendered)[page.path]["typed_per_filter_config"]
    assert TRANSCODER in per_filter
    assert (TOKEN in per_filter) is page.public


def test_no_page_hides_an_rpc() -> None:
    taken = {page.path for page in PAGES}
    assert not taken & {binding.template for rpc in contracts.rpcs() for binding in rpc.bindings}


@pytest.mark.parametrize("rpc", RPCS)
def test_every_path_takes_its_own_methods_and_no_other(rendered: dict[str, Any], rpc: contracts.Rpc) -> None:
    for binding in rpc.bindings:
        path = re.sub(r"\{[^}]*\}", "x-1.%2F", binding.template)
        refusing = [
            binding.verb not in route["direct_response"]["body"]["inline_string"].split(", ")
            for route in other_methods(rendered)
            if re.fullmatch(route["match"]["safe_regex"]["regex"], path)
        ]
        assert refusing == [False], f"{binding.verb} {path}: one route knows the path, and lets the method pass"


def test_another_method_is_refused_by_envoy_alone(rendered: dict[str, Any]) -> None:
    found = other_methods(rendered)
    assert found
    for route in found:
        assert route["direct_response"]["status"] == 405
        (method,) = route["match"]["headers"]
        allowed = route["direct_response"]["body"]["inline_string"]
        own = method["string_match"].get("exact") or method["string_match"]["safe_regex"]["regex"]
        assert (method["invert_match"], own.replace("|", ", ")) == (True, allowed)
        assert {TRANSCODER, TOKEN, API_KEY, LIMIT} == set(route["typed_per_filter_config"])


def test_inner_services_stay_inside() -> None:
    names = {service.full_name for service in contracts.open_services()}
    assert not names & {"siyu.common.v1.FeedService", "siyu.common.v1.AuditService"}
    assert {name.split(".")[1] for name in names} == set(SERVICES)


def test_every_filter_that_decides_stands_behind_the_transcoder(rendered: dict[str, Any]) -> None:
    names = [each["name"] for each in manager(rendered)["http_filters"]]
    assert names == ["siyu.strip", BUFFER, TRANSCODER, API_KEY, TOKEN, LIMIT, "envoy.filters.http.router"]


def test_a_token_is_the_rule_and_comes_by_header_only(rendered: dict[str, Any]) -> None:
    token = of_filter(rendered, TOKEN)
    assert token["rules"] == [{"match": {"prefix": "/"}, "requires": {"provider_name": "siyu"}}]
    provider = token["providers"]["siyu"]
    assert provider["from_headers"] == [{"name": "authorization", "value_prefix": "Bearer "}]
    assert "from_params" not in provider
    assert provider["claim_to_headers"] == [{"header_name": CLIENT_HEADER, "claim_name": "sub"}]


def test_keys_fail_closed_and_limits_open(rendered: dict[str, Any]) -> None:
    key = of_filter(rendered, API_KEY)["extension_config"]["typed_config"]
    assert key["failure_mode_allow"] is False
    assert of_filter(rendered, LIMIT)["failure_mode_allow"] is True


def test_envoy_never_asks_the_application_as_grpc(rendered: dict[str, Any]) -> None:
    """It would take its own "connection refused", which is HTTP 200 for gRPC, for a yes."""
    key = of_filter(rendered, API_KEY)["extension_config"]["typed_config"]
    for check in (key, of_filter(rendered, LIMIT)):
        assert "content-type" not in {each["exact"] for each in check["allowed_headers"]["patterns"]}
        assert {"exact": "content-type"} in check["disallowed_headers"]["patterns"]


def test_the_transcoder_knows_every_contract_and_every_detail_of_a_refusal(rendered: dict[str, Any]) -> None:
    config = of_filter(rendered, TRANSCODER)
    assert config["services"] == [service.full_name for service in contracts.open_services()]
    files = descriptor_pb2.FileDescriptorSet.FromString(base64.b64decode(config["proto_descriptor_bin"])).file
    known: set[str] = set()
    for file in files:
        assert set(file.dependency) <= known, f"{file.name} stands before what it needs"
        known.add(file.name)
    assert {"google/rpc/error_details.proto", "google/rpc/status.proto"} <= known


def test_the_access_log_has_neither_path_nor_address(rendered: dict[str, Any]) -> None:
    (log,) = manager(rendered)["access_log"]
    told = json.dumps(log["typed_config"]["log_format"])
    for operator in ("PATH", "DOWNSTREAM_REMOTE", "X-FORWARDED-FOR", "USER-AGENT", "AUTHORIZATION", "QUERY"):
        assert operator not in told.upper(), operator


def test_own_replies_speak_like_the_services() -> None:
    for status, reply in [*_REPLIES.items(), *((401, each) for each in _TOKEN_REPLIES.values())]:
        assert re.fullmatch(r"[A-Z][A-Z_]+", reply.reason)
        # HTTP has a word for a method that a path does not take, and gRPC's is of another class there
        assert reply.reason == METHOD_NOT_ALLOWED or HTTP_STATUS[reply.code] // 100 == (
            (reply.http_status or status) // 100
        )
        told = status_pb2.Status.FromString(base64.b64decode(reply.details() + "=="))
        # gRPC's libraries throw details away that are of another code or text than the status beside them
        assert (told.code, told.message) == (reply.code_over_grpc(), reply.text)
        info = error_details_pb2.ErrorInfo()
        assert told.details[0].Unpack(info)
        assert (info.reason, info.domain) == (reply.reason, "siyu")


def test_a_token_is_refused_in_the_words_of_the_services() -> None:
    def said(value: str | None) -> tuple[str, str]:
        with pytest.raises(Unauthenticated) as refused:
            bearer(value)
        return refused.value.reason, refused.value.message

    missing = _TOKEN_REPLIES["Jwt_is_missing"]
    assert (missing.reason, missing.text) == said(None)
    documented = {each.reason for each in refusals_of(next(rpc for rpc in contracts.rpcs() if not rpc.rule.public))}
    told = {reply.reason for reply in (*_TOKEN_REPLIES.values(), _REPLIES[401], _REPLIES[403])}
    assert told - {"KEYS_NOT_READY"} == {reason for reason in documented if reason.startswith("TOKEN_")}


def test_envoy_accepts_it_and_warns_of_nothing(tmp_path: Path, rendered: dict[str, Any]) -> None:
    _validated(tmp_path, rendered)


def test_probes_open_no_other_page_of_the_admin() -> None:
    rendered = bootstrap(Settings(), EdgeSettings(probes="127.0.0.1:8081"))
    _, asked = rendered["static_resources"]["listeners"]
    routes = asked["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    assert [route["match"] for route in routes] == [{"path": "/ready"}, {"path": "/stats/prometheus"}]
    assert len(bootstrap(Settings(), EdgeSettings())["static_resources"]["listeners"]) == 1, "only where asked for"


def test_envoy_accepts_it_with_tls_traces_and_probes(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    settings = Settings(OTEL_EXPORTER_OTLP_ENDPOINT="http://localhost:4317", SIYU_TRACE_RATIO=0.1)  # type: ignore[call-arg]
    edge = EdgeSettings(tls_certificate=certificate, tls_key=key, listen="[::]:8443", probes="0.0.0.0:8081")
    told = tmp_path / "certificate.json"
    told.write_text(json.dumps(certificate_told(edge)))
    _validated(tmp_path, bootstrap(settings, edge, certificate=told))


@pytest.mark.parametrize("alone", ["tls_certificate", "tls_key"])
def test_half_of_tls_is_not_none(alone: str) -> None:
    with pytest.raises(ValueError, match="go together"):
        EdgeSettings(**{alone: Path("tls.pem")})  # type: ignore[arg-type]


def _validated(directory: Path, rendered: dict[str, Any]) -> None:
    file = directory / "envoy.json"
    file.write_text(json.dumps(rendered))
    command = [str(envoy_program()), "--mode", "validate", "--config-path", str(file), "--disable-hot-restart"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "deprecated" not in done.stderr.lower(), done.stderr[-3000:]
