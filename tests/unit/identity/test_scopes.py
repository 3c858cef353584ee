"""The catalogue of scopes, against the rules that the contracts declare."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import MethodDescriptor

import siyu
from services.identity.domain import scopes
from services.identity.domain.refusals import ScopeNotGrantable
from services.runtime.auth import Rule, rule_of
from services.runtime.call import ActorKind
from services.runtime.errors import Invalid

GENERATED = Path(next(iter(siyu.__path__)))


def methods() -> Iterator[MethodDescriptor]:
    for path in sorted(GENERATED.rglob("*_pb2.py")):
        name = ".".join(path.relative_to(GENERATED.parent).with_suffix("").parts)
        for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
            yield from service.methods


RULES: dict[str, Rule] = {method.full_name: rule_of(method) for method in methods()}
ASKED = {scope for rule in RULES.values() for scope in rule.scopes}


def test_every_scope_that_an_rpc_asks_for_is_in_the_catalogue() -> None:
    assert ASKED <= scopes.ALL


def test_no_scope_is_in_the_catalogue_for_nothing() -> None:
    assert scopes.ALL <= ASKED


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rpc_can_be_called_by_somebody_it_is_for(name: str) -> None:
    rule = RULES[name]
    carried = {kind: set(granted) for kind, granted in scopes.GRANTABLE.items()} | {
        ActorKind.SERVICE: set(scopes.SERVICE),
        ActorKind.PLATFORM: set(scopes.PLATFORM),
    }
    kinds = rule.kinds or set(carried)
    assert rule.public or any(rule.scopes & carried[kind] for kind in kinds)


@pytest.mark.parametrize("kind", list(scopes.USUAL))
def test_the_usual_scopes_can_be_granted(kind: ActorKind) -> None:
    assert scopes.USUAL[kind] <= scopes.GRANTABLE[kind] <= scopes.TENANT
    assert scopes.scopes_to_grant(kind, (), granter=scopes.TENANT) == tuple(sorted(scopes.USUAL[kind]))


@pytest.mark.parametrize("kind", list(scopes.USUAL))
def test_no_client_of_a_tenant_gets_the_operators_scopes(kind: ActorKind) -> None:
    with pytest.raises(ScopeNotGrantable):
        scopes.scopes_to_grant(kind, scopes.PLATFORM, granter=scopes.ALL)


def test_only_what_the_granter_has_is_granted() -> None:
    grant = scopes.scopes_to_grant
    assert grant(ActorKind.BACKEND, ["campaign.quote"], granter=frozenset({"campaign.quote"})) == ("campaign.quote",)
    with pytest.raises(ScopeNotGrantable):
        grant(ActorKind.BACKEND, ["campaign.quote", "identity.read"], granter=frozenset({"campaign.quote"}))
    with pytest.raises(Invalid):
        grant(ActorKind.BACKEND, ["campaign.everything"], granter=scopes.ALL)
