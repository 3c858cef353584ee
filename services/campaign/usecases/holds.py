"""Holds of coupons and budgets: held together, captured together, given back by themselves when their time is over."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from services.campaign.domain.benefits import BenefitsHold, HoldKey, ToHold, check_budget, check_uses
from services.campaign.domain.coupons import use_refusal
from services.campaign.domain.events import CouponReturned, Event
from services.campaign.domain.refusals import CouponMissing, PromotionMissing
from services.campaign.store import coupons, holds, usage
from services.runtime.call import Call
from services.runtime.clock import Clock
from services.runtime.database import Connection, Database
from services.runtime.errors import Conflict
from services.runtime.holds import (
    TOMBSTONE_KEPT,
    HoldCaptured,
    HoldEvent,
    HoldState,
    check_age,
    resolve,
    state_at,
)
from services.runtime.idempotency import Once
from services.runtime.ids import CouponId, TemplateId
from services.runtime.outbox import Outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDesk:
    """Holds of a tenant. The clock is the machine's: it decides when a hold's time is over."""

    database: Database
    clock: Clock
    outbox: Outbox[Event]

    async def hold(self, call: Call, once: Once[BenefitsHold], wanted: ToHold) -> bytes:
        """Holds all coupons and budgets, or none; the encoded hold.

        Raises CouponMissing, CouponHeld, CouponUsed, CouponExpired, CouponNotStarted, NotYours, PromotionMissing,
        BudgetSpent; HoldTooOld, HoldVoided (a void came first), AlreadyExists (HOLD_EXISTS).
        """
        check_uses(wanted)

        async def work(connection: Connection) -> BenefitsHold:
            return await self._hold(connection, call, wanted)

        return await once.run(self.database, work)

    async def capture(self, call: Call, once: Once[BenefitsHold], key: HoldKey) -> bytes:
        """Spends a hold; the encoded hold.

        Raises Missing (HOLD_NOT_FOUND), HoldCaptured, HoldVoided, HoldExpired.
        """

        async def work(connection: Connection) -> BenefitsHold:
            machine_now = self.clock.now()
            hold = await holds.lock(connection, call.tenant_id, key)
            state = resolve(_state(hold, machine_now), HoldEvent.CAPTURE, hold_id=key.hold_id)
            assert hold is not None, "what is absent can't be captured"
            return await self._capture(connection, call, hold, state, machine_now)

        return await once.run(self.database, work)

    async def void(self, call: Call, once: Once[BenefitsHold], key: HoldKey) -> bytes:
        """Gives a hold back, or leaves a tombstone for one that has not come yet; the encoded hold.

        Raises HoldCaptured (also when commerce has told that the order is paid), HoldVoided, HoldExpired.
        """

        async def work(connection: Connection) -> BenefitsHold:
            machine_now = self.clock.now()
            hold = await holds.lock(connection, call.tenant_id, key)
            after = resolve(_state(hold, machine_now), HoldEvent.VOID, hold_id=key.hold_id)
            if hold is None:
                if not await holds.tombstone(connection, call.tenant_id, key, machine_now=machine_now):
                    raise Conflict("the hold arrived at this moment; try again")
                # to its caller a tombstone is a voided hold
                return BenefitsHold(
                    key=key, state=HoldState.VOIDED, order_id="", expires_at=machine_now + TOMBSTONE_KEPT
                )
            if hold.is_paid:
                raise HoldCaptured(
                    f"the order of hold {key.hold_id!r} is paid; refund it instead", subject=f"hold/{key.hold_id}"
                )
            await holds.settle(connection, call.tenant_id, [key], after, machine_now=machine_now)
            return replace(hold, state=after)

        return await once.run(self.database, work)

    async def give_back_due(self, connection: Connection, call: Call, *, limit: int = holds.MAX_DUE) -> int:
        """Resolves up to `limit` holds whose time is over; how many.

        The hold of an order that is known to be paid is captured: payment is the pivot, and what a customer paid for
        with a coupon can't be given to another one because a capture came late.
        """
        machine_now = self.clock.now()
        due = await holds.lock_due(connection, call.tenant_id, machine_now=machine_now, limit=limit)
        unpaid = [hold.key for hold in due if not hold.is_paid]
        await holds.settle(connection, call.tenant_id, unpaid, HoldState.EXPIRED, machine_now=machine_now)
        for hold in due:
            if hold.is_paid:
                await self._capture(connection, call, hold, HoldState.CAPTURED, machine_now)
        return len(due)

    async def _hold(self, connection: Connection, call: Call, wanted: ToHold) -> BenefitsHold:
        tenant_id, key, machine_now = call.tenant_id, wanted.key, self.clock.now()
        check_age(wanted.issued_at, now=machine_now, hold_id=key.hold_id)
        # what is overdue is free, whether or not the sweeper has come
        await self.give_back_due(connection, call)
        known = await holds.lock(connection, tenant_id, key)
        resolve(_state(known, machine_now), HoldEvent.HOLD, hold_id=key.hold_id)
        await self._check_coupons(connection, tenant_id, wanted, machine_now)
        # budgets last: a brand-wide promotion's row is everybody's, and is held as shortly as can be
        await self._check_budgets(connection, tenant_id, wanted)
        return await holds.hold(connection, tenant_id, wanted, machine_now=machine_now)

    async def _check_coupons(
        self, connection: Connection, tenant_id: str, wanted: ToHold, machine_now: datetime
    ) -> None:
        if not wanted.coupons:
            return
        asked = [use.coupon_id for use in wanted.coupons]
        survivors: Mapping[str, str] = {}
        if wanted.member_id:
            survivors = await coupons.survivors(connection, tenant_id, [wanted.member_id])
        found = await holds.lock_coupons(connection, tenant_id, asked)
        for coupon_id in sorted(asked):
            coupon = found.get(coupon_id)
            if coupon is None:
                raise CouponMissing(coupon_id)
            member_id = survivors.get(wanted.member_id, wanted.member_id)
            refusal = use_refusal(coupon, member_id=member_id, at=wanted.at, machine_now=machine_now)
            if refusal is not None:
                raise refusal(coupon_id)

    async def _check_budgets(self, connection: Connection, tenant_id: str, wanted: ToHold) -> None:
        amounts = {use.promotion_id: use.amount_minor for use in wanted.budgets}
        found = await holds.lock_budgets(connection, tenant_id, amounts)
        for promotion_id, amount_minor in sorted(amounts.items()):
            budget = found.get(promotion_id)
            if budget is None:
                raise PromotionMissing(promotion_id)
            check_budget(budget, amount_minor)

    async def _capture(
        self, connection: Connection, call: Call, hold: BenefitsHold, state: HoldState, machine_now: datetime
    ) -> BenefitsHold:
        await holds.settle(connection, call.tenant_id, [hold.key], state, machine_now=machine_now)
        if hold.is_refunded:
            # the refund came before the capture: what it would have returned comes back now
            returned = await usage.return_coupons(connection, call.tenant_id, [hold.order_id])
            await self.outbox.append(connection, call, *(returned_event(each, call.now) for each in returned))
        return replace(hold, state=state)


def returned_event(coupon: usage.ReturnedCoupon, at: datetime) -> CouponReturned:
    """What the other services are told of a coupon that came back."""
    return CouponReturned(
        coupon_id=CouponId(coupon.coupon_id),
        template_id=TemplateId(coupon.template_id),
        member_id=coupon.member_id,
        order_id=coupon.order_id,
        occurred_at=at,
        version=coupon.version,
    )


def _state(hold: BenefitsHold | None, machine_now: datetime) -> HoldState:
    if hold is None:
        return HoldState.ABSENT
    return state_at(hold.state, expires_at=hold.expires_at, now=machine_now)
