"""What `siyu` understands, and what it refuses."""

import pytest
from typer.testing import CliRunner

from services.console import main


@pytest.mark.parametrize(
    ("service", "words", "roles"),
    [
        pytest.param("loyalty", {"role": "api"}, ("api",), id="one role"),
        pytest.param("loyalty", {"role": "worker", "queue": "accrual"}, ("worker:accrual",), id="a worker"),
        pytest.param("commerce", {"roles": "api,worker:orders"}, ("api", "worker:orders"), id="several"),
        pytest.param("identity", {}, ("api", "relay", "sweeper"), id="all of a service"),
        pytest.param("gateway", {"role": "edge"}, ("edge",), id="the edge"),
    ],
)
def test_run_understands_roles(service, words, roles) -> None:
    assert main.chosen_roles(service, **{"role": "", "queue": "", "roles": "", **words}) == roles


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param("run nobody api", "no service 'nobody'", id="no such service"),
        pytest.param("run loyalty worker", "loyalty has no role 'worker'", id="a worker without its queue"),
        pytest.param("run loyalty worker --queue orders", "no role 'worker:orders'", id="another service's queue"),
        pytest.param("migrate everything", "no service 'everything'", id="nothing to migrate"),
    ],
)
def test_a_wrong_word_is_refused_with_the_right_ones(words, told) -> None:
    result = CliRunner().invoke(main.app, words.split())
    assert result.exit_code == 2
    assert told in result.output.replace("\n", " ").replace("│", "").replace("  ", " ")
