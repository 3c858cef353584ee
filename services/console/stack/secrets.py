"""The secrets of a local installation: made once, kept in a file that only its owner reads."""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

RANDOM_BYTES = 32


def load_secrets(directory: Path) -> dict[str, str]:
    """All secrets that were made in the directory, by name."""
    file = directory / "secrets.json"
    if not file.exists():
        return {}
    found = json.loads(file.read_text())
    assert isinstance(found, dict), f"{file} is not a table of secrets"
    return {str(name): str(value) for name, value in found.items()}


def secret_of(directory: Path, name: str) -> str:
    """The installation's secret of that name: 64 hexadecimal digits, the same at every start."""
    kept = load_secrets(directory)
    if name not in kept:
        kept[name] = secrets.token_hex(RANDOM_BYTES)
        _save(directory, kept)
    return kept[name]


def installation_secret(root_secret: str, client_id: str) -> str:
    """The secret of `service:<name>` or `platform:<name>`, as identity derives it from the same root secret."""
    return hmac.digest(root_secret.encode(), client_id.encode(), hashlib.sha256).hex()


def _save(directory: Path, kept: dict[str, str]) -> None:
    # Written beside and moved: a crash must not leave half a file, since the database knows these passwords.
    partial = directory / "secrets.json.partial"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(kept, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(directory / "secrets.json")
