"""Holds of coupons and budgets: held together, captured together, given back by themselves when their time is over.

Calls of a tenant that wait at the same moment share one transaction: the row of a brand-wide promotion's budget is
locked once for all of them instead of once for each.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from services.campaign.domain.benefits import (
    BenefitsHold,
    Book,
    Operation,
    ToHold,
    check_uses,
    touched,
)
from services.campaign.domain.events import CouponReturned, Event
from services.campaign.store import coupons, holds, requests, usage
from services.campaign.store.requests import Answered
from services.runtime.batching import Batcher
from services.runtime.call import Call
from services.runtime.clock import Clock
from services.runtime.database import Connection, Database
from services.runtime.errors import AlreadyExists, DomainError
from services.runtime.holds import HoldState
from services.runtime.idempotency import REQUEST_ID_REUSED
from services.runtime.ids import CouponId, TemplateId
from services.runtime.outbox import Outbox

FAMILY: Final = "campaign.holds"
MAX_BATCH: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call: its operation, and the request id under which it has effect once. `encode` gives the reply to keep."""

    call: Call
    request_id: str
    fingerprint: bytes
    operation: Operation
    encode: Callable[[BenefitsHold], bytes]

    @property
    def name(self) -> tuple[str, str]:
        """The client and its request id."""
        return self.call.client_id, self.request_id


Verdict = bytes | DomainError


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldBook:
    """Applies operations to the books. The clock is the machine's: it decides when a hold's time is over."""

    clock: Clock
    outbox: Outbox[Event]

    async def answer(self, database: Database, tenant_id: str, asked: Sequence[Asked]) -> Sequence[Verdict]:
        """One transaction, one verdict a call, in order; for the batcher."""

        async def work(connection: Connection) -> list[Verdict]:
            return await self._answer(connection, tenant_id, asked)

        return await database.run(tenant_id, work)

    async def give_back_due(
        self,
        connection: Connection,
        call: Call,
        *,
        limit: int = holds.MAX_DUE,
        coupon_ids: Collection[str] = (),
    ) -> int:
        """Resolves up to `limit` holds whose time is over; how many.

        Locks the coupons of these ids as well, for whoever goes on with them in the transaction."""
        book, due = await self._open(connection, call.tenant_id, [], limit=limit, coupon_ids=coupon_ids)
        await self._close(connection, call, book, due)
        return len(due)

    async def _answer(self, connection: Connection, tenant_id: str, asked: Sequence[Asked]) -> list[Verdict]:
        known = await requests.find(connection, tenant_id, FAMILY, list({each.name for each in asked}))
        # a request that is here twice is answered once
        first = {each.name: each for each in reversed(asked) if each.name not in known}
        if first:
            new = await self._apply(connection, tenant_id, list(first.values()))
            await requests.store(connection, tenant_id, FAMILY, new)
            known |= {(each.client_id, each.request_id): each for each in new}
        return [_verdict(each, known[each.name]) for each in asked]

    async def _apply(self, connection: Connection, tenant_id: str, asked: Sequence[Asked]) -> list[Answered]:
        book, resolved = await self._open(connection, tenant_id, [each.operation for each in asked])
        answers = []
        for each in asked:
            answer: Verdict
            try:
                hold = book.apply(each.operation)
                resolved.append(hold)
                answer = each.encode(hold)
            except DomainError as refusal:
                answer = refusal
            client_id, request_id = each.name
            answers.append(
                Answered(client_id=client_id, request_id=request_id, fingerprint=each.fingerprint, answer=answer)
            )
        await self._close(connection, asked[0].call, book, resolved)
        return answers

    async def _open(
        self,
        connection: Connection,
        tenant_id: str,
        operations: Sequence[Operation],
        *,
        limit: int = holds.MAX_DUE,
        coupon_ids: Collection[str] = (),
    ) -> tuple[Book, list[BenefitsHold]]:
        """The locked page of the operations, with what is overdue already resolved: it is free, swept or not."""
        machine_now = self.clock.now()
        due = await holds.lock_due(connection, tenant_id, machine_now=machine_now, limit=limit)
        found = await holds.lock(connection, tenant_id, [each.key for each in operations]) if operations else []
        touched_coupons, promotion_ids = touched(operations, [*due, *found])
        buyers = {each.member_id for each in operations if isinstance(each, ToHold) and each.coupons and each.member_id}
        locked = await holds.lock_coupons(connection, tenant_id, touched_coupons.union(coupon_ids))
        # asked after the coupons are locked: a merge moves them, so that it is before or after this as a whole
        survivors = await coupons.survivors(connection, tenant_id, buyers)
        book = Book(
            machine_now=machine_now,
            holds={hold.key: hold for hold in [*found, *due]},
            coupons=locked,
            # budgets last: a brand-wide promotion's row is everybody's, and is held as shortly as can be
            budgets=await holds.lock_budgets(connection, tenant_id, promotion_ids),
            survivors=survivors,
        )
        return book, [book.expire(hold.key) for hold in due]

    async def _close(self, connection: Connection, call: Call, book: Book, resolved: Sequence[BenefitsHold]) -> None:
        """Writes the page back. Where the refund came before the capture, its coupons come back now."""
        await holds.write(connection, call.tenant_id, book)
        refunded = [hold.order_id for hold in resolved if hold.is_refunded and hold.state is HoldState.CAPTURED]
        if refunded:
            returned = await usage.return_coupons(connection, call.tenant_id, refunded)
            await self.outbox.append(connection, call, *(returned_event(each) for each in returned))


def returned_event(coupon: usage.ReturnedCoupon) -> CouponReturned:
    """What the other services are told of a coupon that came back."""
    return CouponReturned(
        coupon_id=CouponId(coupon.coupon_id),
        template_id=TemplateId(coupon.template_id),
        member_id=coupon.member_id,
        order_id=coupon.order_id,
        occurred_at=coupon.refunded_at,
        version=coupon.version,
    )


HoldBatcher = Batcher[Database, Asked, bytes]


def hold_batcher(database: Database, book: HoldBook, *, lanes: int, max_queue: int) -> HoldBatcher:
    """The batcher of an api process: at most `lanes` transactions of holds at a time."""
    return Batcher([database] * lanes, book.answer, name="campaign.holds", max_batch=MAX_BATCH, max_queue=max_queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldDesk:
    """Holds of a tenant, one call at a time; the batcher brings them together."""

    batcher: HoldBatcher
    clock: Clock

    async def ask(self, asked: Asked) -> bytes:
        """The encoded hold after the operation; refusals are those of `Book`, and are kept for 24 hours."""
        if isinstance(asked.operation, ToHold):
            check_uses(asked.operation)
        call = asked.call
        return await self.batcher.submit(call.tenant_id, asked, deadline_at=call.deadline_at)


def _verdict(asked: Asked, known: Answered) -> Verdict:
    if known.fingerprint != asked.fingerprint:
        return AlreadyExists(
            "this request id was used with another body; a new request needs a new id",
            reason=REQUEST_ID_REUSED,
            metadata={"request_id": asked.request_id},
        )
    return known.answer
