"""Failed log-ins over several processes."""

import pytest
from redis.asyncio import Redis

from services.identity.domain.refusals import TooManyAttempts
from services.identity.store.attempts import FAILURES_MAX, CountedAttempts
from services.runtime.ids import new_id


async def test_processes_share_their_counts(valkey_url: str) -> None:
    server = Redis.from_url(valkey_url)
    try:
        client_id = new_id()
        processes = [CountedAttempts(redis=server) for _ in range(4)]
        for turn in range(FAILURES_MAX + 3):
            await processes[turn % 4].failed(client_id, "here")
        for process in processes:
            with pytest.raises(TooManyAttempts):
                process.check(client_id, "here")
            process.check(client_id, "there")
        names = [name async for name in server.scan_iter("siyu:identity:attempts:*")]
        assert names
        assert all([0 < await server.ttl(name) <= 60 for name in names])
        assert not any(client_id.encode() in name for name in names)
    finally:
        await server.aclose()
