"""Quoting a basket: one look at the database, shared by the quotes that wait for it, then the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.campaign.domain.codes import CodeKeys
from services.campaign.domain.coupons import Coupon, use_refusal
from services.campaign.domain.pricing import Basket, Line, Price, Rules, ShownCoupon, best_price
from services.campaign.domain.refusals import CouponMissing
from services.campaign.store.lookups import Found, Lookup, find
from services.campaign.usecases.definitions import Definitions
from services.runtime.batching import Batcher
from services.runtime.call import Call
from services.runtime.clock import Clock
from services.runtime.database import Lane
from services.runtime.errors import Invalid

MAX_BATCH: Final = 64
"""Quotes a look: enough to share it, few enough that nobody waits for the engine's work on hundreds of others."""

Lookups = Batcher[Lane, Lookup, Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToQuote:
    """A basket as somebody shows it. `member_id` empty: not a member; `at` is business time, None for now."""

    lines: tuple[Line, ...]
    member_id: str
    store_id: str
    at: datetime | None
    codes: tuple[str, ...]


def lookups(lanes: Sequence[Lane], *, max_queue: int) -> Lookups:
    """The batcher that quotes look things up by."""
    return Batcher(lanes, find, name="campaign.quote", max_batch=MAX_BATCH, max_queue=max_queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoting:
    """The pricing engine with what it needs to know. Nothing is stored or held."""

    lookups: Lookups
    definitions: Definitions
    keys: CodeKeys
    clock: Clock

    async def quote(self, call: Call, wanted: ToQuote) -> Price:
        """The best allowed total, explained. Raises Invalid for a line id that is used twice."""
        _check_lines(wanted.lines)
        tenant_id = call.tenant_id
        hashed = tuple(self.keys.lookup_of(tenant_id, code) for code in wanted.codes)
        lookup = Lookup(skus=frozenset(line.sku for line in wanted.lines), codes=hashed, member_id=wanted.member_id)
        found = await self.lookups.submit(tenant_id, lookup, deadline_at=call.deadline_at)
        promotions = await self.definitions.promotions(tenant_id, version=found.catalogue_version)
        at = wanted.at or call.now
        rules = Rules(
            promotions=promotions,
            member_prices=found.member_prices,
            budgets_left=found.budgets_left,
            coupons=await self._shown(call, wanted, hashed, found, at) if hashed else (),
        )
        basket = Basket(lines=wanted.lines, is_member=bool(wanted.member_id), store_id=wanted.store_id, at=at)
        return best_price(basket, rules)

    async def _shown(
        self, call: Call, wanted: ToQuote, hashed: tuple[bytes, ...], found: Found, at: datetime
    ) -> list[ShownCoupon]:
        """Each code as a coupon that may be used, or with the reason why not."""
        member_id = found.survivors.get(wanted.member_id, wanted.member_id)
        machine_now = self.clock.now()
        usable: dict[str, Coupon] = {}
        shown: list[ShownCoupon] = []
        for code, key in zip(wanted.codes, hashed, strict=True):
            coupon = found.coupons.get(key)
            if coupon is None:
                shown.append(ShownCoupon(code=code, rejection=CouponMissing.reason))
                continue
            refusal = use_refusal(coupon, member_id=member_id, at=at, machine_now=machine_now)
            if refusal is None:
                usable[code] = coupon
            else:
                shown.append(ShownCoupon(code=code, rejection=refusal.reason))
        templates = await self.definitions.templates(
            call.tenant_id, {(coupon.template_id, coupon.template_version) for coupon in usable.values()}
        )
        for code, coupon in usable.items():
            template = templates[coupon.template_id, coupon.template_version]
            shown.append(ShownCoupon(code=code, coupon_id=coupon.coupon_id, template=template))
        return shown


def _check_lines(lines: Sequence[Line]) -> None:
    seen: set[str] = set()
    for at, line in enumerate(lines):
        if line.line_id in seen:
            raise Invalid(f"line {line.line_id!r} is there twice", field=f"lines[{at}].line_id")
        seen.add(line.line_id)
