"""A merge that commits while coupons of the merged member are on their way strands none of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.campaign.usecases import members
from services.runtime.database import Connection
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2
from tests.store.campaign.conftest import Brand

MEANWHILE_S = 0.2
"""As long as the others need to run into the merge's locks."""


@asynccontextmanager
async def merging(brand: Brand, survivor: str, merged: str) -> AsyncIterator[None]:
    """A merge that is made before the block begins, and commits while it runs."""
    made = asyncio.Event()
    call = brand.call()

    async def work(connection: Connection) -> None:
        await members.follow(connection, call, changed=[], merges=[(merged, survivor)])
        made.set()
        await asyncio.sleep(MEANWHILE_S)

    merge = asyncio.create_task(brand.campaign.app.run(brand.tenant_id, work))
    await made.wait()
    yield
    await merge


async def test_a_coupon_that_is_issued_during_a_merge_is_the_survivors(brand: Brand) -> None:
    survivor, merged = new_id(), new_id()
    await brand.template("t", member_limit=2)
    async with merging(brand, survivor, merged):
        issued = await brand.coupon("t", member_id=merged)
    assert [coupon.coupon_id for coupon in (await brand.coupons_of(survivor)).coupons] == [issued.coupon_id]
    for member_id in (survivor, merged):
        await brand.void((await brand.hold(coupons=[(issued.coupon_id, 1)], member_id=member_id)).hold_id)
    await brand.coupon("t", member_id=survivor)
    (verdict,) = await brand.issue(coupon_pb2.IssueCoupon(template_id="t", member_id=merged))
    assert verdict.refusal_reason == "MEMBER_LIMIT_REACHED"


async def test_a_hold_that_waits_for_a_merge_is_the_owners(brand: Brand) -> None:
    survivor, merged = new_id(), new_id()
    await brand.template("t")
    coupon = await brand.coupon("t", member_id=merged)
    async with merging(brand, survivor, merged):
        held = await brand.hold(coupons=[(coupon.coupon_id, 1)], member_id=merged)
    assert held.state == 1
    assert await brand.red() == {}
