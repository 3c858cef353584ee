"""What identity's sweeper forgets."""

from services.identity.main import sweep
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.ids import new_id
from tests.store.identity.conftest import Identity


async def test_a_round_takes_all_that_need_not_be_kept(identity: Identity) -> None:
    """However much it is: what a round left would add up where more comes than it takes."""

    async def fill(connection: Connection) -> None:
        await raw(connection).execute(
            """
            INSERT INTO requests (tenant_id, client_id, family, request_id, fingerprint, refusal, expires_at)
            SELECT $1::uuid, 'c', 'f', n::text, '', '{}', now() - interval '1 second' FROM generate_series(1, 2500) AS n
            """,
            new_id(),
        )
        await raw(connection).execute(
            """
            INSERT INTO log (partition, seq, tenant_id, events, payload, events_total, checksum_total, created_at)
            SELECT 0, n, $1::uuid, 1, '', n, 0, now() - interval '8 days' FROM generate_series(1, 2500) AS n
            """,
            new_id(),
        )
        await raw(connection).execute("INSERT INTO log_heads (partition, next_seq) VALUES (0, 2501)")

    async def left(connection: Connection) -> tuple[int, ...]:
        return tuple(
            await raw(connection).fetchrow("SELECT (SELECT count(*) FROM requests), (SELECT count(*) FROM log)")
        )

    await identity.system.run(EVERY_TENANT, fill)
    await sweep(identity.system, identity.signing)
    assert await identity.system.read(EVERY_TENANT, left) == (0, 0)
