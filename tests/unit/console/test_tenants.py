"""Which tenants the console knows, and what `siyu tenant create` says of a refusal."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from services.console.tenants import introduction, known_tenants, refusal_of, remember_tenant, replayed_now, replaying
from services.identity.domain.clients import SECRET_TOLD_FOR
from services.runtime.errors import AlreadyExists, Invalid, NotAllowed
from siyu.identity.v1 import tenant_pb2

TAKEN = "the code 'tea' is taken: choose another, or repeat all that it was made with"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(AlreadyExists("used with another body", reason="REQUEST_ID_REUSED"), TAKEN, id="by its request"),
        pytest.param(AlreadyExists("another's", reason="TENANT_EXISTS"), TAKEN, id="by another request"),
        pytest.param(
            Invalid(
                violations=(("request_id", "no"), ("code", "must be 1 to 64 characters")), metadata={"trace_id": "7"}
            ),
            "INVALID_FIELD: code: must be 1 to 64 characters (trace_id=7)",
            id="a code that is none",
        ),
        pytest.param(Invalid("no such zone", field="time_zone"), "INVALID_FIELD: no such zone", id="another field"),
        pytest.param(NotAllowed("no"), "NOT_ALLOWED: no", id="anything else"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_command(error, told) -> None:
    assert refusal_of(error, code="tea") == told


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        pytest.param("s3cret", "CLIENT_SECRET=s3cret\n", id="the first time and again"),
        pytest.param("", "CLIENT_SECRET=(told for 24 hours, which are over)\n", id="a day later"),
    ],
)
def test_how_long_a_secret_is_told_again_is_said_with_it(secret, told) -> None:
    made = tenant_pb2.CreateTenantResponse(admin_client_id="c", admin_client_secret=secret)
    words = introduction(made, edge="127.0.0.1:8080")
    assert told in words
    assert "keep its secret, which this command tells again\nfor 24 hours and nobody after that:" in words
    assert timedelta(hours=24) == SECRET_TOLD_FOR


def test_tenants_are_remembered_once(tmp_path: Path) -> None:
    remember_tenant(tmp_path, "a")
    remember_tenant(tmp_path, "b")
    remember_tenant(tmp_path, "a")
    assert known_tenants(tmp_path) == {"a": False, "b": False}


def test_a_tenant_is_unfinished_until_its_replay_ends(tmp_path: Path) -> None:
    remember_tenant(tmp_path, "half", unfinished=True)
    remember_tenant(tmp_path, "whole", unfinished=True)
    remember_tenant(tmp_path, "whole")
    assert known_tenants(tmp_path) == {"half": True, "whole": False}


def test_the_list_of_an_older_build_is_read(tmp_path: Path) -> None:
    (tmp_path / "tenants.json").write_text(json.dumps(["a", "b"]))
    remember_tenant(tmp_path, "c", unfinished=True)
    assert known_tenants(tmp_path) == {"a": False, "b": False, "c": True}


def test_the_latest_unfinished_tenant_is_being_replayed_only_while_somebody_does_it(tmp_path: Path) -> None:
    remember_tenant(tmp_path, "half", unfinished=True)
    assert replayed_now(tmp_path) == ""
    with replaying(tmp_path):
        remember_tenant(tmp_path, "under way", unfinished=True)
        assert replayed_now(tmp_path) == "under way"
        remember_tenant(tmp_path, "a person's own")
        assert replayed_now(tmp_path) == "under way"
    assert replayed_now(tmp_path) == ""
