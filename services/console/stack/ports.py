"""Ports of the local stack: free ones for tests, fixed ones for people, and a plain word when one is taken."""

import random
import socket
import time
from collections.abc import Mapping

from services.console.stack.refusals import PortTaken

LOOPBACK = "127.0.0.1"
# Below Linux's ephemeral range: while a killed process is being restarted, nobody's outgoing connection takes its port.
LOWEST = 20_000
HIGHEST = 31_999


def is_free(port: int) -> bool:
    """Whether this process could listen on `port` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


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

    Raises PortTaken for those that still aren't after `patience_s`: what a killed run left needs a moment to end."""
    deadline = time.monotonic() + patience_s
    while taken := {setting: port for setting, port in ports.items() if not is_free(port)}:
        if time.monotonic() >= deadline:
            raise PortTaken(taken)
        time.sleep(0.1)
