"""How many orders wait for payment, of a member or of a client's guests; near a cap, who counts is alone."""

from services.runtime.database import Connection, raw
from services.runtime.ids import MemberId, StoreId

IN_FLIGHT = 64
"""So many placings for one client's guests in one store may run at once: below the cap by more, none need wait."""

# one member's placings wait for each other, so that each counts those before it; members never wait for one another
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('open orders ' || $1 || $2, 0))"
# nor do clients, or stores
_GUESTS_ALONE = """
    SELECT pg_advisory_xact_lock(hashtextextended('open guest orders ' || $1 || ' ' || $2 || ' ' || $3, 0))
"""
# no more than can matter are counted, one by one along the index of those that wait
_OPEN_OF_MEMBER = """
    SELECT count(*)
    FROM (
        SELECT 1
        FROM orders AS o
        WHERE o.tenant_id = $1::uuid AND o.member_id = $2::uuid AND o.state = 1
        LIMIT $3
    ) AS w
"""
# a till's own sale is paid in the same call: neither does it wait here, nor is it counted
_OPEN_OF_GUESTS = """
    SELECT count(*)
    FROM (
        SELECT 1
        FROM orders AS o
        WHERE o.tenant_id = $1::uuid AND o.client_id = $2 AND o.store_id = $3 AND o.state = 1 AND o.member_id IS NULL
          AND o.till_id = ''
        LIMIT $4
    ) AS w
"""


async def of_member(connection: Connection, tenant_id: str, member_id: MemberId, *, most: int) -> int:
    """How many of the member's orders wait for payment, counted up to `most`; no other can come until the commit."""
    driver = raw(connection)
    await driver.execute(_ALONE, tenant_id, member_id)
    number: int = await driver.fetchval(_OPEN_OF_MEMBER, tenant_id, member_id, most)
    return number


async def of_guests(connection: Connection, tenant_id: str, *, client_id: str, store_id: StoreId, most: int) -> int:
    """How many orders without a member that the client placed in the store wait for payment, counted up to `most`.

    Near `most` no other can come until the commit; far below, a web shop's guests don't wait for one another.
    """
    driver = raw(connection)
    number: int = await driver.fetchval(_OPEN_OF_GUESTS, tenant_id, client_id, store_id, most)
    if number + IN_FLIGHT >= most:
        await driver.execute(_GUESTS_ALONE, tenant_id, client_id, store_id)
        number = await driver.fetchval(_OPEN_OF_GUESTS, tenant_id, client_id, store_id, most)
    return number
