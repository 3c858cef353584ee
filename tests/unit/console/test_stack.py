"""Names, ports, locks and secrets of the local stack."""

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.console.stack import ports
from services.console.stack.lock import held_lock, holder
from services.console.stack.refusals import AlreadyRunning, PortNeedsRoot, PortTaken
from services.console.stack.roles import ROLES, share_with, shares
from services.console.stack.secrets import installation_secret, load_secrets, secret_of
from services.console.stack.settings import REPOSITORY, StackSettings
from services.identity.domain.credentials import Keys


@pytest.mark.parametrize(
    ("split", "names"),
    [
        pytest.param("service", ["identity", "loyalty", "campaign", "commerce", "gateway"], id="a process a service"),
        pytest.param(
            "api",
            [
                *("identity/api", "identity/background", "loyalty/api", "loyalty/background"),
                *("campaign/api", "campaign/background", "commerce/api", "commerce/background", "gateway"),
            ],
            id="the api apart",
        ),
    ],
)
def test_roles_are_spread_over_processes(split, names) -> None:
    assert [share.name for share in shares(split)] == names


@pytest.mark.parametrize("split", ["service", "api", "role"])
def test_every_split_runs_every_role_once(split) -> None:
    ran = [(share.service, role) for share in shares(split) for role in share.roles]
    assert sorted(ran) == sorted((service, role) for service, roles in ROLES.items() for role in roles)
    assert len({share.name for share in shares(split)}) == len(shares(split))


@pytest.mark.parametrize("split", ["service", "api", "role"])
def test_more_processes_of_an_api_run_nothing_else(split) -> None:
    more = [share for share in shares(split, api_processes=3) if share not in shares(split)]
    assert {share.name for share in more} == {
        f"{service}/api-{number}" for service in ("identity", "loyalty", "campaign", "commerce") for number in (2, 3)
    }
    assert {share.roles for share in more} == {("api",)}
    assert all(share.is_called for share in more)


@pytest.mark.parametrize(
    ("split", "name", "process"),
    [
        pytest.param("service", "loyalty", "loyalty", id="a service"),
        pytest.param("service", "loyalty/worker:accrual", "loyalty", id="a role within its service's process"),
        pytest.param("api", "loyalty", "loyalty/api", id="a service is its api"),
        pytest.param("api", "loyalty/worker:accrual", "loyalty/background", id="a role in the background"),
        pytest.param("role", "loyalty/worker:accrual", "loyalty/worker:accrual", id="a role of its own"),
        pytest.param("role", "gateway", "gateway", id="the edge's application"),
    ],
)
def test_a_role_is_found_in_its_process(split, name, process) -> None:
    share = share_with(shares(split), name)
    assert share is not None
    assert share.name == process


def test_an_unknown_role_is_in_no_process() -> None:
    assert share_with(shares("role"), "loyalty/worker:nothing") is None


def test_picked_ports_are_free_different_and_nobodys_outgoing_connection() -> None:
    picked = ports.pick(20)
    assert len(set(picked)) == 20
    assert all(ports.is_free(port) for port in picked)
    assert max(picked) < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def test_taken_ports_are_told_at_once_with_the_settings_that_move_them() -> None:
    with socket.socket() as taken, socket.socket() as also:
        for each in (taken, also):
            each.bind((ports.LOOPBACK, 0))
            each.listen()
        one, other = taken.getsockname()[1], also.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"^port {one} is taken: .* SIYU_EDGE_PORT=…$"):
            ports.require_free({"SIYU_EDGE_PORT": one}, patience_s=0)
        needed = {"SIYU_EDGE_PORT": one, "SIYU_VALKEY_PORT": ports.pick(1)[0], "SIYU_LOYALTY_PORT": other}
        with pytest.raises(PortTaken, match=rf"^ports {one}, {other} are taken: .* SIYU_EDGE_PORT=… SIYU_LOYALTY_PORT"):
            ports.require_free(needed, patience_s=0)


def test_a_port_that_needs_root_is_told_so_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: socket.socket, address: tuple[str, int]) -> None:
        raise OSError(errno.EACCES if address[1] < 1024 else errno.EADDRINUSE, "refused")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PortNeedsRoot, match=r"^port 80 needs root, as those below 1024 .* with SIYU_EDGE_PORT=…$"):
        ports.require_free({"SIYU_EDGE_PORT": 80, "SIYU_VALKEY_PORT": 16379}, patience_s=60)


def test_a_given_server_leaves_its_port_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("SIYU_EDGE_PORT", "16379")
    assert StackSettings.from_environment().edge_port == 16379


def test_the_readme_lists_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
    for name, field in StackSettings.model_fields.items():
        default = ".siyu" if name == "state_directory" else field.default
        assert rows[str(field.validation_alias)] == ("" if default is None else f"`{default}`"), name


def test_a_stack_needs_no_port_for_a_server_that_is_given() -> None:
    names = StackSettings(database_url="postgresql://elsewhere/siyu", redis_url=None).ports()
    assert "SIYU_POSTGRES_PORT" not in names
    assert "SIYU_VALKEY_PORT" in names


def test_a_second_stack_is_told_who_runs(tmp_path: Path) -> None:
    with held_lock(tmp_path, say=print) as stale:
        assert not stale
        assert holder(tmp_path) == os.getpid()
        with (
            pytest.raises(AlreadyRunning, match=rf"^already running as process {os.getpid()}: "),
            held_lock(tmp_path, say=print),
        ):
            pass
    assert holder(tmp_path) is None


def test_the_lock_of_a_dead_process_is_taken_over_in_one_line(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom services.console.stack.lock import held_lock\n"
        "with held_lock(pathlib.Path(sys.argv[1]), say=print):\n    os.kill(os.getpid(), 9)"
    )
    dead = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[3])
    dead.wait()
    said: list[str] = []
    with held_lock(tmp_path, say=said.append) as stale:
        assert stale
    assert said == [f"taking over the lock of process {dead.pid}, which ended without stopping its servers in order"]
    with held_lock(tmp_path, say=said.append) as stale:
        assert not stale


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    first = secret_of(tmp_path, "postgres_password")
    assert secret_of(tmp_path, "postgres_password") == first
    assert secret_of(tmp_path, "valkey_password") != first
    assert load_secrets(tmp_path)["postgres_password"] == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0


def test_identity_derives_the_same_secret_for_a_service() -> None:
    root = "r" * 64
    assert installation_secret(root, "service:loyalty") == Keys.derive(root).installation_secret_of("service:loyalty")
