"""The edge's process. Its configuration is rendered by the gateway from the contracts, never written by hand."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.console.stack.ports import LOOPBACK
from services.console.stack.probes import http_answers
from services.console.stack.program import Program, plain_environment
from services.console.stack.refusals import DidNotStart
from services.console.stack.wheels import envoy_program

CONCURRENCY = 2
RENDER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """Where the edge listens and where its configuration is."""

    configuration: Path
    edge_port: int
    admin_port: int
    log: Path

    async def render(self, environment: Mapping[str, str]) -> None:
        """Has the gateway write the configuration, for the addresses named in the environment.

        Raises DidNotStart with the gateway's own words if it can't."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "gateway.envoy", "--out", str(self.configuration)),
            env={
                **environment,
                "SIYU_EDGE_LISTEN": f"{LOOPBACK}:{self.edge_port}",
                "SIYU_ENVOY_ADMIN": f"{LOOPBACK}:{self.admin_port}",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), RENDER_TIMEOUT_S)
        if process.returncode != 0:
            raise DidNotStart(
                f"the gateway could not render Envoy's configuration:\n{output.decode(errors='replace').strip()}"
            )

    def program(self) -> Program:
        """Envoy, as the supervisor runs it."""
        return Program(
            name="envoy",
            command=(
                str(envoy_program()),
                *("--config-path", str(self.configuration)),
                *("--concurrency", str(CONCURRENCY)),
                *("--log-level", "warning"),
                # Hot restart shares memory under a number that two stacks would fight over.
                "--disable-hot-restart",
            ),
            environment=plain_environment(),
            log=self.log,
            is_ready=http_answers(f"{LOOPBACK}:{self.admin_port}", "/ready"),
            address=f"{LOOPBACK}:{self.edge_port}",
            stop_by=((signal.SIGTERM, 5.0),),
        )
