"""Settings whose absence has cost others: each is looked up where it works, not where it is written."""

import asyncio
from importlib.metadata import version

import asyncpg
import pytest
from redis.asyncio import Redis

from services.runtime import channels, server
from services.runtime.database import Database, raw
from services.runtime.reading import BLOCK_MS, REDIS_TIMEOUT_S
from services.runtime.relay import redis_client
from services.runtime.settings import Settings
from tests.store.runtime.conftest import PRODUCER


async def test_no_column_of_any_service_is_a_float(settings: Settings) -> None:
    """−1e-14 points made a coupon invalid elsewhere."""
    admin = await asyncpg.connect(settings.admin_dsn())
    floats = await admin.fetch(
        """
        SELECT table_schema || '.' || table_name || '.' || column_name
        FROM information_schema.columns
        WHERE table_schema IN ('identity', 'loyalty', 'campaign', 'commerce')
          AND (data_type IN ('real', 'double precision', 'money')
               OR udt_name IN ('_float4', '_float8', '_money'))
        """
    )
    amounts = await admin.fetch(
        """
        SELECT table_schema || '.' || table_name || '.' || column_name || ' ' || udt_name
        FROM information_schema.columns
        WHERE table_schema IN ('identity', 'loyalty', 'campaign', 'commerce')
          AND (column_name LIKE '%\\_minor' OR column_name LIKE '%\\_points') AND udt_name NOT IN ('int8', '_int8')
        """
    )
    await admin.close()
    assert [row[0] for row in (*floats, *amounts)] == []


async def test_a_transaction_that_somebody_forgot_does_not_keep_its_locks(runtime_settings: Settings) -> None:
    """A cancelled task once returned its connection with an open transaction; pools and lanes alike have a time-out."""
    database = Database.open(runtime_settings, service=PRODUCER)
    lane = await database.lane()
    shown = """
        SELECT setting::int FROM pg_settings
        WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout')
    """
    pooled = await database.read("", lambda connection: raw(connection).fetch(shown))
    dedicated = await lane.fetch(shown)
    await lane.close()
    await database.close()
    for rows in (pooled, dedicated):
        assert [0 < row[0] <= 60_000 for row in rows] == [True, True]


async def test_a_blocking_read_is_no_time_out(valkey_url: str) -> None:
    """The reader's socket waits longer than the server blocks; else each idle second would look like an outage."""
    client: Redis = redis_client(valkey_url, timeout_s=REDIS_TIMEOUT_S)
    assert not await client.xread({"siyu:nobody:0": "0-0"}, count=1, block=BLOCK_MS)
    await client.aclose()


async def test_a_cancelled_read_leaves_nothing_for_the_next(valkey_url: str) -> None:
    """redis-py left a cancelled call's reply on the connection, where the next call took it for its own."""
    client: Redis = redis_client(valkey_url, timeout_s=REDIS_TIMEOUT_S)
    await client.set("siyu-test", "mine")
    for _ in range(20):
        reading = asyncio.ensure_future(client.xread({"siyu:nobody:0": "0-0"}, count=1, block=BLOCK_MS))
        await asyncio.sleep(0.002)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await client.get("siyu-test") == b"mine"
    await client.delete("siyu-test")
    await client.aclose()


def test_clients_ping_no_more_often_than_servers_bear() -> None:
    """Else a server sends its clients away: "too many pings"."""
    asked = dict(channels.OPTIONS)
    borne = dict(server._OPTIONS)
    assert asked["grpc.keepalive_time_ms"] > borne["grpc.http2.min_ping_interval_without_data_ms"]
    # a new pod gets traffic: calls go round, and connections end
    assert "round_robin" in asked["grpc.service_config"]
    assert 0 < borne["grpc.max_connection_age_ms"] <= 600_000


@pytest.mark.parametrize("package", ["grpcio", "grpcio-status", "grpcio-health-checking", "grpcio-reflection"])
def test_grpc_is_one_that_does_not_leak_abandoned_streams(package: str) -> None:
    """1.83 and later leak them (grpc#43462) and can deadlock (grpc#43421)."""
    assert [int(part) for part in version(package).split(".")[:2]] == [1, 82]
