"""Ports of the local stack: free ones for tests, fixed ones for people, and a plain word when one is taken."""

import errno
import random
import socket
import time
from collections.abc import Mapping

from services.console.stack.refusals import PortNeedsRoot, PortTaken

LOOPBACK = "127.0.0.1"
# Below Linux's ephemeral range: while a killed process is being restarted, nobody's outgoing connection takes its port.
LOWEST = 20_000
HIGHEST = 31_999


def is_free(port: int) -> bool:
    """Whether this process could listen on `port` of the loopback address now."""
    return _obstacle(port) is None


def _obstacle(port: int) -> int | None:
    """The errno with which the system refuses `port` to this process; None if it's free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as refused:
            return refused.errno
    return None


def pick(count: int) -> tuple[int, ...]:
    """`count` different ports that are free now, from a random place on, so that parallel runs rarely meet."""
    start = random.randrange(LOWEST, HIGHEST)  # noqa: S311 - no secret
    candidates = (LOWEST + (start - LOWEST + step) % (HIGHEST - LOWEST + 1) for step in range(HIGHEST - LOWEST + 1))
    picked: list[int] = []
    for port in candidates:
        if len(picked) == count:
            break
        if is_free(port):
            picked.append(port)
    assert len(picked) == count, "no free ports left"
    return tuple(picked)


def require_free(ports: Mapping[str, int], *, patience_s: float) -> None:
    """Returns when all ports, keyed by the setting that chooses each, are free.

    Raises PortNeedsRoot at once for those that this process may not have, and PortTaken for those that still aren't
    free after `patience_s`: what a killed run left needs a moment to end."""
    deadline = time.monotonic() + patience_s
    while taken := {setting: why for setting, port in ports.items() if (why := _obstacle(port)) is not None}:
        if reserved := {setting: ports[setting] for setting, why in taken.items() if why == errno.EACCES}:
            raise PortNeedsRoot(reserved)
        if time.monotonic() >= deadline:
            raise PortTaken({setting: ports[setting] for setting in taken})
        time.sleep(0.1)
