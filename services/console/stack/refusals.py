"""What stops a local stack, each told in one line that says what to do.

StackRefused
├── PortTaken
├── AlreadyRunning
├── NotInstalled
└── DidNotStart
"""


class StackRefused(Exception):
    """The stack can't start; the message is all that a person needs."""


class PortTaken(StackRefused):
    """Somebody else listens where the stack should."""

    def __init__(self, *, port: int, setting: str) -> None:
        """`setting` is the environment variable that moves the port."""
        super().__init__(f"port {port} is taken: stop what listens there, or choose another port with {setting}=…")
        self.port = port
        self.setting = setting


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
