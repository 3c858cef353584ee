"""Templates, and the coupons that are issued from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from services.campaign.domain.codes import CodeKeys, end_of, masked
from services.campaign.domain.coupons import (
    CODE_TAKEN,
    Coupon,
    CouponState,
    Issuable,
    Template,
    TemplateCounts,
    ToIssue,
    check_template,
    issue_refusals,
    state_at,
)
from services.campaign.domain.refusals import TemplateMissing
from services.campaign.store import coupons, members, templates
from services.campaign.store.coupons import NewCoupon
from services.runtime.call import Call
from services.runtime.clock import Clock
from services.runtime.database import Connection, Database
from services.runtime.idempotency import Once
from services.runtime.ids import CouponId, MemberId, new_id
from services.runtime.pages import id_in, key_of, page_size, time_in, token_after

_SEPARATOR: Final = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutTemplate:
    """A template as it stands after a change."""

    template: Template
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTemplate:
    """A template with its version and its coupons counted."""

    template: Template
    version: int
    counts: TemplateCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One verdict: the coupon without its code, or the reason of its refusal."""

    coupon: Coupon | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponDesk:
    """Templates and coupons of a tenant."""

    database: Database
    keys: CodeKeys
    clock: Clock

    async def put_template(self, call: Call, once: Once[PutTemplate], template: Template) -> bytes:
        """Makes or replaces a template; the encoded reply. Raises Invalid for a rule that contradicts itself."""
        check_template(template)

        async def work(connection: Connection) -> PutTemplate:
            return PutTemplate(template=template, version=await templates.put(connection, call.tenant_id, template))

        return await once.run(self.database, work)

    async def read_template(self, call: Call, template_id: str) -> ReadTemplate:
        """The template with its counts. Raises TemplateMissing."""

        async def work(connection: Connection) -> ReadTemplate:
            found = await templates.get(connection, call.tenant_id, template_id)
            if found is None:
                raise TemplateMissing(template_id)
            template, version, counts = found
            return ReadTemplate(template=template, version=version, counts=counts)

        return await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())

    async def issue(self, call: Call, once: Once[Sequence[Issued]], items: Sequence[ToIssue]) -> bytes:
        """Issues what may be issued; the encoded verdicts, without codes (see `code_to_tell`)."""

        async def work(connection: Connection) -> Sequence[Issued]:
            return await self._issue(connection, call, items)

        return await once.run(self.database, work)

    def code_to_tell(self, call: Call, coupon_id: str, *, chosen: str) -> str:
        """The code of a coupon that was just issued: it is told, and stored nowhere."""
        return chosen or self.keys.made(call.tenant_id, coupon_id)

    async def of_member(
        self, call: Call, member_id: str, *, usable_only: bool, size: int, token: str
    ) -> tuple[list[Coupon], str]:
        """A page of the member's coupons by expiry, and the token of the next one."""
        after = _place_of(token)
        limit = page_size(size)
        machine_now = self.clock.now()

        async def work(connection: Connection) -> list[coupons.ListedCoupon]:
            return await coupons.of_member(
                connection,
                call.tenant_id,
                member_id,
                after=after,
                usable_at=call.now if usable_only else None,
                machine_now=machine_now,
                limit=limit + 1,
            )

        listed = await self.database.read(call.tenant_id, work, timeout_s=call.remaining_s())
        page = [self._to_show(call, each, machine_now) for each in listed[:limit]]
        last = page[-1] if len(listed) > limit else None
        following = token_after(f"{last.valid_until.isoformat()}{_SEPARATOR}{last.coupon_id}") if last else ""
        return page, following

    def _to_show(self, call: Call, listed: coupons.ListedCoupon, machine_now: datetime) -> Coupon:
        coupon = listed.coupon
        made = listed.code_end is None
        code = self.keys.made(call.tenant_id, coupon.coupon_id) if made else masked(listed.code_end or "")
        return replace(coupon, code=code, state=state_at(coupon, machine_now))

    async def _issue(self, connection: Connection, call: Call, items: Sequence[ToIssue]) -> list[Issued]:
        tenant_id = call.tenant_id
        owners = {item.member_id for item in items if item.member_id is not None}
        if owners:
            await members.hold_still(connection, tenant_id)
        survivors = await coupons.survivors(connection, tenant_id, owners)
        items = [_for_survivor(item, survivors) for item in items]
        found = await templates.lock_to_issue(connection, tenant_id, {item.template_id for item in items})
        limited = {
            (item.template_id, item.member_id)
            for item in items
            if item.member_id is not None and item.template_id in found and found[item.template_id].member_limit
        }
        lookups = {item.code: self.keys.lookup_of(tenant_id, item.code) for item in items if item.code}
        taken = await coupons.taken(connection, tenant_id, list(lookups.values()))
        refusals = issue_refusals(
            items,
            templates=found,
            owned=await coupons.owned(connection, tenant_id, limited),
            taken=frozenset(code for code, lookup in lookups.items() if lookup in taken),
            now=call.now,
        )
        new = [
            None if refusal else self._new(tenant_id, item, found[item.template_id])
            for item, refusal in zip(items, refusals, strict=True)
        ]
        inserted = await coupons.issue(
            connection, tenant_id, [each for each in new if each is not None], issued_at=call.now
        )
        counts: Counter[str] = Counter(
            each.coupon.template_id for each in new if each is not None and each.coupon.coupon_id in inserted
        )
        if counts:
            await templates.count_issued(connection, tenant_id, counts)
        return [_verdict(each, refusal, inserted) for each, refusal in zip(new, refusals, strict=True)]

    def _new(self, tenant_id: str, item: ToIssue, template: Issuable) -> NewCoupon:
        coupon_id = new_id()
        code = item.code or self.keys.made(tenant_id, coupon_id)
        return NewCoupon(
            coupon=Coupon(
                coupon_id=CouponId(coupon_id),
                template_id=item.template_id,
                template_version=template.version,
                member_id=item.member_id,
                state=CouponState.ISSUED,
                valid_from=template.valid_from,
                valid_until=template.valid_until,
            ),
            code_lookup=self.keys.lookup_of(tenant_id, code),
            code_end=end_of(item.code) if item.code else None,
        )


def _for_survivor(item: ToIssue, survivors: dict[str, str]) -> ToIssue:
    survivor = survivors.get(item.member_id or "")
    return item if survivor is None else replace(item, member_id=MemberId(survivor))


def _verdict(new: NewCoupon | None, refusal: str, inserted: frozenset[str]) -> Issued:
    if new is None:
        return Issued(refusal=refusal)
    # another batch took the code between our look and our insert
    return Issued(coupon=new.coupon) if new.coupon.coupon_id in inserted else Issued(refusal=CODE_TAKEN)


def _place_of(token: str) -> tuple[datetime, str] | None:
    key = key_of(token)
    if not key:
        return None
    at, _, coupon_id = key.partition(_SEPARATOR)
    return time_in(at), id_in(coupon_id)
