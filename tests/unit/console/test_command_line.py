"""What `siyu` understands, and what it refuses."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from services.console import bringup, main
from services.console.stack.program import Program
from services.console.stack.settings import REPOSITORY
from services.identity.main import IdentitySettings
from services.runtime.settings import Settings, WrongSettingsError, from_environment


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


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        pytest.param(
            "stack",
            {"SIYU_EDGE_PORT": "99999"},
            "siyu: SIYU_EDGE_PORT=99999: Input should be less than or equal to 65535",
            id="no such port",
        ),
        pytest.param(
            "stack",
            {"SIYU_LOCAL_SPLIT": "x", "SIYU_DRAIN_S": "soon"},
            "siyu: SIYU_LOCAL_SPLIT=x: Input should be 'service', 'api' or 'role'; SIYU_DRAIN_S=soon: Input should be "
            "a valid number, unable to parse string as a number",
            id="two at once",
        ),
        pytest.param(
            "stack",
            {"SIYU_EDGE_PORT": "50051"},
            "siyu: SIYU_EDGE_PORT and SIYU_IDENTITY_PORT are the same port 50051: each needs one of its own",
            id="one port twice",
        ),
        pytest.param(
            "demo --weeks abc", {}, "siyu: weeks are written 33, 33,34, 30-35 or all, not 'abc'", id="no such weeks"
        ),
        pytest.param(
            "tenant create --code tea --name Tea",
            {},
            "siyu: no stack runs here: `siyu stack` or `make run` starts one",
            id="nowhere to make a tenant",
        ),
        pytest.param(
            "audit",
            {},
            "siyu: no stack runs here: start one with `siyu stack` or `make run`, and audit it from a second terminal. "
            "To audit services that run elsewhere, set their addresses (SIYU_IDENTITY_ADDRESS and so on) and "
            "SIYU_SERVICE_SECRET, the secret of the client service:console; in a cluster, the job siyu-audit has them",
            id="nothing to audit",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_line_before_anything_starts(tmp_path, words, environment, told) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "services.console", *words.split()]
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto' / 'gen'}"}
    ran = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**inherited, "SIYU_STATE_DIR": str(state), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (1, told, "")
    assert not state.exists()


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        pytest.param(
            "run loyalty api",
            {},
            "siyu: loyalty api needs DATABASE_URL, REDIS_URL, SIYU_SERVICE_SECRET in its environment;",
            id="a role",
        ),
        pytest.param(
            "run gateway edge",
            {"REDIS_URL": "redis://localhost:6379/0", "SIYU_SERVICE_SECRET": ""},
            "siyu: gateway edge needs SIYU_SERVICE_SECRET in its environment;",
            id="the edge has no database, and an empty secret is none",
        ),
        pytest.param(
            "run identity --roles relay,sweeper",
            {"REDIS_URL": "redis://localhost:6379/0", "DATABASE_URL": "postgresql://localhost/siyu"},
            "siyu: identity relay,sweeper needs SIYU_ROOT_SECRET, SIYU_SERVICE_SECRET in its environment;",
            id="who seals needs the root secret",
        ),
        pytest.param("migrate", {}, "siyu: migrate needs DATABASE_URL in its environment;", id="the migrations"),
    ],
)
def test_what_the_environment_lacks_is_told_in_a_line(monkeypatch, words, environment, told) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "SIYU_SERVICE_SECRET", "SIYU_ROOT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    result = CliRunner().invoke(main.app, words.split(), env=environment)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(told)
    assert result.stderr.count("\n") == 1


NUMBERS = sorted(
    str(field.validation_alias) for field in Settings.model_fields.values() if field.annotation in {int, float}
)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "1e30", "nan", "many", ""])
def test_a_number_that_cannot_be_is_told_in_a_line(monkeypatch, name, value) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(WrongSettingsError) as told:
        from_environment(Settings)
    assert str(told.value).startswith(f"{name}={value}: Input should be ")
    assert "\n" not in str(told.value)


def test_a_secret_that_cannot_be_is_not_told(monkeypatch) -> None:
    monkeypatch.setenv("SIYU_ROOT_SECRET", "s3cret")
    with pytest.raises(WrongSettingsError, match=r"^SIYU_ROOT_SECRET: ") as told:
        from_environment(IdentitySettings)
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize(
    ("words", "name", "value", "told"),
    [
        pytest.param("run loyalty api", "SIYU_POOL_SIZE", "0", "Input should be greater than or equal to 1", id="0"),
        pytest.param("run loyalty api", "SIYU_LOG_LEVEL", "loud", "there is no such level; INFO is one", id="level"),
        pytest.param(
            "migrate", "SIYU_LOG_PARTITIONS", "257", "Input should be less than or equal to 256", id="the migrations"
        ),
    ],
)
def test_what_the_environment_has_wrong_is_told_in_a_line(monkeypatch, words, name, value, told) -> None:
    for needed in ("DATABASE_URL", "REDIS_URL", "SIYU_SERVICE_SECRET"):
        monkeypatch.setenv(needed, "nowhere")
    result = CliRunner().invoke(main.app, words.split(), env={name: value})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"siyu: {name}={value}: {told}\n"


def test_an_empty_stack_says_where_it_is_and_what_comes_next() -> None:
    told = bringup.next_steps("127.0.0.1:8080")
    assert "http://127.0.0.1:8080/docs" in told
    (command,) = [line.split() for line in told.splitlines() if line.lstrip().startswith(".venv/bin/siyu")]
    result = CliRunner().invoke(main.app, [*command[1:], "--help"])
    assert result.exit_code == 0


def test_the_path_of_a_log_is_one_word_in_a_narrow_terminal() -> None:
    log = Path("/home/somebody/with a long name/src/siyu/.siyu/log/commerce-worker-fulfilment.log")
    program = Program(
        name="commerce/worker:fulfilment",
        command=(),
        environment={},
        log=log,
        is_ready=never,
        address="127.0.0.1:50054",
    )
    stack = SimpleNamespace(programs={program.name: program}, pids={program.name: 123})
    written = StringIO()
    bringup.show(stack, console=Console(file=written, width=80, color_system=None))
    title, head, told = written.getvalue().splitlines()
    assert (title, head.split()) == ("Siyu on this machine", ["process", "pid", "address", "log"])
    assert told == f"  {program.name}  123  {program.address}  {log}"
    assert told.index(str(log)) == head.index("log")


async def never() -> bool:
    """A program that is not there."""
    return False


@pytest.mark.parametrize("goal", ["run", "demo"])
def test_make_hands_weeks_on_as_one_word(goal: str) -> None:
    """`WEEKS="1, 2"` is refused as weeks, in the words for weeks, and not as an argument too many."""
    done = subprocess.run(
        ["make", "--dry-run", goal, "WEEKS=1, 2"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].endswith("--weeks '1, 2'")
