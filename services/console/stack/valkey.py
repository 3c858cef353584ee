"""An embedded Valkey: the fast lane and the limits. Never the record, and yet kept over a restart."""

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

from services.console.stack.ports import LOOPBACK
from services.console.stack.program import Probe, Program, plain_environment
from services.console.stack.wheels import valkey_program

PROBE_TIMEOUT_S = 2.0
MAX_MEMORY_MB = 1024

# noeviction: a stream that is evicted silently would look like one that has nothing new.
CONFIGURATION = """\
bind {host}
port {port}
dir "{directory}"
requirepass {password}
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
maxmemory {max_memory_mb}mb
maxmemory-policy noeviction
daemonize no
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedValkey:
    """A server over a directory, and the port and password it is reached by."""

    configuration: Path
    port: int
    password: str
    log: Path

    @classmethod
    def prepare(cls, directory: Path, *, port: int, password: str, log: Path) -> "EmbeddedValkey":
        """Writes the configuration; a file, because a command line would show the password to everybody."""
        directory.mkdir(parents=True, exist_ok=True)
        configuration = directory / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            CONFIGURATION.format(
                host=LOOPBACK, port=port, directory=directory, password=password, max_memory_mb=MAX_MEMORY_MB
            )
        )
        return cls(configuration=configuration, port=port, password=password, log=log)

    def url(self) -> str:
        """The URL that clients connect with."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def program(self) -> Program:
        """The server, as the supervisor runs it."""
        return Program(
            name="valkey",
            command=(str(valkey_program()), str(self.configuration)),
            environment=plain_environment(),
            log=self.log,
            is_ready=answers_ping(self.port, self.password),
            address=f"{LOOPBACK}:{self.port}",
            stop_by=((signal.SIGTERM, 10.0),),
        )


def answers_ping(port: int, password: str) -> Probe:
    """Ready when PING gets its PONG; a server that still loads its file answers LOADING."""

    async def probe() -> bool:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                try:
                    writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                    await reader.readline()
                    return (await reader.readline()).strip() == b"+PONG"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    return probe
