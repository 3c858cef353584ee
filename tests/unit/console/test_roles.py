"""The console's list of roles is that of the services themselves."""

import importlib

import pytest

from services.console.stack.roles import ROLES


@pytest.mark.parametrize("service", ROLES)
def test_every_role_of_a_service_is_started_and_none_that_it_lacks(service: str) -> None:
    main = importlib.import_module("gateway.main" if service == "gateway" else f"services.{service}.main")
    assert service == main.SERVICE
    assert tuple(role.name for role in main.ROLES) == ROLES[service]
