"""What stops a local stack, each told in one line that says what to do.

StackRefused
├── PortTaken
├── PortNeedsRoot
├── WrongSetting
├── AlreadyRunning
├── NotInstalled
└── DidNotStart
    └── NotSpawned
"""

from collections.abc import Mapping


class StackRefused(Exception):
    """The stack can't start; the message is all that a person needs."""


class PortTaken(StackRefused):
    """Somebody else listens where the stack should."""

    def __init__(self, taken: Mapping[str, int]) -> None:
        """`taken` are the ports, by the environment variable that moves each."""
        ports = ", ".join(map(str, taken.values()))
        are = f"port {ports} is" if len(taken) == 1 else f"ports {ports} are"
        others = " ".join(f"{setting}=…" for setting in taken)
        super().__init__(f"{are} taken: stop what listens there, or choose otherwise with {others}")
        self.taken = dict(taken)


class PortNeedsRoot(StackRefused):
    """Nobody but root may listen where the stack should."""

    def __init__(self, reserved: Mapping[str, int]) -> None:
        """`reserved` are the ports, by the environment variable that moves each."""
        ports = ", ".join(map(str, reserved.values()))
        need = f"port {ports} needs" if len(reserved) == 1 else f"ports {ports} need"
        others = " ".join(f"{setting}=…" for setting in reserved)
        super().__init__(
            f"{need} root, as those below 1024 (net.ipv4.ip_unprivileged_port_start) do: choose otherwise with {others}"
        )
        self.reserved = dict(reserved)


class WrongSetting(StackRefused):
    """An environment variable of the stack's has a value that can't be."""


class AlreadyRunning(StackRefused):
    """Another stack lives in the same state directory."""

    def __init__(self, *, pid: int, directory: str) -> None:
        """`pid` is the supervisor that holds the lock."""
        super().__init__(
            f"already running as process {pid}: use it, stop it, or choose another state directory "
            f"than {directory} with SIYU_STATE_DIR=…"
        )
        self.pid = pid


class NotInstalled(StackRefused):
    """A server's wheel is missing or can't run here."""


class DidNotStart(StackRefused):
    """A process ended, or was not ready in time."""


class NotSpawned(DidNotStart):
    """The machine made no process: it has none left, or no file handles, or no such program."""
