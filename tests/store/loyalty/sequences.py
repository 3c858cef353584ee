"""Sequences of a member's steps: played in the reference model, and noted for SQL with what must come of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.runtime.ids import derive_id
from tests.store.loyalty.sql_ledger import POOLS
from tests.unit.loyalty.points_model import PointsModel, Pool, Refusal

Steps = dict[str, list[tuple[Any, ...]]]
"""The steps of a turn by kind: the row that is asked, and the verdict that must come."""


def end_of_grace(now: datetime) -> datetime:
    """30 days, to the end of the last one (the tenant of this test lives in UTC)."""
    day: date = now.date() + timedelta(days=31)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Member:
    """A member in both worlds: the model's, and the names of things in SQL."""

    id: str
    model: PointsModel
    rolls: list[int]
    count: int = 0
    earned: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    burnt: list[str] = field(default_factory=list)
    grants: list[tuple[Any, ...]] = field(default_factory=list)

    def name(self) -> str:
        """A new name for a thing of this member."""
        self.count += 1
        return derive_id(self.id, str(self.count))


class Dice:
    """Choices out of one integer, so that hypothesis has one number to draw (and to shrink) a step."""

    def __init__(self, roll: int) -> None:
        self.left = roll

    def below(self, limit: int) -> int:
        """A number below the limit."""
        self.left, chosen = divmod(self.left, limit)
        return chosen

    def one_of(self, items: list[Any]) -> Any:
        """One of the items."""
        return items[self.below(len(items))]


def take_step(member: Member, roll: int, steps: Steps) -> None:
    """One step of the member: done in the model at once, and noted for the batch of its kind with what must come."""
    dice = Dice(roll)
    model = member.model
    kind = dice.one_of(["earn", "earn", "grant", "grant", "hold", "hold", "resolve", "refund", "refund", "expire"])
    now = model.now
    if kind in {"earn", "grant"}:
        pool = POOLS[dice.one_of([0, 0, 1, 1, 1, 2, 3])]
        points = 1 + dice.below(100)
        expires = now + timedelta(days=dice.one_of([-2, 0, 1, 2, 4] if pool.expiry_class == "short" else [20, 22, 30]))
        key = member.name()
        if kind == "earn":
            days = dice.one_of([None, None, 0, 1, 3])
            matures = None if days is None else now + timedelta(days=days)
            model.earn(key, pool, points, expires, matures)
            member.earned.append(key)
            steps[kind].append(((member.id, key, pool, points, expires, matures), None))
            return
        grant, verdict = _grant(member, key, pool, points, expires)
        steps[kind].append((grant, verdict))
        for _ in range(dice.below(4)):
            # more of the same at once: what the account's tail is for
            steps[kind].append(_grant(member, member.name(), pool, 1 + dice.below(50), expires))
        for again in [(grant, verdict)] * (dice.below(4) == 0) + member.grants[: dice.below(3) == 0]:
            steps[kind].append(again)
        member.grants.append((grant, verdict))
    elif kind == "hold":
        repeat = dice.below(8) == 0 and member.count > 0
        key = derive_id(member.id, str(1 + dice.below(member.count))) if repeat else member.name()
        points, offline = 1 + dice.below(120), dice.below(6) == 0
        refusal = _refusal(lambda: model.hold(key, points, debt_allowed=offline))
        if refusal is None:
            member.opened.append(key)
        steps[kind].append(((member.id, key, points, offline), (refusal, model.available)))
    elif kind == "resolve":
        key = dice.one_of(member.opened) if member.opened and dice.below(8) else member.name()
        capture, points = dice.below(3) > 0, dice.below(60)
        held = model.holds[key].points if key in model.holds else 0
        refusal = _refusal(lambda: model.capture(key, points or None) if capture else model.void(key))
        if refusal is None and capture and points <= held:
            member.burnt.append(key)
        steps[kind].append(((member.id, key, capture, points), refusal))
    elif kind == "expire":
        keys = [key for key in member.opened if model.holds[key].state == "HELD"][:1]
        for key in keys:
            model.expire_hold(key)
            steps[kind].append((key, None))
    else:
        gives = [(key, dice.below(model.holds[key].points + 1)) for key in set(member.burnt[-2:])]
        takes = []
        for key in {dice.one_of(member.earned) for _ in range(2)} if member.earned else ():
            earning = model.earnings[key]
            takes.append((key, dice.below(earning.points - earning.taken + 1)))
        gives, takes = sorted(gives), sorted(takes)
        shortfall = model.refund(gives=gives, takes=takes)
        steps[kind].append(((member.id, gives, takes, model.debt_allowed), shortfall))


def _grant(member: Member, key: str, pool: Pool, points: int, expires: datetime) -> tuple[Any, Any]:
    """A grant, done in the model, and what must be told of it."""
    owed = member.model.debt
    member.model.earn(key, pool, points, expires)
    return (member.id, key, pool, points, expires), (member.model.available, owed - member.model.debt)


def _refusal(work: Callable[[], object]) -> str | None:
    try:
        work()
    except Refusal as refusal:
        return refusal.reason
    return None


def expected(model: PointsModel) -> tuple[Any, ...]:
    """What `Ledger.balances` must tell of the member."""
    live = [lot for lots in model.lots.values() for lot in lots if lot.left]
    next_expiry = min((lot.expires_at for lot in live), default=None)
    points = sum(lot.left for lot in live if lot.expires_at == next_expiry)
    return (model.available, model.pending, model.held, model.debt, next_expiry, points)
